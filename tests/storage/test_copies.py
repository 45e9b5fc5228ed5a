"""Local copies of objects: of the right version, whole, within a budget."""

from __future__ import annotations

import mmap
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_proxy import PASSING, FaultyProxy, seeded

from curate.storage import Bucket, copies, open_store


def kept(cache: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in cache.rglob("*") if path.is_file()}


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
    in_bucket: Bucket, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_CACHE_BYTES", "2500")
    monkeypatch.setattr(copies, "_SWEEP_SECONDS", 0.0)
    for i in range(4):
        in_bucket.write(f"f{i}", bytes([i]) * 1000)
    first = in_bucket.local("f0")
    os.utime(first, (1, 1))
    with first.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        second = in_bucket.local("f1")
        os.utime(second, (2, 2))
        assert in_bucket.local("f0") == first, "it counts as used now"
        third = in_bucket.local("f2")
        assert not second.exists()
        os.utime(first, (3, 3))
        fourth = in_bucket.local("f3")
        assert not first.exists()
        assert mapped[:] == bytes(1000), "who has it mapped keeps it"
    assert kept(own_cache) == {third.name: 1000, fourth.name: 1000}
    assert in_bucket.local("f0").read_bytes() == bytes(1000), "and it can be had again"


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
        for paths in pool.map(lambda _: behind_proxy.locals(names), range(3)):
            assert [path.read_bytes() for path in paths] == [name.encode() * 5000 for name in names]
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
