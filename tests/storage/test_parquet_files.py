"""Of a remote table only the footer and the columns in use are read, in few requests."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from curate.storage import Bucket, Folder, Store
from curate.storage.tables import TAIL, read_table, table_rows, write_table

ROWS = 100_000
TABLE = pa.table(
    {
        "first": np.arange(ROWS),
        "wide": pa.FixedSizeListArray.from_arrays(np.random.default_rng(0).random(ROWS * 16), 16),
        "middle": np.random.default_rng(1).random(ROWS),
        "next": np.random.default_rng(2).random(ROWS),
        "last": [f"row {i}" for i in range(ROWS)],
    }
)


@dataclass(frozen=True)
class Counted(Folder):
    """A folder that passes for a remote store and notes each request: method, bytes."""

    asked: list[tuple[str, int]] = field(default_factory=list)

    @property
    def remote(self) -> bool:
        return True

    def read(self, path: str) -> bytes:
        raise AssertionError("a whole file was read")

    def local(self, path: str) -> Path:
        raise AssertionError("a whole file was copied")

    def chunks(self, path: str, size: int = 1 << 24) -> Iterator[bytes]:
        raise AssertionError("a whole file was read")

    def tail(self, path: str, size: int) -> tuple[bytes, int]:
        data = (self.root / path).read_bytes()
        self.asked.append(("tail", size))
        return data[-size:], len(data)

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        self.asked.append(("range", size))
        return super().read_range(path, offset, size)


@pytest.fixture
def counted(tmp_path: Path) -> Counted:
    write_table(Folder(tmp_path), "t.parquet", TABLE)
    return Counted(tmp_path)


def test_rows_are_known_by_the_footer(counted: Counted) -> None:
    assert table_rows(counted, "t.parquet") == ROWS
    assert counted.asked == [("tail", TAIL)]


def test_a_column_costs_its_own_bytes(counted: Counted) -> None:
    found = read_table(counted, "t.parquet", ["middle"])
    assert found.equals(TABLE.select(["middle"]))
    assert [what for what, _ in counted.asked] == ["tail", "range"]
    assert counted.asked[1][1] < 10 * ROWS


def test_columns_side_by_side_are_one_request(counted: Counted) -> None:
    assert read_table(counted, "t.parquet", ["next", "middle"]).equals(TABLE.select(["next", "middle"]))
    assert [what for what, _ in counted.asked] == ["tail", "range"]
    counted.asked.clear()
    assert read_table(counted, "t.parquet", ["middle", "first"]).equals(TABLE.select(["middle", "first"]))
    assert [what for what, _ in counted.asked] == ["tail", "range", "range"]
    assert sum(size for what, size in counted.asked if what == "range") < 20 * ROWS, "what lies between is not read"


def test_a_small_table_is_one_request(tmp_path: Path) -> None:
    write_table(Folder(tmp_path), "t.parquet", TABLE.slice(0, 100))
    store = Counted(tmp_path)
    assert read_table(store, "t.parquet").equals(TABLE.slice(0, 100))
    assert store.asked == [("tail", TAIL)]


@pytest.mark.parametrize("rows", [0, 1, ROWS])
def test_a_folder_and_a_bucket_read_alike(store: Store, rows: int) -> None:
    table = TABLE.slice(0, rows)
    write_table(store, "deep/t.parquet", table)
    assert table_rows(store, "deep/t.parquet") == rows
    assert read_table(store, "deep/t.parquet").equals(table)
    assert read_table(store, "deep/t.parquet", ["last", "first"]).equals(table.select(["last", "first"]))
    assert read_table(store, "deep/t.parquet", []).num_columns == 0


def test_what_cannot_be_read(store: Store) -> None:
    with pytest.raises(FileNotFoundError):
        read_table(store, "none.parquet", ["a"])
    write_table(store, "t.parquet", TABLE.slice(0, 3))
    with pytest.raises(KeyError, match="other"):
        read_table(store, "t.parquet", ["first", "other"])
    whole = store.read("t.parquet")
    for number, data in enumerate((b"", whole[:-5], b"no table at all")):
        store.write(f"bad{number}.parquet", data)
        with pytest.raises(pa.ArrowException):
            read_table(store, f"bad{number}.parquet")


def test_the_end_of_a_file(store: Store) -> None:
    store.write("f", bytes(range(100)))
    assert store.tail("f", 10) == (bytes(range(90, 100)), 100)
    assert store.tail("f", 100) == store.tail("f", 1000) == (bytes(range(100)), 100)
    store.write("empty", b"")
    assert store.tail("empty", 10) == (b"", 0)
    with pytest.raises(FileNotFoundError):
        store.tail("none", 10)


def test_a_bucket_says_size_and_end_in_one_request(in_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    in_bucket.write("f", bytes(100))
    monkeypatch.setattr(Bucket, "_head", lambda *_: pytest.fail("asked for the size alone"))
    assert in_bucket.tail("f", 10) == (bytes(10), 100)
