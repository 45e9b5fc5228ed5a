"""What verdicts look at and the ledger says, of one group of partitions, in memory: about 200 bytes a sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.bounds import META, Threshold, is_said
from curate.decide.keys import Keys, distinct, keys_of, look_up, name_of, twice
from curate.decide.texts import text_keys
from curate.decide.words import broken_by, said_of, whole
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS
from curate.schema.tables import FAILURE, FAILURE_NAMES, SAMPLES
from curate.signals.probed import PROBED, columns_of, probed
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
        signals: by group of signals; of a group of the second look a fragment of the samples that were looked at, or
            none.
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
        second: groups of the second look: their fields are null of samples that were not looked at, and a failure is
            one of a sample that would be kept, as one of tokenizing.
        texts: of the fields of signals those whose copies are counted.
        record_words, sample_words: bounds on words, by their number among the bounds of their level.
        words: for each group of signals the fields that these look at.
    """

    records: tuple[str, ...]
    samples: tuple[str, ...]
    signals: Mapping[str, tuple[str, ...]]
    order: Mapping[str, str]
    second: frozenset[str] = frozenset()
    texts: frozenset[str] = frozenset()
    record_words: tuple[tuple[int, Threshold], ...] = ()
    sample_words: tuple[tuple[int, Threshold], ...] = ()
    words: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
        sample_texts: `(s,)` by field, keys of `curate.decide.texts`.
        record_words, sample_words: by number of a bound on words, strings `(r,)` and `(s,)`: the value that breaks it,
            null where it is not broken.
        record_nan, sample_nan: by field the rows that hold NaN and not null.
        spans: int64 `(s, 2)`, start and end of each sample in microseconds.
        about: `source` and `uri` of each record; a sample has those of its record.
        record_failures, failures, later: tables of FAILURES: on records; on samples of signals; on samples of the
            second look and of tokenizing.
        not_evaluated: signals of the second look; unseen: bool `(s,)`, samples that they were not computed of.
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
    not_evaluated: tuple[str, ...]
    unseen: NDArray[np.bool_]
    record_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    sample_values: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    sample_texts: dict[str, Keys] = field(default_factory=dict)
    record_words: dict[int, pa.Array] = field(default_factory=dict)
    sample_words: dict[int, pa.Array] = field(default_factory=dict)
    record_nan: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    sample_nan: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def later_failed(self) -> NDArray[np.bool_]:
        """Samples that failed in the second look or in tokenizing."""
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
    parts = [_read(build, wanted, files) for files in group]
    record, sample = (np.concatenate([getattr(p, c) for p in parts]) for c in ("record", "sample"))
    starts = {c: np.cumsum([0, *(len(getattr(p, c)) for p in parts)], dtype=np.int64) for c in ("record", "sample")}
    if len(twice(record)):  # which may be: in two partitions
        for part, files in zip(parts, group, strict=True):
            _refuse_twice(part.record, f"records of {files.name} are listed more than once")
    records = pa.concat_tables([p.records for p in parts])
    samples = pa.concat_tables([p.samples for p in parts])

    record_failures = _failures({n: records[n].combine_chunks() for n in FAILURE_NAMES})
    record_failed = np.zeros(len(record), bool)
    record_failed[record_failures["row"].to_numpy()] = True
    sample_record = []
    for number, (part, files) in enumerate(zip(parts, group, strict=True)):
        here = slice(*starts["record"][number : number + 2])
        sample_record.append(here.start + _parents(files, part.record, record_failed[here], part.parent))

    values: dict[str, pa.ChunkedArray] = {name: probed(samples, name) for name in wanted.samples}
    words: dict[str, pa.Array] = {}
    texts: dict[str, Keys] = {}
    failures: dict[str, pa.Table] = {}
    for home, fields in wanted.signals.items():
        # of the second look a partition that was not looked at has columns of nulls
        said = pa.concat_tables([p.signals[home] for p in parts], promote_options="default")
        values |= {name: said[name] for name in fields if name not in wanted.texts}
        words |= {name: whole(said[name]) for name in wanted.words.get(home, ())}
        texts |= {name: text_keys(said[name]) for name in fields if name in wanted.texts}
        for name in (s for s, of in wanted.order.items() if of == home):
            why = said[f"failure:{name}"].combine_chunks()
            if why.null_count < len(why):
                failures[name] = _failures({n: pc.struct_field(why, n) for n in FAILURE_NAMES})
    late = [s for s, home in wanted.order.items() if home in wanted.second]
    first, sample_failed = _first(
        [failures[s] for s in wanted.order if s in failures and s not in late], len(sample), 0
    )
    unseen = np.concatenate([p.unseen for p in parts])
    late_fields = {f for home, fields in wanted.words.items() if home in wanted.second for f in fields}
    of_record = np.concatenate(sample_record)
    for name in {bound.field for _, bound in wanted.sample_words} - set(words):
        if name in PROBED:
            words[name] = whole(probed(samples, name))
        elif name in samples.column_names:
            words[name] = whole(samples[name])
        else:  # only records have what else was said
            words[name] = said_of(records, name).take(pa.array(of_record))
    record_said = {
        bound.field: whole(probed(records, bound.field)) if bound.field in PROBED else said_of(records, bound.field)
        for _, bound in wanted.record_words
    }
    always = {name: np.ones(len(record), bool) for name in record_said}
    expected = {name: ~unseen if name in late_fields else np.ones(len(sample), bool) for name in words}
    record_numbers = {name: _numbers(probed(records, name)) for name in wanted.records}
    sample_numbers = {name: _numbers(column) for name, column in values.items()}
    return Loaded(
        record_starts=starts["record"],
        record=record,
        content=np.concatenate([p.content for p in parts]),
        record_kind=_kinds(records["kind"]),
        record_failed=record_failed,
        without_text=np.concatenate([p.without_text for p in parts]),
        has_content=np.concatenate([p.has_content for p in parts]),
        sample_starts=starts["sample"],
        sample=sample,
        sample_record=of_record,
        sample_kind=_kinds(samples["kind"]),
        sample_failed=sample_failed,
        spans=np.stack([samples["start_us"].to_numpy(), samples["end_us"].to_numpy()], axis=1),
        about=records.select(["source", "uri"]).combine_chunks(),
        record_failures=record_failures,
        failures=first,
        later=pa.concat_tables(
            [
                FAILURES.empty_table(),
                _first([failures[s] for s in late if s in failures], len(sample), 0)[0],
                *(
                    _tokenizing(build, later[files.name], part.sample, int(start))
                    for part, files, start in zip(parts, group, starts["sample"], strict=False)
                    if files.name in later
                ),
            ]
        ).combine_chunks(),
        not_evaluated=tuple(late),
        unseen=unseen,
        record_values={name: column for name, (column, _) in record_numbers.items()},
        sample_values={name: column for name, (column, _) in sample_numbers.items()},
        sample_texts=texts,
        record_words=broken_by(wanted.record_words, record_said, always),
        sample_words=broken_by(wanted.sample_words, words, expected),
        record_nan={name: rows for name, (_, rows) in record_numbers.items()},
        sample_nan={name: rows for name, (_, rows) in sample_numbers.items()},
    )


