"""Rows of token files in numpy: columns of ragged ids, gathered from memory-mapped record batches.

Never a Python loop over rows, and none over record batches: a row's ids are copied from where Arrow has them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.shards.memory import Ints, bits_at, copy_runs, memory
from curate.shards.schema import KEY_NAMES, StreamSpec


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

    @property
    def stacked(self) -> NDArray[Any]:
        """All rows as one array, `(rows, steps, *fixed)`, a view; ValueError where they have not equally many steps."""
        lengths = self.lengths
        if len(lengths) and (lengths != lengths[0]).any():
            raise ValueError(f"rows of {lengths.min()} to {lengths.max()} steps")
        steps = int(lengths[0]) if len(lengths) else 0
        return self.values.reshape(len(lengths), steps, *self.values.shape[1:])

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
        return Ragged.picked([self], rows)

    def cut(self, starts: Ints, counts: Ints) -> NDArray[Any]:
        """`counts[i]` steps of each row i from step `starts[i]` on, copied: `(sum of counts, *fixed)`."""
        fixed, unit = self.values.shape[1:], prod(self.values.shape[1:])
        held = np.require(self.values, None, ["C", "A"])
        source = memory(held.dtype)
        first = source.index_of(held.ctypes.data) + (self.offsets[:-1] + starts) * unit
        return copy_runs(source, first, counts * unit, _sums(counts) * unit).reshape(-1, *fixed)

    @classmethod
    def picked(cls, parts: Sequence[Ragged], rows: Ints) -> Ragged:
        """These rows of several, at least one, that are numbered one after the other; in this order, copied once."""
        dtype, fixed = parts[0].values.dtype, parts[0].values.shape[1:]
        held = [np.require(part.values, dtype, ["C", "A"]) for part in parts]
        source, unit = memory(dtype), prod(fixed)
        first = [
            source.index_of(values.ctypes.data) + part.offsets[:-1] * unit
            for values, part in zip(held, parts, strict=True)
        ]
        lengths = np.concatenate([part.lengths for part in parts])[rows]
        offsets = _sums(lengths)
        values = copy_runs(source, np.concatenate(first)[rows], lengths * unit, offsets * unit)
        present = np.concatenate([part.present for part in parts])[rows]
        return cls(values.reshape(-1, *fixed), offsets, present, parts[0].varies)

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
    """Some rows: key columns as numpy (strings as `U`, times as int64), and streams."""

    keys: dict[str, NDArray[Any]]
    streams: dict[str, Ragged]

    def __len__(self) -> int:
        return len(next(iter(self.keys.values())))

    def part(self, start: int, stop: int) -> Rows:
        """Rows start to stop, as views."""
        return Rows(
            {k: v[start:stop] for k, v in self.keys.items()}, {k: v.part(start, stop) for k, v in self.streams.items()}
        )

    @classmethod
    def picked(cls, parts: Sequence[Rows], rows: Ints) -> Rows:
        """These rows of several, at least one, that are numbered one after the other; in this order, copied once."""
        return cls(
            {name: np.concatenate([part.keys[name] for part in parts])[rows] for name in parts[0].keys},
            {name: Ragged.picked([part.streams[name] for part in parts], rows) for name in parts[0].streams},
        )


_I32, _I64, _U8 = (memory(np.dtype(t)) for t in (np.int32, np.int64, np.uint8))


class _Lists:
    """Where a column of lists or strings has its parts, by record batch: indices of `Memory`, int64 `(batches,)`."""

    def __init__(self, name: str, dtype: np.dtype[Any], batches: int) -> None:
        self.name, self._memory = name, memory(dtype)
        self.offsets, self.values, self.count = (np.zeros(batches, np.int64) for _ in range(3))
        self.validity, self.first = np.full(batches, -1, np.int64), np.zeros(batches, np.int64)

    def put(self, at: int, column: pa.Array) -> None:
        said, child = column.buffers(), column.values if isinstance(column, pa.ListArray) else None
        offsets, values = said[1], said[-1]
        if offsets is None or offsets.size < (column.offset + len(column) + 1) * _I32.dtype.itemsize:
            raise ValueError("its offsets are cut short")
        if said[0] is not None and said[0].size * 8 < column.offset + len(column):
            raise ValueError("its validity bitmap is cut short")
        skipped = child.offset if child is not None else 0
        self.offsets[at] = _I32.index_of(offsets.address) + column.offset
        self.values[at] = self._memory.index_of(values.address) + skipped if values is not None else 0
        held = values.size // self._memory.dtype.itemsize if values is not None else 0
        self.count[at] = held - skipped if child is None else min(held - skipped, len(child))
        self.validity[at] = _U8.index_of(said[0].address) if column.null_count and said[0] is not None else -1
        self.first[at] = column.offset

    def bounds(self, which: Ints, row: Ints) -> tuple[Ints, Ints]:
        """Where the lists begin in their batches, and how long they are."""
        bounds = _I32.runs(self.offsets[which] + row, 2).view(np.int32).reshape(-1, 2)
        starts = bounds[:, 0].astype(np.int64)
        lengths = bounds[:, 1] - starts
        out = (starts < 0) | (lengths < 0) | (bounds[:, 1] > self.count[which])
        if out.any():
            raise CurateError(f"column {self.name!r}: a row leaves its record batch", "check the build: curate verify")
        return starts, lengths

    def take(self, which: Ints, row: Ints) -> tuple[NDArray[Any], Ints]:
        """The lists' items, one list after the other, and offsets `(n + 1,)`."""
        starts, lengths = self.bounds(which, row)
        offsets = _sums(lengths)
        return copy_runs(self._memory, self.values[which] + starts, lengths, offsets), offsets

    def present(self, which: Ints, row: Ints) -> NDArray[np.bool_]:
        return bits_at(self.validity[which], self.first[which] + row)


