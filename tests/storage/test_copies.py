"""Local copies of objects: of the right version, whole, within a budget, and there as long as they are in use."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_proxy import PASSING, FaultyProxy, seeded

from curate.storage import Bucket, copies, open_store


def kept(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in (cache / "objects").rglob("*") if path.is_file()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of two and a half copies, swept whenever one is made."""
    monkeypatch.setenv("CURATE_CACHE_BYTES", "2500")
    monkeypatch.setattr(copies, "_SWEEP_SECONDS", 0.0)


def test_an_object_is_copied_once_for_each_version(in_bucket: Bucket, own_cache: Path) -> None:
    in_bucket.write("shard.arrow", b"one")
    first = in_bucket.local("shard.arrow")
    made = first.stat().st_ino
    assert in_bucket.local("shard.arrow") == first
    assert first.stat().st_ino == made
    in_bucket.write("shard.arrow", b"two")
    second = in_bucket.local("shard.arrow")
    assert second != first
    assert (first.read_bytes(), second.read_bytes()) == (b"one", b"two")
    assert second.suffix == ".arrow"
    assert len(kept(own_cache)) == 2


def test_equal_names_in_two_places_are_two_copies(in_bucket: Bucket) -> None:
    other = open_store(f"{in_bucket}/deeper")
    for store, data in ((in_bucket, b"one"), (other, b"two")):
        store.write("f", data)
    assert in_bucket.local("f").read_bytes() == b"one"
    assert other.local("f").read_bytes() == b"two"


def test_a_removed_object_has_no_copy(in_bucket: Bucket) -> None:
    in_bucket.write("f", b"1")
    in_bucket.local("f")
    in_bucket.remove(["f"])
    with pytest.raises(FileNotFoundError):
        in_bucket.local("f")


def test_the_longest_unused_go_when_the_budget_is_spent(
    in_bucket: Bucket, own_cache: Path, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PASSING", 1)
    for i in range(4):
        in_bucket.write(f"f{i}", bytes([i]) * 1000)
    first = in_bucket.local("f0")
    os.utime(first, (1, 1))
    with first.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        second = in_bucket.local("f1")
        os.utime(second, (2, 2))
        assert in_bucket.local("f0") == first, "it counts as used now"
        third = in_bucket.local("f2")
        assert second.name not in kept(own_cache)
        os.utime(own_cache / "objects" / first.name[:2] / first.name, (3, 3))
        fourth = in_bucket.local("f3")
        assert first.name not in kept(own_cache)
        assert mapped[:] == bytes(1000), "who has it mapped keeps it"
    assert kept(own_cache) == {third.name: 1000, fourth.name: 1000}
    assert in_bucket.local("f0").read_bytes() == bytes(1000), "and it can be had again"


def test_copies_in_use_stay_above_the_budget_until_they_are_let_go(
    in_bucket: Bucket, own_cache: Path, small: None
) -> None:
    names = [f"f{i}" for i in range(8)]
    for name in names:
        in_bucket.write(name, name.encode() * 500)
    with in_bucket.pinned(names) as places:
        for name in names:
            in_bucket.local(name)
        assert [place.read_bytes() for place in places] == [name.encode() * 500 for name in names]
    assert not any(place.exists() for place in places)


def test_a_copy_that_is_asked_for_stays_until_many_others_were(
    in_bucket: Bucket, small: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "PASSING", 3)
    for i in range(5):
        in_bucket.write(f"f{i}", bytes(1000))
    places = [in_bucket.local(f"f{i}") for i in range(3)]
    assert all(place.exists() for place in places)
    places += [in_bucket.local(f"f{i}") for i in (3, 4)]
    assert [place.exists() for place in places] == [False, False, True, True, True]


HOLDS = """
import sys
from curate.storage import open_store
with open_store(sys.argv[1]).pinned(sys.argv[2:]) as places:
    print(*places, flush=True)
    sys.stdin.readline()
    print(*(place.read_bytes() == name.encode() * 500 for place, name in zip(places, sys.argv[2:])), flush=True)
    sys.stdin.readline()
"""


def test_another_process_evicts_nothing_that_is_in_use_and_all_that_a_killed_one_had(
    in_bucket: Bucket, own_cache: Path, small: None
) -> None:
    theirs, mine = [f"a{i}" for i in range(4)], [f"b{i}" for i in range(4)]
    for name in theirs + mine:
        in_bucket.write(name, name.encode() * 500)
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(in_bucket), *theirs],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        places = [Path(place) for place in other.stdout.readline().split()]
        assert len(places) == 4
        with in_bucket.pinned(mine):
            other.stdin.write("look\n")
            other.stdin.flush()
            assert other.stdout.readline().split() == ["True"] * 4, "paths that were collected first open later"
            assert {place.name for place in places} <= kept(own_cache).keys()
        other.kill()
    in_bucket.write("c", bytes(1000))
    in_bucket.local("c")
    assert not any(place.exists() for place in places), "its folder of pins went with its lock"
    assert sum(kept(own_cache).values()) <= 2500


def test_a_cache_that_somebody_emptied_is_filled_again(in_bucket: Bucket, own_cache: Path) -> None:
    in_bucket.write("f", b"one")
    in_bucket.local("f")
    shutil.rmtree(own_cache)
    assert in_bucket.local("f").read_bytes() == b"one"


def test_a_file_above_the_whole_budget_is_still_copied(in_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_CACHE_BYTES", "10")
    monkeypatch.setattr(copies, "_SWEEP_SECONDS", 0.0)
    in_bucket.write("f", bytes(1000))
    assert in_bucket.local("f").read_bytes() == bytes(1000)


def test_many_at_once_through_faults(behind_proxy: Bucket, proxy: FaultyProxy, own_cache: Path) -> None:
    """Several ask for the same copies at the same time, while the network is bad: each is whole."""
    names = [f"f{i}" for i in range(12)]
    for name in names:
        behind_proxy.write(name, name.encode() * 5000)
    proxy.choose = seeded(5, 0.3, [fault for fault in PASSING if fault != "stall"])
    with ThreadPoolExecutor(3) as pool:

        def read(_: int) -> list[bytes]:
            with behind_proxy.pinned(names) as paths:
                return [path.read_bytes() for path in paths]

        assert list(pool.map(read, range(3))) == [[name.encode() * 5000 for name in names]] * 3
    assert proxy.injected.total() > 5
    assert len(kept(own_cache)) == len(names), "nothing half is left"


def test_an_object_that_is_replaced_while_it_is_copied(in_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """The copy is of one version: of the one that was found first, or of the next."""
    in_bucket.write("f", b"a" * 1000)
    head = Bucket._head

    def replaced_after_the_look(store: Bucket, path: str) -> object:
        found = head(store, path)
        monkeypatch.setattr(Bucket, "_head", head)
        store.write(path, b"b" * 1000)
        return found

    monkeypatch.setattr(Bucket, "_head", replaced_after_the_look)
    assert in_bucket.local("f").read_bytes() == b"b" * 1000
