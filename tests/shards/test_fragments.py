"""A fragment holds what its stream can hold, whatever form the ids came in, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny import keys_of, make_samples

from curate.schema.errors import CurateError
from curate.schema.verdict import Failure
from curate.shards.fragments import fragment_schema, read_fragment, read_ids, write_fragment
from curate.shards.schema import StreamSpec
from curate.storage import Folder

GRID = StreamSpec("grid", 64000, "uint16", (None, 2, 3))
TEXT = StreamSpec("text", 200, "uint8", (None,))
GLOBAL = StreamSpec("global", 70000, "uint32", (4,))
FEATURES = StreamSpec("clip", 0, "float16", (None, 5))
SAMPLES = make_samples(4)
KEYS = keys_of(SAMPLES)
FAILED = Failure("tokenize:grid", "MediaError", "cannot be opened", 2)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    ids = [np.arange(6).reshape(1, 2, 3), None, np.full((2, 2, 3), 63999), None]
    assert write_fragment(store, "a/b.arrow", GRID, KEYS, ids, [None, FAILED, None, None]) == 4
    table = read_fragment(store, "a/b.arrow", GRID)
    assert table.schema.equals(fragment_schema(GRID), check_metadata=True)
    assert table.column("grid").to_pylist() == [list(range(6)), None, [63999] * 12, None]
    assert table.column("stage").to_pylist() == [None, "tokenize:grid", None, None]
    assert table.column("attempt").to_pylist() == [None, 2, None, None]
    assert read_ids(store, "a/b.arrow").to_pylist() == [s.sample_id for s in SAMPLES]


def forms(spec: StreamSpec, rows: list[np.ndarray | None]) -> list[Any]:
    """The same ids: in the stream's shape, flat, as lists of Arrow, and as a slice of such lists."""
    flat = [None if row is None else row.reshape(-1) for row in rows]
    arrow = pa.array([None if row is None else row.tolist() for row in flat], spec.arrow_type)
    return [rows, flat, arrow, pa.concat_arrays([arrow, arrow]).slice(len(rows))]


@pytest.mark.parametrize(
    ("spec", "rows"),
    [
        (GRID, [np.ones((2, 2, 3), np.int64), None, np.empty((0, 2, 3), np.int64), np.ones((1, 2, 3), np.int64)]),
        (TEXT, [np.arange(5), np.empty(0, np.int64), None, np.arange(150, 199)]),
        (GLOBAL, [np.arange(4), np.arange(69996, 70000), None, np.arange(4)]),
        (FEATURES, [np.ones((1, 5), np.float16), None, np.full((3, 5), 0.1, np.float16), None]),
    ],
)
def test_equal_ids_in_any_form_give_equal_bytes(tmp_path: Path, spec: StreamSpec, rows: list[Any]) -> None:
    made = set()
    for number, ids in enumerate(forms(spec, rows)):
        tables = [KEYS, pa.concat_tables([KEYS.slice(1, 1), KEYS]).slice(1)]
        write_fragment(Folder(tmp_path), f"{number}.arrow", spec, tables[number % 2], ids, [None] * 4)
        made.add((tmp_path / f"{number}.arrow").read_bytes())
    assert len(made) == 1
    have = read_fragment(Folder(tmp_path), "0.arrow", spec).column(spec.name).to_pylist()
    assert have == [None if row is None else row.reshape(-1).tolist() for row in rows]


@pytest.mark.parametrize(
    ("spec", "ids", "says"),
    [
        (TEXT, [np.array([1]), np.array([200])], "0 <= id < 200"),
        (TEXT, [np.array([1]), np.array([-1])], "0 <= id < 200"),
        (TEXT, [np.array([1], np.uint64), np.array([1 << 33], np.int64)], "0 <= id < 200"),
        (TEXT, [np.array([1.0]), None], "must be integers"),
        (GRID, [np.ones((1, 3, 2), int), None], r"shape \[1, 3, 2\]"),
        (GRID, [np.ones(7, int), None], r"shape \[7\]"),
        (GLOBAL, [np.ones(8, int), None], r"shape \[8\]"),
        (GLOBAL, [np.ones(0, int), None], r"shape \[0\]"),
        (FEATURES, [np.full((1, 5), np.nan, np.float16), None], "not finite"),
        (TEXT, pa.array([[1], [200]], pa.list_(pa.int64())), "0 <= id < 200"),
        (TEXT, pa.array([[1], [2.5]], pa.list_(pa.float64())), "must be integers"),
        (TEXT, pa.array([[1], [None]], pa.list_(pa.uint8())), "an id is null"),
        (GRID, pa.array([[1] * 6, [1] * 5], pa.list_(pa.uint8())), r"shape \[5\]"),
        (GLOBAL, pa.array([[1] * 8, [1] * 4], pa.list_(pa.uint8())), r"shape \[8\]"),
    ],
)
def test_ids_that_do_not_fit_are_refused_and_nothing_is_written(
    tmp_path: Path, spec: StreamSpec, ids: Any, says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        write_fragment(Folder(tmp_path), "p.arrow", spec, KEYS.slice(0, 2), ids, [None, None])
    assert list(tmp_path.iterdir()) == []


def test_id_40000_stays_40000(tmp_path: Path) -> None:
    write_fragment(Folder(tmp_path), "p.arrow", GRID, KEYS.slice(0, 1), [np.full((1, 2, 3), 40000, np.int64)], [None])
    assert read_fragment(Folder(tmp_path), "p.arrow").column("grid").to_pylist() == [[40000] * 6]


def test_columns_that_do_not_belong_together(tmp_path: Path) -> None:
    ids = [np.array([1])] * 4
    for wrong in ((KEYS, ids[:3], [None] * 4), (KEYS, ids, [None] * 3)):
        with pytest.raises(ValueError, match="4 keys"):
            write_fragment(Folder(tmp_path), "p.arrow", TEXT, *wrong)
    with pytest.raises(ValueError, match="row 2 failed and has ids"):
        write_fragment(Folder(tmp_path), "p.arrow", TEXT, KEYS, ids, [None, None, FAILED, None])


def test_many_record_batches_and_none(tmp_path: Path) -> None:
    samples = make_samples(2500)
    ids = [None if i % 7 == 0 else np.arange(i % 5) for i in range(2500)]
    store = Folder(tmp_path)
    write_fragment(store, "many.arrow", TEXT, keys_of(samples), ids, [None] * 2500)
    table = read_fragment(store, "many.arrow", TEXT)
    assert [len(chunk) for chunk in table.column("text").chunks] == [1024, 1024, 452]
    assert table.column("text").to_pylist() == [None if one is None else one.tolist() for one in ids]
    assert write_fragment(store, "none.arrow", TEXT, KEYS.slice(0, 0), [], []) == 0
    assert read_fragment(store, "none.arrow", TEXT).num_rows == 0
    assert len(read_ids(store, "none.arrow")) == 0


def test_a_fragment_of_another_stream_is_refused(tmp_path: Path) -> None:
    store = Folder(tmp_path)
    write_fragment(store, "p.arrow", TEXT, KEYS, [None] * 4, [None] * 4)
    other = StreamSpec("text", 200, "uint8", (None,), codec="another bit order")
    with pytest.raises(CurateError, match="holds another stream, or one of another codec"):
        read_fragment(store, "p.arrow", other)
    (tmp_path / "q.arrow").write_bytes((tmp_path / "p.arrow").read_bytes()[:-30])
    with pytest.raises(CurateError, match="not a whole Arrow IPC file"):
        read_fragment(store, "q.arrow", TEXT)
