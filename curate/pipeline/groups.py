"""A group of signals on one partition: computed batch by batch, checked, committed as one fragment."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.pipeline.blocks import FAIL, FAILURE_TYPE, LOST, failure_array, failures_of, view_name
from curate.pipeline.kept import sample_keys
from curate.pipeline.listing import Listing
from curate.pipeline.models import Models
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Group, Paths
from curate.schema.fields import SignalField
from curate.schema.manifest import File
from curate.schema.verdict import Failure
from curate.signals.base import Signal
from curate.storage import Store
from curate.storage.tables import read_table, write_table

SIGNALS = b"curate.signals"
"""Metadata of a group's fragment: a JSON object, by signal the digest of what its values depend on."""


class GroupFragment:
    """The fragment of a group while it is made.

    Values of signals that an older fragment of the group holds are taken over, so that a signal that is added to a
    group computes itself alone.

    Attributes:
        group: the group.
        missing: signals of it that are to be computed.
    """

    def __init__(self, group: Group, paths: Paths, models: Models) -> None:
        self.group = group
        self._models = models
        self._digests = {s.name: paths.signals_as[s.name] for s in group.signals}
        self._held: dict[str, pa.Table] = {}
        self._parts: list[pa.Table] = []

    @property
    def missing(self) -> list[Signal]:
        return [s for s in self.group.signals if s.name not in self._held]

    def take_over(self, build: Store, committed: Listing, partition: Partition, samples: pa.Table) -> None:
        """Look for values in older fragments of the same samples."""
        for path in committed.below(f"signals/{self.group.name}/{partition.name}-"):
            table = read_table(build, path)
            if not table.column("sample_id").equals(samples.column("sample_id")):
                continue
            said = json.loads((table.schema.metadata or {}).get(SIGNALS, b"{}"))
            for signal in self.missing:
                if said.get(signal.name) == self._digests[signal.name]:
                    self._held[signal.name] = table.select([*(f.name for f in signal.gives), FAIL + signal.name])

    def computed(self, batch: pa.Table, start: int) -> pa.Table:
        """A batch with the columns of the group.

        Args:
            batch: samples with their views, and why they have none.
            start: its first row's place in the partition.
        """
        for held in self._held.values():
            for column in held.column_names:
                batch = batch.append_column(column, held.column(column).slice(start, batch.num_rows))
        if self.missing:
            for name, column in _computed(self._models, batch, self.missing).items():
                batch = batch.append_column(name, column)
        self._parts.append(batch.select([*self._keys(), *self._columns()]))
        return batch

    def rows_held(self, build: Store, paths: Iterable[str]) -> pa.Table:
        """Rows of older fragments of a group of the second look, one a sample, of those that were made as they are now:
        as this fragment will have them."""
        found = [self._schema().empty_table()]
        for path in paths:
            table = read_table(build, path)
            if json.loads((table.schema.metadata or {}).get(SIGNALS, b"{}")) == self._digests:
                there = sample_keys(pa.concat_tables(found))
                new = pc.invert(pc.is_in(sample_keys(table), value_set=there))
                found.append(table.filter(new).cast(self._schema()))
        return pa.concat_tables(found)

    def computed_rows(self) -> pa.Table:
        """What was computed up to now, as rows of the fragment."""
        schema = self._schema()
        return pa.concat_tables(self._parts).cast(schema) if self._parts else schema.empty_table()

    def commit(self, build: Store, path: str) -> File:
        """Write the fragment."""
        return write_table(build, path, self.computed_rows())

    def _schema(self) -> pa.Schema:
        return pa.schema(
            [
                *(pa.field(name, pa.string(), nullable=False) for name in self._keys()),
                *(pa.field(f.name, f.type) for s in self.group.signals for f in s.gives),
                *(pa.field(FAIL + s.name, FAILURE_TYPE) for s in self.group.signals),
            ],
            metadata={SIGNALS: json.dumps(self._digests, sort_keys=True).encode()},
        )

    def _keys(self) -> list[str]:
        # those of the second look are some of a partition's: of records that are the same bytes it is said which
        return ["sample_id", "record_id"] if self.group.is_second else ["sample_id"]

    def _columns(self) -> list[str]:
        fields = [f.name for s in self.group.signals for f in s.gives]
        return [*fields, *(FAIL + s.name for s in self.group.signals)]