class _Read(NamedTuple):
    """One partition, as its files say it.

    Attributes:
        record, content, has_content, without_text: as in Loaded.
        records: the other columns of its records.
        sample, parent: `(s,)`, samples and their records.
        samples: the other columns of its samples.
        signals: by group of signals, in the samples' order.
        unseen: bool `(s,)`, samples that the second look did not look at.
    """

    record: Keys
    content: Keys
    has_content: NDArray[np.bool_]
    without_text: NDArray[np.bool_]
    records: pa.Table
    sample: Keys
    parent: Keys
    samples: pa.Table
    signals: Mapping[str, pa.Table]
    unseen: NDArray[np.bool_]


def _read(build: Store, wanted: Wanted, files: PartitionFiles) -> _Read:
    ruled = {bound.field for _, bound in (*wanted.record_words, *wanted.sample_words)}
    said = sorted({"meta" if name.startswith(META) else name for name in ruled if is_said(name)})
    probes = [name for name in ruled if name in PROBED]
    about = list(
        dict.fromkeys(["kind", "source", "uri", *FAILURE_NAMES, *columns_of([*wanted.records, *probes]), *said])
    )
    records = read_table(build, files.records, ["record_id", "content_id", "text", *about])
    own = [name for name in said if name in SAMPLES.names]
    spans = list(dict.fromkeys(["kind", "start_us", "end_us", *columns_of([*wanted.samples, *probes]), *own]))
    samples = read_table(build, files.samples, ["sample_id", "record_id", *spans])
    record, sample = keys_of(records["record_id"]), keys_of(samples["sample_id"])
    contents = records["content_id"]
    has_content = np.ones(len(record), bool)
    if contents.null_count:
        has_content = contents.is_valid().to_numpy()
    content = np.zeros(len(record), "S16")
    content[has_content] = keys_of(contents.drop_null())
    signals = {}
    unseen = np.full(len(sample), bool(wanted.second))
    for group, fields in wanted.signals.items():
        names = [
            *dict.fromkeys([*fields, *wanted.words.get(group, ())]),
            *(f"failure:{s}" for s, home in wanted.order.items() if home == group),
        ]
        if group in wanted.second:
            signals[group], unseen = _second(build, files, group, names, sample)
            continue
        table = signals_of(build, files, group, names)
        if not table["sample_id"].equals(samples["sample_id"]):
            rows = aligned(sample, keys_of(table["sample_id"]), group)
            table = table if rows is None else table.take(pa.array(rows))
        signals[group] = table.select(names)
    return _Read(
        record,
        content,
        has_content,
        _blank(records["text"]),
        records.select(about),
        sample,
        keys_of(samples["record_id"]),
        samples.select(spans),
        signals,
        unseen,
    )