class Batches:
    """Record batches of shards or fragments, by number, and rows of them.

    Args:
        streams: the streams to read.
        keys: the key columns to read.
        count: how many batches there may be.
    """

    def __init__(self, streams: Sequence[StreamSpec], keys: Sequence[str], count: int) -> None:
        self._specs = tuple(streams)
        self._streams = {s.name: _Lists(s.name, s.numpy_dtype, count) for s in streams}
        self._times = {k: np.zeros(count, np.int64) for k in keys if k in ("start_us", "end_us")}
        self._words = {k: _Lists(k, _U8.dtype, count) for k in keys if k not in self._times}
        self._keys = tuple(keys)
        self._held: dict[int, pa.RecordBatch] = {}
        self._rows = np.zeros(count, np.int64)

    def put(self, at: int, batch: pa.RecordBatch) -> None:
        """Let `batch` be number `at`; it is held until `drop`.

        Raises:
            CurateError: its buffers are not those of its columns.
        """
        try:
            for name, lists in (*self._streams.items(), *self._words.items()):
                lists.put(at, batch.column(name))
            for name, times in self._times.items():
                column = batch.column(name)
                if column.buffers()[1].size < (column.offset + len(column)) * _I64.dtype.itemsize:
                    raise ValueError(f"{name} is cut short")
                times[at] = _I64.index_of(column.buffers()[1].address) + column.offset
        except ValueError as exc:
            raise CurateError(f"a record batch that cannot be read: {exc}", "check the build: curate verify") from exc
        self._held[at] = batch
        self._rows[at] = batch.num_rows

    def drop(self, at: int) -> None:
        """Forget a batch."""
        del self._held[at]
        self._rows[at] = 0

    def take(
        self, which: Ints, row: Ints, keys: Sequence[str] | None = None, streams: Sequence[str] | None = None
    ) -> Rows:
        """Rows `row[i]` of batches `which[i]`, for each i in order.

        Args:
            keys, streams: the columns wanted; all that are read where None.

        Raises:
            IndexError: a row that no batch has.
            CurateError: a row that leaves its batch.
        """
        if len(row) and (int(row.min()) < 0 or (row >= self._rows[which]).any()):
            raise IndexError("rows of record batches that do not have them")
        return Rows(
            {name: self._key(name, which, row) for name in (self._keys if keys is None else keys)},
            {
                spec.name: self._ragged(spec, which, row)
                for spec in self._specs
                if streams is None or spec.name in streams
            },
        )

    def steps(self, stream: str, which: Ints, row: Ints) -> Ints:
        """Steps of a stream in rows `row[i]` of batches `which[i]`, -1 where it is missing, without reading its ids."""
        lists = self._streams[stream]
        unit = next(spec.unit for spec in self._specs if spec.name == stream)
        steps = lists.bounds(which, row)[1] // unit
        steps[~lists.present(which, row)] = -1
        return steps

    def _key(self, name: str, which: Ints, row: Ints) -> NDArray[Any]:
        if name in self._times:
            return _I64.at(self._times[name][which] + row)
        letters, offsets = self._words[name].take(which, row)
        lengths = np.diff(offsets)
        wide = int(lengths.max()) if len(lengths) else 0
        if not wide:
            return np.zeros(len(row), "U1")
        if (lengths == wide).all():
            table = letters.reshape(-1, wide).astype(np.uint32)
        else:
            table = np.zeros((len(row), wide), np.uint32)
            table[np.arange(wide) < lengths[:, None]] = letters
        return table.view(f"U{wide}").reshape(-1)  # keys are ASCII: a byte is a letter

    def _ragged(self, spec: StreamSpec, which: Ints, row: Ints) -> Ragged:
        lists = self._streams[spec.name]
        values, offsets = lists.take(which, row)
        if spec.unit > 1:
            if (offsets % spec.unit).any():
                raise CurateError(
                    f"stream {spec.name!r}: a row is not whole steps of {spec.unit} ids", "check it: curate verify"
                )
            offsets //= spec.unit
        return Ragged(values.reshape(-1, *spec.fixed), offsets, lists.present(which, row), spec.shape[0] is None)


def gather(
    batches: Sequence[pa.RecordBatch],
    which: Ints,
    row: Ints,
    streams: Sequence[StreamSpec],
    keys: Sequence[str] = KEY_NAMES,
) -> Rows:
    """Rows `row[i]` of `batches[which[i]]`, for each i in order; see `Batches`."""
    table = Batches(streams, keys, len(batches))
    for number in np.unique(which).tolist():
        table.put(number, batches[number])
    return table.take(which, row)


def _sums(lengths: Ints) -> Ints:
    out = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=out[1:])
    return out


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