def _computed(models: Models, batch: pa.Table, signals: Sequence[Signal]) -> dict[str, pa.Array | pa.ChunkedArray]:
    """Columns of the signals for all rows. A row that lost a view has that failure of each signal that needs it, and of
    no other: what else is computed beside a signal does not change what it says."""
    lost = {s.name: _lost(batch, s) for s in signals}
    if not any(map(any, lost.values())):
        answer = models.compute(signals, batch)
        whole = {n: c for s in signals for n, c in _in_range(s, answer).items()}
        if not any(f in whole and whole[f].null_count > answer.column(f).null_count for s in signals for f in s.after):
            return whole
        # a value that is refused is one that no other signal reads, as where that one is added later
    columns: dict[str, Any] = {}
    for signal in signals:
        own = _of_those_left(models, batch, signal, lost[signal.name])
        columns |= own
        for field in signal.gives:
            batch = batch.append_column(field.name, own[field.name])
    return columns


def _lost(batch: pa.Table, signal: Signal) -> list[Failure | None]:
    """For each row why it has not all views that the signal needs."""
    said: list[Failure | None] = [None] * batch.num_rows
    for view in sorted(signal.needs, key=view_name):
        column = batch.column(LOST + view_name(view))
        if column.null_count < len(column):
            said = [first or this for first, this in zip(said, failures_of(column), strict=True)]
    return said


def _of_those_left(
    models: Models, batch: pa.Table, signal: Signal, lost: Sequence[Failure | None]
) -> dict[str, pa.Array | pa.ChunkedArray]:
    alive = np.array([i for i, failure in enumerate(lost) if failure is None], np.int64)
    if not len(alive):
        nothing = {f.name: pa.nulls(batch.num_rows, f.type) for f in signal.gives}
        return nothing | {FAIL + signal.name: failure_array(lost)}
    answer = _in_range(signal, models.compute([signal], batch.take(pa.array(alive))))
    place = np.full(batch.num_rows, -1)
    place[alive] = np.arange(len(alive))
    rows = pa.array(place, pa.int64(), mask=place < 0)
    columns = {name: column.take(rows) for name, column in answer.items()}
    found = failures_of(columns[FAIL + signal.name])
    return columns | {FAIL + signal.name: failure_array([d or f for d, f in zip(lost, found, strict=True)])}


def _in_range(signal: Signal, answer: pa.Table) -> dict[str, pa.Array | pa.ChunkedArray]:
    """A signal's columns. A value that is not finite or lies outside its declared range is a failure, not a number to
    compare with."""
    columns: dict[str, Any] = {f.name: answer.column(f.name) for f in signal.gives}
    failures = answer.column(FAIL + signal.name)
    wrong: dict[int, Failure] = {}
    for field in signal.gives:
        column = columns[field.name]
        if field.is_number:
            said = {
                row: f"{field.name} is {float(column[row].as_py()):g}, outside {field.range_text()}"
                for row in np.flatnonzero(_outside(field, column)).tolist()
            }
        elif field.is_embedding:
            said = dict.fromkeys(_not_finite(column), f"{field.name} holds NaN or an infinity")
        else:
            continue
        for row, message in said.items():
            wrong.setdefault(row, Failure(f"annotate:{signal.name}", "RangeError", message))
    if failures.null_count < len(failures) or wrong:
        found = [wrong.get(i, _placed(signal, f)) for i, f in enumerate(failures_of(failures))]
        failures = failure_array(found)
        good = pa.array([i if f is None else None for i, f in enumerate(found)], pa.int64())
        columns = {name: column.take(good) for name, column in columns.items()}
    return columns | {FAIL + signal.name: failures}


def _placed(signal: Signal, failure: Failure | None) -> Failure | None:
    """A failure that says in which signal it came up."""
    if failure is None or failure.stage.startswith("annotate:"):
        return failure
    return Failure(f"annotate:{signal.name}", failure.error, failure.message, failure.attempt)


def _not_finite(column: pa.ChunkedArray) -> list[int]:
    """Rows whose vector is there and has a number that is not finite."""
    there = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    values = column.drop_null().combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return there[~np.isfinite(values.reshape(len(there), -1)).all(axis=1)].tolist() if len(there) else []


def _outside(field: SignalField, column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Rows whose value is there and is not finite, or outside the field's range."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    values = column.fill_null(0).to_numpy(zero_copy_only=False).astype(np.float64)
    low, high = field.range
    bad = ~np.isfinite(values)
    if low is not None:
        bad |= values < low
    if high is not None:
        bad |= values > high
    return np.asarray(there & bad)
