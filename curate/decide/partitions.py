"""What verdicts look at and the ledger says, of one group of partitions, in memory: about 200 bytes a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.keys import Keys, distinct, keys_of, look_up, name_of
from curate.decide.probed import columns_of, probed
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS
from curate.schema.tables import FAILURE, FAILURE_NAMES
from curate.storage import Store
from curate.storage.tables import read_table

STALE = "signals and samples are of different runs: remove the build's signals and run again"

FAILURES = pa.schema([pa.field("row", pa.int32(), nullable=False), *FAILURE])
"""Failures of a few rows."""


@dataclass(frozen=True)
class PartitionFiles:
    """The fragments of one partition that verdicts are made from; paths in the build.

    Attributes:
        name: of the partition.
        records, samples: of RECORDS and SAMPLES.
        signals: by group of signals.
    """

    name: str
    records: str
    samples: str
    signals: Mapping[str, str]


@dataclass(frozen=True)
class Wanted:
    """What to load.

    Attributes:
        records: probed fields of records.
        samples: probed fields of samples.
        signals: for each group of signals its fields in use; every group has an entry, for the failures.
        order: signals and their groups in the recipe's order: of a sample that failed in several, the failure of the
            first counts.
    """

    records: tuple[str, ...]
    samples: tuple[str, ...]
    signals: Mapping[str, tuple[str, ...]]
    order: Mapping[str, str]


@dataclass
class Loaded:
    """A group of partitions. Rows of records, and of samples, are counted through all partitions of the group.

    Attributes:
        record_starts, sample_starts: int64 `(partitions + 1,)`, where the rows of each begin.
        record, content: `(r,)`; zeros where a record has no content.
        record_kind: int8 `(r,)`, numbers in KINDS, -1 for none.
        record_failed, without_text, has_content: bool `(r,)`.
        record_values: float64 `(r,)` by field, NaN for null.
        sample: `(s,)`. Samples of records that are the same bytes have the same ids.
        sample_record: int64 `(s,)`, row of the record.
        sample_kind: int8 `(s,)`.
        sample_failed: bool `(s,)`, of a signal.
        sample_values: float64 `(s,)` by field, NaN for null.
        record_nan, sample_nan: by field the rows that hold NaN and not null.
        spans: int64 `(s, 2)`, start and end of each sample in microseconds.
        about: `source` and `uri` of each record; a sample has those of its record.
        record_failures, failures, later: tables of FAILURES: on records; on samples of signals, and of tokenizing.
    """

    record_starts: NDArray[np.int64]
    record: Keys
    content: Keys
    record_kind: NDArray[np.int8]
    record_failed: NDArray[np.bool_]
    without_text: NDArray[np.bool_]
    has_content: NDArray[np.bool_]
    sample_starts: NDArray[np.int64]
    sample: Keys
    sample_record: NDArray[np.int64]
    sample_kind: NDArray[np.int8]
    sample_failed: NDArray[np.bool_]
    spans: NDArray[np.int64]
    about: pa.Table
    record_failures: pa.Table
    failures: pa.Table
    later: pa.Table
    record_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    sample_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    record_nan: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    sample_nan: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def later_failed(self) -> NDArray[np.bool_]:
        """Samples that failed in tokenizing."""
        out = np.zeros(len(self.sample), bool)
        out[self.later["row"].to_numpy()] = True
        return out


def load(build: Store, wanted: Wanted, group: Sequence[PartitionFiles], later: Mapping[str, Sequence[str]]) -> Loaded:
    """Read a group of partitions.

    Args:
        build: holds the files.
        wanted: fields.
        group: partitions.
        later: by partition the Arrow files of tokenizing.

    Raises:
        CurateError: fragments of a partition that do not belong together.
    """
    parts = []
    records = samples = 0
    for files in group:
        part = _load_one(build, wanted, files, later.get(files.name, ()), records, samples)
        records, samples = records + len(part.record), samples + len(part.sample)
        parts.append(part)

    def joined(column: str) -> Any:
        return np.concatenate([getattr(p, column) for p in parts])

    def by_field(column: str) -> dict[str, Any]:
        return {f: np.concatenate([getattr(p, column)[f] for p in parts]) for f in getattr(parts[0], column)}

    starts = {c: np.cumsum([0, *(len(getattr(p, c)) for p in parts)], dtype=np.int64) for c in ("record", "sample")}
    plain = [
        *("record", "content", "record_kind", "record_failed", "without_text", "has_content"),
        *("sample", "sample_record", "sample_kind", "sample_failed", "spans"),
    ]
    tables = ("about", "record_failures", "failures", "later")
    fields = ("record_values", "sample_values", "record_nan", "sample_nan")
    columns: dict[str, Any] = {c: joined(c) for c in plain} | {c: by_field(c) for c in fields}
    return Loaded(
        record_starts=starts["record"],
        sample_starts=starts["sample"],
        **{c: pa.concat_tables(getattr(p, c) for p in parts).combine_chunks() for c in tables},
        **columns,
    )


def _load_one(
    build: Store, wanted: Wanted, files: PartitionFiles, later: Sequence[str], first_record: int, first_sample: int
) -> Loaded:
    about = ["record_id", "content_id", "kind", "text", "source", "uri", *FAILURE_NAMES]
    records = read_table(build, files.records, [*about, *columns_of(wanted.records)])
    about = ["sample_id", "record_id", "kind", "start_us", "end_us"]
    samples = read_table(build, files.samples, [*about, *columns_of(wanted.samples)])
    record, sample = keys_of(records["record_id"]), keys_of(samples["sample_id"])
    _refuse_twice(record, f"records of {files.name} are listed more than once")
    known = np.argsort(record, kind="stable")
    of = look_up(record[known], keys_of(samples["record_id"]))
    if (of < 0).any():
        raise CurateError(f"{(of < 0).sum()} samples of {files.name} have no record there", STALE)

    content = np.zeros(len(record), "S16")
    has_content = pc.is_valid(records["content_id"]).to_numpy()
    content[has_content] = keys_of(records["content_id"].drop_null())
    blank = pc.equal(pc.utf8_trim_whitespace(pc.fill_null(records["text"], "")), "").to_numpy()
    failed = np.flatnonzero(pc.or_(pc.is_valid(records["stage"]), pc.is_valid(records["error"])).to_numpy())
    why = {name: records[name].take(pa.array(failed)) for name in FAILURE_NAMES}
    out = Loaded(
        record_starts=np.array([first_record]),
        record=record,
        content=content,
        record_kind=_kinds(records["kind"]),
        record_failed=np.isin(np.arange(len(record)), failed),
        without_text=blank,
        has_content=has_content,
        sample_starts=np.array([first_sample]),
        sample=sample,
        sample_record=first_record + known[of],
        sample_kind=_kinds(samples["kind"]),
        sample_failed=np.zeros(len(sample), bool),
        spans=np.stack([samples["start_us"].to_numpy(), samples["end_us"].to_numpy()], axis=1),
        about=records.select(["source", "uri"]),
        record_failures=pa.table({"row": first_record + failed, **why}).cast(FAILURES),
        failures=FAILURES.empty_table(),
        later=_tokenizing(build, later, sample, first_sample),
    )
    for name in wanted.records:
        out.record_values[name], out.record_nan[name] = _numbers(probed(records, name), first_record)
    for name in wanted.samples:
        out.sample_values[name], out.sample_nan[name] = _numbers(probed(samples, name), first_sample)
    failures: dict[str, pa.Table] = {}
    for group, fields in wanted.signals.items():
        names = [s for s, home in wanted.order.items() if home == group]
        table = signals_of(build, files, group, [*fields, *(f"failure:{s}" for s in names)])
        rows = aligned(sample, keys_of(table["sample_id"]), group)
        for name in fields:
            values = table[name] if rows is None else table[name].take(rows)
            out.sample_values[name], out.sample_nan[name] = _numbers(values, first_sample)
        for name in names:
            said = table[f"failure:{name}"].combine_chunks()
            failures[name] = _failures(said if rows is None else said.take(rows), first_sample)
    out.failures, out.sample_failed = _first(
        [FAILURES.empty_table(), *(failures[s] for s in wanted.order)], len(sample), first_sample
    )
    return out


def signals_of(build: Store, files: PartitionFiles, group: str, fields: Sequence[str]) -> pa.Table:
    """`sample_id` and some columns of one fragment of signals.

    Raises:
        CurateError: there is no such fragment or column.
    """
    if group not in files.signals:
        raise CurateError(f"{files.name} has no signals {group}", STALE)
    try:
        return read_table(build, files.signals[group], ["sample_id", *fields])
    except (pa.ArrowInvalid, KeyError) as exc:
        raise CurateError(f"{build.name(files.signals[group])} cannot be read: {exc.args[0]}", STALE) from exc


def aligned(samples: Keys, given: Keys, group: str) -> NDArray[np.int64] | None:
    """Rows of a fragment of signals in the order of the samples; None where it has that order.

    Raises:
        CurateError: they are not the same samples.
    """
    if np.array_equal(samples, given):
        return None
    order = np.argsort(given, kind="stable")
    at = look_up(given[order], samples)
    known = np.unique(samples)
    strange = given[look_up(known, given) < 0]
    for wrong, said in (
        (samples[at < 0], f"samples lack the signals {group}"),
        (strange, f"rows of the signals {group} have no sample"),
    ):
        if len(wrong):
            raise CurateError(f"{len(wrong)} {said}, the first {name_of(np.sort(wrong)[0])}", STALE)
    if len(given) > len(samples):
        _refuse_twice(given, f"samples have several rows of the signals {group}")
    return order[at]


def rows_of(loaded: Loaded, part: int) -> slice:
    """Samples of one partition of the group."""
    return slice(int(loaded.sample_starts[part]), int(loaded.sample_starts[part + 1]))


def _refuse_twice(keys: Keys, said: str) -> None:
    order = np.sort(keys)
    twice = np.unique(order[1:][order[1:] == order[:-1]])
    if len(twice):
        raise CurateError(f"{len(twice)} {said}, the first {name_of(twice[0])}", STALE)


def _kinds(column: pa.ChunkedArray) -> NDArray[np.int8]:
    return np.asarray(pc.fill_null(pc.index_in(column, pa.array(KINDS)), -1).to_numpy(), np.int8)


def _numbers(column: pa.ChunkedArray, start: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A column as float64 with NaN for null, and the rows that are NaN and not null."""
    wide = column.cast(pa.float64(), safe=False)
    values = wide.to_numpy()
    nan = np.isnan(values)
    if nan.any():
        nan &= pc.is_valid(wide).to_numpy()
    return values, start + np.flatnonzero(nan)


