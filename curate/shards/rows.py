"""Rows of token files in numpy: columns of ragged ids, gathered from memory-mapped record batches.

Never a Python loop over Arrow scalars: what is per row here is at most one slice copy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.shards.schema import KEY_NAMES, StreamSpec

Ints = NDArray[np.int64]

_LOOP_FROM = 64
"""Mean steps of a row from which one slice copy a row is faster than one index a step (measured: 1024-id steps and
captions favour indices, 300-frame audio rows are 6 times faster by slices)."""


@dataclass(frozen=True)
class Ragged:
    """One stream of some rows.

    Attributes:
        values: `(steps, *fixed)` of the stream's dtype: all rows one after the other.
        offsets: int64 `(rows + 1,)`: row i is `values[offsets[i]:offsets[i + 1]]`.
        present: bool `(rows,)`: False where the sample has no such modality.
        varies: true if a row has a leading length of its own (`shape[0]` is None).
    """

    values: NDArray[Any]
    offsets: Ints
    present: NDArray[np.bool_]
    varies: bool = True

    def __len__(self) -> int:
        return len(self.present)

    @property
    def lengths(self) -> Ints:
        """Steps of each row, int64 `(rows,)`; 0 where it is missing."""
        return np.diff(self.offsets)

    def __getitem__(self, i: int) -> NDArray[Any] | None:
        """Ids of row i in the stream's shape, a view; None where the modality is missing."""
        if not self.present[i]:
            return None
        row = self.values[self.offsets[i] : self.offsets[i + 1]]
        return row if self.varies else row[0]

    def part(self, start: int, stop: int) -> Ragged:
        """Rows start to stop, as views."""
        offsets = self.offsets[start : stop + 1]
        values = self.values[offsets[0] : offsets[-1]]
        return Ragged(values, offsets - offsets[0], self.present[start:stop], self.varies)

    def take(self, rows: Ints) -> Ragged:
        """These rows, in this order, copied."""
        steps, order = self.lengths[rows], np.arange(len(rows))
        unit = prod(self.values.shape[1:])
        source = (self.values.reshape(-1, unit), slice(0, len(rows)))
        values, offsets = _assemble([source], self.offsets[rows], steps, order, unit, self.values.dtype)
        return Ragged(values.reshape(-1, *self.values.shape[1:]), offsets, self.present[rows], self.varies)

    @classmethod
    def concat(cls, parts: Sequence[Ragged]) -> Ragged:
        """The rows of several, at least one, one after the other."""
        ends = np.cumsum([0, *(len(p.values) for p in parts)])
        offsets = [p.offsets[:-1] + end for p, end in zip(parts, ends, strict=False)]
        return cls(
            np.concatenate([p.values for p in parts]),
            np.concatenate([*offsets, ends[-1:]]).astype(np.int64),
            np.concatenate([p.present for p in parts]),
            parts[0].varies,
        )


@dataclass(frozen=True)
class Rows:
    """Some rows: key columns as numpy (strings as objects, times as int64), and streams."""

    keys: dict[str, NDArray[Any]]
    streams: dict[str, Ragged]

    def __len__(self) -> int:
        return len(next(iter(self.keys.values())))

    def part(self, start: int, stop: int) -> Rows:
        """Rows start to stop, as views."""
        return Rows(
            {k: v[start:stop] for k, v in self.keys.items()}, {k: v.part(start, stop) for k, v in self.streams.items()}
        )


def gather(
    batches: Sequence[pa.RecordBatch],
    which: Ints,
    row: Ints,
    streams: Sequence[StreamSpec],
    keys: Sequence[str] = KEY_NAMES,
) -> Rows:
    """Rows `row[i]` of `batches[which[i]]`, for each i in order.

    Rows are fetched batch by batch in file order, each page touched once, and written where they belong.
    """
    order = np.lexsort((row, which))
    which, row = which[order], row[order]
    edges = np.concatenate(([0], np.flatnonzero(np.diff(which)) + 1, [len(which)]))
    groups = [(batches[int(which[a])], slice(int(a), int(b)), row[a:b]) for a, b in pairwise(edges) if b > a]
    return Rows(
        {name: _gather_key(groups, order, name) for name in keys},
        {spec.name: _gather_stream(groups, order, spec) for spec in streams},
    )


_Groups = list[tuple[pa.RecordBatch, slice, Ints]]


def _gather_key(groups: _Groups, order: Ints, name: str) -> NDArray[Any]:
    times = name in ("start_us", "end_us")
    out = np.empty(len(order), np.int64 if times else object)
    for batch, part, row in groups:
        column = batch.column(name)
        picked = column.to_numpy()[row] if times else column.take(pa.array(row)).to_numpy(zero_copy_only=False)
        out[order[part]] = picked
    return out


