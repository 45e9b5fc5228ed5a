"""A listing while others write, rename and remove in the same place."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event, Thread

import pytest

from curate.storage import Bucket, Folder, Stat, Store
from curate.storage.place import is_temporary, sweep, temporary_name, walk

STAYS = [f"stage/stays-{i:02d}.parquet" for i in range(50)]


@pytest.fixture
def hammered(tmp_path: Path) -> Iterator[Folder]:
    """A folder of 50 files that stay, in which two other processes are at work."""
    store = Folder(tmp_path / "build")
    for name in STAYS:
        store.write(name, b"12345")
    at_work = [
        subprocess.Popen([sys.executable, str(Path(__file__).with_name("renamer.py")), store.root]) for _ in "ab"
    ]
    while len(list((store.root).glob("gone/*"))) < 3:
        time.sleep(0.02)
    yield store
    assert all(process.poll() is None for process in at_work), "nobody disturbs the writers"
    for process in at_work:
        process.kill()
        process.wait()


def test_a_listing_never_trips_over_what_comes_and_goes(hammered: Folder) -> None:
    until, looked = time.monotonic() + 2.0, 0
    while time.monotonic() < until:
        found = hammered.files()
        names = [stat.path for stat in found]
        assert names == sorted(set(names))
        assert set(STAYS) <= set(names), "what stays is always listed"
        assert not any(is_temporary(Path(name).name) for name in names)
        assert {stat.bytes for stat in found if stat.path in STAYS} == {5}
        looked += 1
    assert looked > 20


def test_nor_do_a_look_at_single_files_and_a_sweep(hammered: Folder) -> None:
    until = time.monotonic() + 1.0
    moving = [f"stage/part-{i:05d}.parquet" for i in range(40)]
    while time.monotonic() < until:
        assert hammered.existing([*moving, *STAYS]) >= set(STAYS)
        assert sum(entry.name.startswith("stays-") for entry in walk(hammered.root)) == 50


def test_a_bucket_is_listed_while_objects_come_and_go(in_bucket: Bucket) -> None:
    for name in STAYS:
        in_bucket.write(name, b"12345")
    ended = Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for i in range(5):
                in_bucket.write(f"stage/part-{i}", b"1")
            in_bucket.remove(f"stage/part-{i}" for i in range(5))

    with ExitStack() as at_end:
        other = Thread(target=come_and_go)
        other.start()
        at_end.callback(other.join)
        at_end.callback(ended.set)
        until = time.monotonic() + 1.5
        while time.monotonic() < until:
            listed = in_bucket.files("stage")
            assert {stat.path for stat in listed} >= set(STAYS)
            for stat in (s for s in listed if s.path not in STAYS):  # gone, or there again: both are an answer
                assert in_bucket.stat(stat.path) in (None, Stat(stat.path, 1))
                try:
                    assert in_bucket.read(stat.path) == b"1"
                except FileNotFoundError as exc:
                    assert stat.path in str(exc)  # noqa: PT017 - either is right


def test_a_listed_file_may_be_gone_when_it_is_read(store: Store) -> None:
    store.write("a/b", b"1")
    [listed] = store.files()
    store.remove(["a/b"])
    assert store.stat(listed.path) is None
    with pytest.raises(FileNotFoundError):
        store.read(listed.path)
    with pytest.raises(FileNotFoundError):
        store.local(listed.path).open()
    store.remove([listed.path])


@pytest.mark.parametrize(
    "name", [".hidden", "x.part", ".x.part", "part-00001.parquet", ".x.0123.part", "a.0123456789abcdef.part"]
)
def test_names_that_only_look_temporary_are_listed(tmp_path: Path, name: str) -> None:
    store = Folder(tmp_path)
    store.write(name, b"1")
    assert [stat.path for stat in store.files()] == [name]
    assert sweep(tmp_path) == []


@pytest.mark.parametrize("name", ["part-00001.parquet", ".hidden", "ünï 日本", "x.part"])
def test_a_file_that_is_being_written_is_not_listed_and_is_swept(tmp_path: Path, name: str) -> None:
    (tmp_path / "stage").mkdir()
    left = tmp_path / "stage" / temporary_name(name)
    left.write_bytes(b"half")
    assert Folder(tmp_path).files() == []
    assert sweep(tmp_path) == [f"stage/{left.name}"]


def test_links_are_listed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/file").write_bytes(b"1")
    (tmp_path / "build").mkdir()
    (tmp_path / "build/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "build/round").symlink_to("round")
    store = Folder(tmp_path / "build")
    assert [stat.path for stat in store.files()] == ["link", "round"]
    assert store.stat("round") is None
    assert store.files("round") == store.files("none") == []