def _failures(said: pa.StructArray, start: int) -> pa.Table:
    """Failures of one signal, from a struct column."""
    if said.null_count == len(said):
        return FAILURES.empty_table()
    columns = {name: pc.struct_field(said, name) for name in FAILURE_NAMES}
    rows = np.flatnonzero(pc.or_(pc.is_valid(columns["stage"]), pc.is_valid(columns["error"])).to_numpy(False))
    return pa.table({"row": start + rows, **{n: c.take(pa.array(rows)) for n, c in columns.items()}}).cast(FAILURES)


def _first(failures: Sequence[pa.Table], samples: int, start: int) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The first failure of each row, sorted by row, and which rows failed."""
    whole = pa.concat_tables(failures)
    rows, first = np.unique(whole["row"].to_numpy(), return_index=True)
    failed = np.zeros(samples, bool)
    failed[rows - start] = True
    return whole.take(pa.array(first)).combine_chunks(), failed


def _tokenizing(build: Store, paths: Sequence[str], samples: Keys, start: int) -> pa.Table:
    """Failures of tokenizing on samples of one partition.

    Raises:
        CurateError: a failure is of no sample of the partition.
    """
    tables = [FAILURES.empty_table()]
    for path in paths:
        for said in _receipts(build, path):
            failed = said.filter(pc.or_(pc.is_valid(said["stage"]), pc.is_valid(said["error"])))
            if not len(failed):
                continue
            keys, which = distinct(keys_of(failed["sample_id"]))
            one = np.zeros(len(keys), np.int64)
            one[which[::-1]] = np.arange(len(which))[::-1]  # the first row of each
            at = look_up(keys, samples)
            lost = np.setdiff1d(np.arange(len(keys)), at)
            if len(lost):
                raise CurateError(
                    f"{len(lost)} failures of tokenizing are of no sample, the first {name_of(keys[lost[0]])}", STALE
                )
            rows = np.flatnonzero(at >= 0)
            columns = {name: failed[name].take(pa.array(one[at[rows]])) for name in FAILURE_NAMES}
            tables.append(pa.table({"row": start + rows, **columns}).cast(FAILURES))
    return _first(tables, len(samples), start)[0]


def _receipts(build: Store, path: str) -> Iterator[pa.Table]:
    """Ids and failures in an Arrow file, batch by batch, without its tokens."""
    columns = ["sample_id", *FAILURE_NAMES]
    source = pa.BufferReader(build.read(path)) if build.remote else pa.memory_map(str(build.local(path)))
    with source:
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(c) for c in columns])
        file = pa.ipc.open_file(source, options=options)
        for number in range(file.num_record_batches):
            yield pa.Table.from_batches([file.get_batch(number)])