def _gather_stream(groups: _Groups, order: Ints, spec: StreamSpec) -> Ragged:
    unit, n = spec.unit, len(order)
    starts, steps = np.empty(n, np.int64), np.empty(n, np.int64)  # in file order, as are `sources`
    present = np.ones(n, np.bool_)
    sources: _Sources = []
    for batch, part, row in groups:
        column = batch.column(spec.name)
        # Offsets count from the start of the child array, so the child is taken whole, not as `flatten` cuts it.
        bounds = column.offsets.to_numpy()
        starts[part] = bounds[row] // unit
        steps[part] = bounds[row + 1] // unit - starts[part]
        if column.null_count:
            present[order[part]] = column.is_valid().to_numpy(zero_copy_only=False)[row]
        flat = column.values.to_numpy()
        source = flat[: len(flat) // unit * unit].reshape(-1, unit)
        if steps[part].min() < 0 or starts[part].min() < 0 or (starts[part] + steps[part]).max() > len(source):
            raise CurateError(f"stream {spec.name!r}: a row leaves its record batch", "check the build: curate verify")
        sources.append((source, part))
    values, offsets = _assemble(sources, starts, steps, order, unit, spec.numpy_dtype)
    return Ragged(values.reshape(-1, *spec.fixed), offsets, present, spec.shape[0] is None)


_Sources = list[tuple[NDArray[Any], slice]]
"""Steps `(steps, unit)`, and which of the rows are to be found there."""


def _assemble(
    sources: _Sources, starts: Ints, steps: Ints, order: Ints, unit: int, dtype: np.dtype[Any]
) -> tuple[NDArray[Any], Ints]:
    """Values and offsets of rows that lie at `starts` of their sources, `steps` long; the i-th goes to `order[i]`."""
    n = len(order)
    offsets = np.zeros(n + 1, np.int64)
    offsets[order + 1] = steps
    np.cumsum(offsets, out=offsets)
    values = np.empty((int(offsets[-1]), unit), dtype)
    wide = int(steps[0]) if n else 1
    if wide > 1 and (steps == wide).all() and not (starts % wide).any():  # rows of one length: a row is one step
        sources = [(s[: len(s) // wide * wide].reshape(-1, unit * wide), part) for s, part in sources]
        whole = values.reshape(-1, unit * wide)
        _copy_steps(sources, starts // wide, steps // wide, order, offsets // wide, whole)
    elif len(values) > _LOOP_FROM * n:
        _copy_rows(sources, starts, steps, offsets[order], values)
    else:
        _copy_steps(sources, starts, steps, order, offsets, values)
    return values, offsets


def _copy_rows(sources: _Sources, starts: Ints, steps: Ints, places: Ints, values: NDArray[Any]) -> None:
    """One slice copy a row."""
    for source, part in sources:
        rows = zip(starts[part].tolist(), steps[part].tolist(), places[part].tolist(), strict=True)
        for start, count, place in rows:
            values[place : place + count] = source[start : start + count]


def _copy_steps(
    sources: _Sources,
    starts: Ints,
    steps: Ints,
    order: Ints,
    offsets: Ints,
    values: NDArray[Any],
) -> None:
    """One index a step, twice: out of the files in file order, then into the wanted order."""
    edges = np.concatenate(([0], np.cumsum(steps)))
    wanted = np.arange(len(values)) + np.repeat(starts - edges[:-1], steps)
    in_file_order = np.empty_like(values)
    for source, part in sources:
        here = slice(int(edges[part.start]), int(edges[part.stop]))
        # Bounds were checked; "clip" only spares numpy a buffer.
        np.take(source, wanted[here], axis=0, out=in_file_order[here], mode="clip")
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    back = np.arange(len(values)) + np.repeat(edges[place] - offsets[:-1], np.diff(offsets))
    np.take(in_file_order, back, axis=0, out=values, mode="clip")


def to_batch(
    keys: Mapping[str, pa.Array], rows: Mapping[str, Ragged], schema: pa.Schema, streams: Sequence[StreamSpec]
) -> pa.RecordBatch:
    """A record batch all of whose buffers are a function of its values alone (law 6).

    Args:
        keys: the key columns, laid out by Arrow from a column's first row on (as `take` does).
        rows: the ids of each stream.
    """
    columns = [keys[name] for name in KEY_NAMES]
    columns += [to_list(rows[spec.name], spec) for spec in streams]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def to_list(ragged: Ragged, spec: StreamSpec) -> pa.ListArray:
    offsets = ragged.offsets * spec.unit
    if offsets[-1] > np.iinfo(np.int32).max:
        raise ValueError(f"stream {spec.name!r}: {offsets[-1]} ids in one record batch; Arrow lists hold 2^31 - 1")
    missing = len(ragged) - int(ragged.present.sum())
    # Made here, not by pyarrow's builders, so that the bits beyond the last row are zeros.
    validity = pa.py_buffer(np.packbits(ragged.present, bitorder="little")) if missing else None
    return pa.ListArray.from_buffers(
        spec.arrow_type,
        len(ragged),
        [validity, pa.py_buffer(offsets.astype(np.int32))],
        null_count=missing,
        children=[pa.array(np.ascontiguousarray(ragged.values).reshape(-1))],
    )
