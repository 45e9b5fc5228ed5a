"""What a folder and a bucket do alike."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curate.schema.errors import CurateError
from curate.storage import Bucket, Stat, Store, bucket

NAMES = (
    *("plain.txt", "deep/er/file.bin", "with space.txt", "per%cent", "per%20cent", "per%2Fcent", "plus+and&and=and;"),
    *(
        "question?mark",
        "hash#tag",
        "ünï/cödé-日本.png",
        "emoji-🙂",
        "quote'\"",
        "tilde~star*(x)[y]{z}",
        "e\u0301 and \u00e9",
    ),
    *(".hidden/.file", "colon:at@dollar$", "x" * 200),
)
"""What people call files. (Empty parts, `.` and `..` are no names; SeaweedFS takes a backslash for a slash.)"""


def test_what_is_written_is_read(store: Store) -> None:
    for name in NAMES:
        store.write(name, name.encode())
    assert {stat.path: stat.bytes for stat in store.files()} == {name: len(name.encode()) for name in NAMES}
    for name in NAMES:
        data = name.encode()
        assert store.read(name) == data
        assert store.stat(name) == Stat(name, len(data))
        assert b"".join(store.chunks(name, 5)) == data
        assert store.local(name).read_bytes() == data
        assert store.name(name) == f"{store}/{name}"
    assert store.existing([*NAMES, "other", "deep/other"]) == set(NAMES)


def test_a_later_write_replaces(store: Store) -> None:
    store.write("f", b"first, and longer")
    store.write("f", b"second")
    assert store.read("f") == b"second"
    store.write("f", b"")
    assert store.read("f") == b""
    assert list(store.chunks("f")) == []
    assert store.read_range("f", 0, 10) == b""
    assert store.stat("f") == Stat("f", 0)
    assert store.local("f").read_bytes() == b""


def test_files_of_a_folder_are_listed_in_order_without_its_neighbours(store: Store) -> None:
    for name in ("a/x", "a/b/y", "a/b.txt", "a/b-c/z", "ab/x", "a.txt", "b", "A"):
        store.write(name, b"1")
    inside = ["a/b-c/z", "a/b.txt", "a/b/y", "a/x"]
    assert [stat.path for stat in store.files("a")] == inside
    assert [stat.path for stat in store.files("a/b")] == ["a/b/y"]
    assert [stat.path for stat in store.files()] == sorted([*inside, "A", "a.txt", "ab/x", "b"])
    assert store.files("none") == []
    assert store.stat("a") is None, "a folder is no file"


@pytest.mark.parametrize("missing", ["nothing", "a/nothing"])
def test_a_missing_file_is_said_by_its_name_alone(store: Store, missing: str) -> None:
    store.write("a/there", b"1")
    for read in (
        lambda: store.read(missing),
        lambda: store.read_range(missing, 0, 1),
        lambda: list(store.chunks(missing)),
        lambda: store.local(missing).open(),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            read()
        assert missing in str(caught.value)
        assert "\n" not in str(caught.value)
    assert store.stat(missing) is None
    assert store.existing([missing, "a"]) == set()


def test_remove(store: Store) -> None:
    for name in ("a/b/one", "a/b/two", "a/three"):
        store.write(name, b"1")
    store.remove(iter(["a/b/one", "a/b/two", "never/there"]))
    assert [stat.path for stat in store.files()] == ["a/three"]
    store.remove([])
    store.remove(["a/three"])
    assert store.files() == []


def test_a_placed_file_is_there_whole_or_not_at_all(store: Store) -> None:
    with store.atomic_write("t/table.parquet") as temporary:
        temporary.write_bytes(b"half")
        assert store.files() == []
        assert store.stat("t/table.parquet") is None
        temporary.write_bytes(b"whole")
    assert store.read("t/table.parquet") == b"whole"

    def broken_off() -> None:
        with store.atomic_write("t/table.parquet") as temporary:
            temporary.write_bytes(b"other")
            raise RuntimeError("at work")

    with pytest.raises(RuntimeError, match="at work"):
        broken_off()
    assert store.read("t/table.parquet") == b"whole"
    assert [stat.path for stat in store.files()] == ["t/table.parquet"]
    assert not temporary.exists()


@pytest.fixture(scope="module")
def counting() -> bytes:
    return b"".join(i.to_bytes(4, "big") for i in range(1000))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(offset=st.integers(0, 4100), size=st.integers(0, 4100), span=st.integers(1, 1500))
def test_any_range(
    store: Store, counting: bytes, monkeypatch: pytest.MonkeyPatch, offset: int, size: int, span: int
) -> None:
    """A range is a slice, in however many requests it is fetched."""
    monkeypatch.setattr(bucket, "SPAN", max(span, 200))
    if store.stat("f") is None:
        store.write("f", counting)
    assert store.read_range("f", offset, size) == counting[offset : offset + size]
    assert b"".join(store.chunks("f", max(span, 200))) == counting


def test_a_thousand_files(in_bucket: Bucket) -> None:
    """More than one page of a list, and more than one request to delete."""
    names = sorted(f"many/{i % 7}/{i:05d}" for i in range(1010))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: in_bucket.write(name, name.encode()), names))
    assert [stat.path for stat in in_bucket.files("many")] == names
    assert in_bucket.existing([*names[5:50], "many/0/none"]) == set(names[5:50])
    in_bucket.remove(names[1:])
    assert [stat.path for stat in in_bucket.files()] == names[:1]


def test_large_files_in_parts(in_bucket: Bucket, tmp_path: Path) -> None:
    """Over the size of one request both ways. Most of it is zeros, with a mark at each MiB."""
    size = (70 << 20) + 12345
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(size)
        for at in range(0, size, 1 << 20):
            file.seek(at)
            file.write(at.to_bytes(8, "big"))
    with in_bucket.atomic_write("large.bin") as temporary:
        large.rename(temporary)
    assert in_bucket.stat("large.bin") == Stat("large.bin", size)
    at = 0
    for chunk in in_bucket.chunks("large.bin", 10 << 20):
        for mark in range(-(-at >> 20) << 20, at + len(chunk), 1 << 20):
            assert chunk[mark - at : mark - at + 8] == mark.to_bytes(8, "big")
        at += len(chunk)
    assert at == size
    around = in_bucket.read_range("large.bin", (32 << 20) - 4, 16)
    assert around == b"\0" * 4 + (32 << 20).to_bytes(8, "big") + b"\0" * 4
    local = in_bucket.local("large.bin")
    assert local.stat().st_size == size
    with in_bucket.pinned(["large.bin"]) as places:
        assert places[0].samefile(local)


def test_a_commit_replaces_only_what_the_run_found(store: Store) -> None:
    with store.acquire("manifest.json") as lease:
        assert lease.warning is None
        lease.commit(b"one")
        lease.commit(b"two")
        assert store.read("manifest.json") == b"two"
        lease.retract()
        assert store.stat("manifest.json") is None
        lease.retract()
        lease.commit(b"three")
    assert {stat.path: store.read(stat.path) for stat in store.files()} == {"manifest.json": b"three"}
    with store.acquire("manifest.json") as lease:
        lease.retract()
    assert store.files() == []


def test_a_second_run_is_told_who_is_at_work(store: Store) -> None:
    with store.acquire("manifest.json"):
        with pytest.raises(CurateError, match="another run is at work on") as caught, store.acquire("manifest.json"):
            raise AssertionError("two runs at once")
        assert str(store) in caught.value.message
        assert "\n" not in caught.value.message
    with store.acquire("manifest.json"):
        pass


def test_a_store_travels_to_other_processes(store: Store) -> None:
    import pickle

    store.write("f", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again == store
    assert again.read("f") == b"1"
    assert again.remote == isinstance(store, Bucket)
