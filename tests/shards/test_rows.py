"""Gathering ragged rows equals what one would do by hand, and a record batch's bytes follow from its values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from curate.shards.rows import Ragged, gather
from curate.shards.schema import KEY_NAMES, StreamSpec, shard_schema

SPECS = [StreamSpec("grid", 64000, "uint16", (None, 2, 3)), StreamSpec("text", 200, "uint8", (None,))]
SPECS += [StreamSpec("global", 70000, "uint32", (4,))]


def batch_of(rows: list[dict[str, NDArray[Any] | None]]) -> pa.RecordBatch:
    """A record batch by pyarrow's own builders, not by ours."""
    keys = [pa.array([f"{name}{i}" for i in range(len(rows))], pa.string()) for name in KEY_NAMES[:3]]
    times = [pa.array(range(len(rows)), pa.int64())] * 2
    ids = [
        pa.array([None if (v := r[s.name]) is None else v.reshape(-1).tolist() for r in rows], s.arrow_type)
        for s in SPECS
    ]
    return pa.RecordBatch.from_arrays([*keys, *times, *ids], schema=shard_schema(SPECS))


@st.composite
def tables(draw: st.DrawFn) -> list[list[dict[str, NDArray[Any] | None]]]:
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    long = draw(st.sampled_from([1, 3, 200]))  # 200 steps a row take the way of slices, few take that of indices
    even, missing = draw(st.booleans()), draw(st.sampled_from([0, 0.2]))  # rows of one length take a third way

    def row() -> dict[str, NDArray[Any] | None]:
        grid, text = (long, long) if even else rng.integers(0, 2 * long, 2)
        full = {
            "grid": rng.integers(0, 64000, (grid, 2, 3)).astype(np.uint16),
            "text": rng.integers(0, 200, text).astype(np.uint8),
            "global": rng.integers(0, 70000, 4).astype(np.uint32),
        }
        return {k: None if rng.random() < missing else v for k, v in full.items()}

    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=4))
    return [[row() for _ in range(n)] for n in sizes]


@given(table=tables(), data=st.data())
@settings(max_examples=120, deadline=None)
def test_gather_equals_picking_by_hand(table: list[list[dict[str, Any]]], data: st.DataObject) -> None:
    every = [(b, r) for b, rows in enumerate(table) for r in range(len(rows))]
    picks = data.draw(st.lists(st.sampled_from(every), max_size=40))
    # A slice does not start at 0 of its buffers: offsets must be taken as they are.
    batches = [pa.concat_batches([batch_of(rows[:1]), batch_of(rows)]).slice(1) for rows in table]
    which, row = (np.array([p[k] for p in picks], np.int64) for k in (0, 1))
    got = gather(batches, which, row, SPECS)
    assert got.keys["sample_id"].tolist() == [f"sample_id{r}" for _, r in picks]
    assert got.keys["end_us"].tolist() == [r for _, r in picks]
    for spec in SPECS:
        for i, (b, r) in enumerate(picks):
            want, have = table[b][r][spec.name], got.streams[spec.name][i]
            assert (want is None) == (have is None)
            if want is not None and have is not None:
                assert have.dtype == want.dtype
                np.testing.assert_array_equal(have, want)
    half = len(picks) // 2
    part = got.part(half, len(picks))
    for i in range(len(part)):
        np.testing.assert_array_equal(part.streams["grid"][i], got.streams["grid"][half + i])
    if picks:
        turn = np.array(data.draw(st.lists(st.integers(0, len(picks) - 1), max_size=40)), np.int64)
        for spec in SPECS:
            whole = got.streams[spec.name]
            joined = Ragged.concat([whole.part(0, half), whole.part(half, len(picks)), whole.take(turn)])
            for i, row in enumerate([*range(len(picks)), *turn.tolist()]):
                np.testing.assert_array_equal(joined[i], whole[row])
            assert joined.values.dtype == spec.numpy_dtype


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        (np.array([40000, 64000]), "0 <= id < 64000"),
        (np.array([-1, 5]), "0 <= id < 64000"),
        (np.array([1.0, 2.0]), "must be integers"),
        (np.array([[1, 2]]), "shape"),
    ],
)
def test_ids_that_do_not_fit_are_refused_and_never_wrapped(ids: NDArray[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        StreamSpec("s", 64000, "uint16", (None,)).check(ids)


def test_id_40000_stays_40000() -> None:
    spec = StreamSpec("s", 64000, "uint16", (None,))
    assert spec.check(np.array([40000, 63999], np.int64)).tolist() == [40000, 63999]


@pytest.mark.parametrize("shape", [(2, None), (), (None, 0)])
def test_only_the_first_length_may_vary(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(ValueError, match="only the first length"):
        StreamSpec("s", 256, "uint8", shape)


def test_a_type_larger_than_needed_is_refused() -> None:
    with pytest.raises(ValueError, match="smallest"):
        StreamSpec("s", 256, "uint16", (None,))