def _second(
    build: Store, files: PartitionFiles, group: str, names: Sequence[str], samples: Keys
) -> tuple[pa.Table, NDArray[np.bool_]]:
    """Columns of a group of the second look in the order of the samples, null of those that were not looked at; and
    which these are.

    Raises:
        CurateError: a row has no sample.
    """
    if group not in files.signals:
        return pa.table({name: pa.nulls(len(samples)) for name in names}), np.ones(len(samples), bool)
    table = signals_of(build, files, group, names)
    given = keys_of(table["sample_id"])
    _refuse_strange(samples, given, group)
    order = np.argsort(given, kind="stable")
    at = look_up(given[order], samples)
    unseen = at < 0
    rows = pa.array(order[np.where(unseen, 0, at)] if len(order) else np.zeros(len(samples), np.int64), mask=unseen)
    return table.select(names).take(rows), unseen


def _blank(text: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Which texts are null, empty, or nothing but white space."""
    length = pc.binary_length(pc.utf8_trim_whitespace(text)).to_numpy()
    return np.asarray(~(length > 0))  # NaN, for null, is not


def _parents(files: PartitionFiles, record: Keys, failed: NDArray[np.bool_], parent: Keys) -> NDArray[np.int64]:
    """Rows of the records of samples, in one partition.

    Raises:
        CurateError: a sample has no record there.
    """
    # Mostly samples come in the order of the records that did not fail, and each of those has some.
    new = np.ones(len(parent), bool)
    new[1:] = parent[1:] != parent[:-1]
    rows = np.flatnonzero(~failed)
    if np.array_equal(record[rows], parent[new]):
        return np.asarray(rows[np.cumsum(new) - 1], np.int64)
    known = np.argsort(record, kind="stable")
    of = look_up(record[known], parent)
    if (of < 0).any():
        raise CurateError(f"{(of < 0).sum()} samples of {files.name} have no record there", STALE)
    return known[of]


def signals_of(build: Store, files: PartitionFiles, group: str, fields: Sequence[str]) -> pa.Table:
    """`sample_id` and some columns of one fragment of signals.

    Raises:
        CurateError: there is no such fragment or column.
    """
    if group not in files.signals:
        raise CurateError(f"{files.name} has no signals {group}", STALE)
    try:
        return read_table(build, files.signals[group], ["sample_id", *fields])
    except pa.ArrowInvalid as exc:
        raise CurateError(f"{build.name(files.signals[group])} cannot be read: {exc}", STALE) from exc
    except KeyError:
        there = read_table(build, files.signals[group]).column_names
        lost = next(name for name in ("sample_id", *fields) if name not in there)
        raise CurateError(f"no signal of this build has the field {lost}", STALE) from None


def aligned(samples: Keys, given: Keys, group: str) -> NDArray[np.int64] | None:
    """Rows of a fragment of signals in the order of the samples; None where it has that order.

    Raises:
        CurateError: they are not the same samples.
    """
    if np.array_equal(samples, given):
        return None
    order = np.argsort(given, kind="stable")
    at = look_up(given[order], samples)
    lacking = samples[at < 0]
    if len(lacking):
        raise CurateError(
            f"{len(lacking)} samples lack the signals {group}, the first {name_of(np.sort(lacking)[0])}", STALE
        )
    _refuse_strange(samples, given, group)
    if len(given) > len(samples):
        _refuse_twice(given, f"samples have several rows of the signals {group}")
    return order[at]


def _refuse_strange(samples: Keys, given: Keys, group: str) -> None:
    strange = given[look_up(np.unique(samples), given) < 0]
    if len(strange):
        raise CurateError(
            f"{len(strange)} rows of the signals {group} have no sample, the first {name_of(np.sort(strange)[0])}",
            STALE,
        )


def rows_of(loaded: Loaded, part: int) -> slice:
    """Samples of one partition of the group."""
    return slice(int(loaded.sample_starts[part]), int(loaded.sample_starts[part + 1]))


def _refuse_twice(keys: Keys, said: str) -> None:
    again = twice(keys)
    if len(again):
        raise CurateError(f"{len(again)} {said}, the first {name_of(again[0])}", STALE)


def _kinds(column: pa.ChunkedArray) -> NDArray[np.int8]:
    return np.asarray(pc.fill_null(pc.index_in(column, pa.array(KINDS)), -1).to_numpy(), np.int8)


def _numbers(column: pa.ChunkedArray) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """A column as float64 with NaN for null, and the rows that are NaN and not null."""
    wide = column.cast(pa.float64(), safe=False)
    values = wide.to_numpy()
    nan = np.isnan(values)
    if nan.any():
        nan &= pc.is_valid(wide).to_numpy()
    return values, np.flatnonzero(nan)


def _failures(columns: Mapping[str, pa.Array]) -> pa.Table:
    """Rows of FAILURE columns that say one."""
    rows = np.flatnonzero(pc.or_(columns["stage"].is_valid(), columns["error"].is_valid()).to_numpy(False))
    return pa.table({"row": rows, **{n: c.take(pa.array(rows)) for n, c in columns.items()}}).cast(FAILURES)


def _first(failures: Sequence[pa.Table], samples: int, start: int) -> tuple[pa.Table, NDArray[np.bool_]]:
    """The first failure of each row, sorted by row, and which rows failed."""
    whole = pa.concat_tables([FAILURES.empty_table(), *failures])
    rows, first = np.unique(whole["row"].to_numpy(), return_index=True)
    failed = np.zeros(samples, bool)
    failed[rows - start] = True
    return whole.take(pa.array(first)).combine_chunks(), failed


def _tokenizing(build: Store, paths: Sequence[str], samples: Keys, start: int) -> pa.Table:
    """Failures of tokenizing on samples of one partition.

    Raises:
        CurateError: a failure is of no sample of the partition.
    """
    tables = []
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
