"""The ledger: one row for each record and each sample, a fragment a partition, and the sums that must come out (law 1).

The rows of a partition are its records in order, then those of its samples whose record is sampled. All fragments
together are the ledger.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.bounds import Threshold
from curate.decide.groups import Verdicts
from curate.decide.keys import Keys, names_of
from curate.decide.partitions import Loaded, PartitionFiles
from curate.decide.survey import State
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS
from curate.schema.ledger_laws import OUTCOMES, counts_of
from curate.schema.manifest import File
from curate.schema.tables import FAILURE, LEDGER
from curate.schema.verdict import Outcome
from curate.storage import Store
from curate.storage.tables import write_named_table

RECORD = "record"
SAMPLE = "sample"

Counts = Mapping[str, Mapping[str, int]]
"""By level, by outcome."""

ROWS = 1 << 16
"""Rows of LEDGER that are made at a time, then cut into fragments: about 16 MiB."""

AT_ONCE = 4
"""Fragments that a task writes at once."""

AHEAD = "ahead"
"""Folder of what is to be looked at before its turn; the end of a run removes it."""

_BROKEN_BUILD = "the build may hold files of different runs: remove its records, samples and signals and run again"


@dataclass(frozen=True)
class Fragment:
    """The verdicts of one partition.

    Attributes:
        file: of its rows of LEDGER, in the build; named by its bytes.
        counts: rows by level and outcome; all outcomes of a level are there.
        kept: kept samples by kind.
        unseen: kept samples that the second look has not looked at.
        ahead: file of `id` and `record_id` of duplicates that are to be looked at with them; None where none are.
        evaluated: samples that it has, kept or not.
    """

    file: File
    counts: Counts
    kept: Mapping[str, int]
    unseen: int = 0
    evaluated: int = 0
    ahead: str | None = None

    @property
    def path(self) -> str:
        return self.file.path


@dataclass(frozen=True)
class _Level:
    """Verdicts of one level: outcomes as numbers of its OUTCOMES, `(n,)`, and columns that they come with."""

    level: str
    outcome: NDArray[np.int64]
    rules: Sequence[Threshold]
    broke: NDArray[np.int16]
    values: Mapping[str, NDArray[np.float64]]
    words: Mapping[int, pa.Array]
    keeper: Keys
    similarity: NDArray[np.float64] | None
    failures: Mapping[str, pa.Array]


def write_verdicts(
    build: Store,
    record_rules: Sequence[Threshold],
    rules: Sequence[Threshold],
    group: Sequence[PartitionFiles],
    loaded: Loaded,
    state: State,
    verdicts: Verdicts | None,
) -> list[Fragment]:
    """Write the verdicts of a task's partitions, one fragment each.

    Args:
        build: takes the fragments.
        record_rules, rules: with percentiles resolved.
        group, loaded, state: of the task.
        verdicts: on near duplicates; None where none are looked for.
    """
    outcome, keeper, similarity = _sample_outcomes(loaded, rules, state, verdicts)
    ahead = np.zeros(len(loaded.sample), bool)
    if verdicts is not None:
        ahead[verdicts.row[verdicts.ahead]] = True
    whole = pa.concat_tables([loaded.failures, loaded.later])  # of a signal before that of tokenizing
    failures = _failures(whole, outcome == _number(SAMPLE, Outcome.FAILED), rules, state.broke, loaded.sample_failed)
    record = _record_outcomes(loaded, record_rules, state)
    record_failures = _failures(
        loaded.record_failures,
        record == _number(RECORD, Outcome.FAILED),
        record_rules,
        state.record_broke,
        loaded.record_failed,
    )
    record_keeper = np.zeros(len(record), "S16")
    record_keeper[state.copies] = state.keeper
    kinds = pa.array(KINDS)
    files: list[File] = []
    out: list[tuple[Counts, Mapping[str, int], int, int, str | None]] = []
    for first, stop in _batches(loaded):
        start, end = (int(loaded.record_starts[part]) for part in (first, stop))
        r = slice(start, end)
        s = np.arange(loaded.sample_starts[first], loaded.sample_starts[stop])
        s = s[state.listed[s]]
        about = loaded.about.slice(start, end - start).combine_chunks()
        names = names_of(loaded.record[r])
        kind = loaded.record_kind[r]
        of_records = _rows(
            {
                "id": names,
                "record_id": names,
                "source": about["source"],
                "uri": about["uri"],
                "kind": kinds.take(pa.array(kind, mask=kind < 0)),
            },
            _Level(
                RECORD,
                record[r],
                record_rules,
                state.record_broke[r],
                {f: v[r] for f, v in loaded.record_values.items()},
                {i: said.slice(start, end - start) for i, said in loaded.record_words.items()},
                record_keeper[r],
                None,
                {name: column.slice(start, end - start) for name, column in record_failures.items()},
            ),
        )
        of = pa.array(loaded.sample_record[s] - start)
        of_samples = _rows(
            {
                "id": names_of(loaded.sample[s]),
                "record_id": names.take(of),
                "source": about["source"].take(of),
                "uri": about["uri"].take(of),
                "kind": kinds.take(pa.array(loaded.sample_kind[s])),
                "start_us": pa.array(loaded.spans[s, 0]),
                "end_us": pa.array(loaded.spans[s, 1]),
            },
            _Level(
                SAMPLE,
                outcome[s],
                rules,
                state.broke[s],
                {
                    b.field: (state.copies_of if b.copies_of else loaded.sample_values[b.field])[s]
                    for b in rules
                    if not b.is_words
                },
                {i: said.take(pa.array(s)) for i, said in loaded.sample_words.items()},
                keeper[s],
                similarity[s],
                {name: column.take(pa.array(s)) for name, column in failures.items()},
            ),
        )
        unseen = loaded.unseen[s]
        if unseen.any():
            lists = pa.array([list(loaded.not_evaluated)], LEDGER.field("not_evaluated").type)
            said = lists.take(pa.array(np.zeros(len(s), np.int64), mask=~unseen))
            at = LEDGER.get_field_index("not_evaluated")
            of_samples = of_samples.set_column(at, LEDGER.field(at), said)
        numbers = (record[r], outcome[s], loaded.sample_kind[s])
        tables = []
        for part in range(first, stop):
            start, end = (int(row) for row in loaded.record_starts[part : part + 2] - loaded.record_starts[first])
            at, to = (int(row) for row in np.searchsorted(s, loaded.sample_starts[part : part + 2]))
            table = pa.concat_tables([of_records.slice(start, end - start), of_samples.slice(at, to - at)])
            tables.append((f"verdicts/{group[part].name}", table))
            mine = unseen[at:to]
            lost = int((mine & (numbers[1][at:to] == _number(SAMPLE, Outcome.KEPT))).sum())
            found = _counted(numbers[0][start:end], numbers[1][at:to], numbers[2][at:to])
            early: str | None = None
            if ahead[s[at:to]].any():
                some = of_samples.select(["id", "record_id"]).slice(at, to - at).filter(pa.array(ahead[s[at:to]]))
                early = write_named_table(build, f"{AHEAD}/{group[part].name}", some.combine_chunks()).path
            out.append((*found, lost, int((~mine).sum()), early))
        # most of the time goes by until they are on the disk, or in the bucket
        with ThreadPoolExecutor(AT_ONCE) as pool:
            files += pool.map(lambda named: write_named_table(build, named[0], named[1].combine_chunks()), tables)
    return [Fragment(file, *told) for file, told in zip(files, out, strict=True)]


def _counted(
    record: NDArray[np.int64], sample: NDArray[np.int64], kind: NDArray[np.int8]
) -> tuple[Counts, Mapping[str, int]]:
    """What a Fragment says of outcomes of records and of samples, the latter with their kinds."""
    counts = {
        level: dict(zip(map(str, names), np.bincount(numbers, minlength=len(names)).tolist(), strict=True))
        for (level, names), numbers in zip(OUTCOMES.items(), (record, sample), strict=True)
    }
    kept = np.bincount(kind[sample == _number(SAMPLE, Outcome.KEPT)], minlength=len(KINDS)).tolist()
    return counts, {k: n for k, n in zip(KINDS, kept, strict=True) if n}


def _batches(loaded: Loaded) -> Iterator[tuple[int, int]]:
    """First and last partition (exclusive) of each batch: at most `ROWS` records and samples, or one partition."""
    ends = loaded.record_starts + loaded.sample_starts
    first = 0
    while first < len(ends) - 1:
        stop = max(first + 1, int(np.searchsorted(ends, ends[first] + ROWS, side="right")) - 1)
        yield first, stop
        first = stop


def checked_counts(
    counts: Iterable[Counts], records: int | None = None, samples: int | None = None
) -> dict[str, dict[str, int]]:
    """Sum up the fragments of a ledger, and check the sums.

    Args:
        counts: of all fragments.
        records, samples: how many there must be by an independent count, where there is one.

    Returns:
        `{"records": {total, sampled, dropped, duplicate, failed},
        "samples": {total, kept, dropped, duplicate, failed}}`.

    Raises:
        CurateError: they do not add up.
    """
    sums: dict[str, Counter[str]] = {level: Counter() for level in OUTCOMES}
    for one in counts:
        for level in OUTCOMES:
            sums[level].update(one[level])
    for level, found in sums.items():
        if unknown := [outcome for outcome in found if outcome not in OUTCOMES[level]]:
            raise CurateError(f"the ledger does not add up: no {level} is {unknown[0]}", _BROKEN_BUILD)
    out = {f"{level}s": counts_of(level, found) for level, found in sums.items()}
    for level, count in ((RECORD, records), (SAMPLE, samples)):
        total = out[f"{level}s"]["total"]
        if count is not None and total != count:
            raise CurateError(
                f"the ledger does not add up: {total} {level}s in the ledger, {count} in the build", _BROKEN_BUILD
            )
    if bool(out["records"][str(Outcome.SAMPLED)]) != bool(out["samples"]["total"]):
        sampled, total = out["records"][str(Outcome.SAMPLED)], out["samples"]["total"]
        raise CurateError(f"the ledger does not add up: {sampled} sampled records have {total} samples", _BROKEN_BUILD)
    return out


def _number(level: str, outcome: Outcome) -> int:
    return OUTCOMES[level].index(outcome)


def _fails(rules: Sequence[Threshold], broke: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Rows that break a bound which fails them."""
    return np.isin(broke, [i for i, bound in enumerate(rules) if bound.fails])


def _record_outcomes(loaded: Loaded, rules: Sequence[Threshold], state: State) -> NDArray[np.int64]:
    out = np.full(len(loaded.record), _number(RECORD, Outcome.SAMPLED), np.int64)
    out[state.copies] = _number(RECORD, Outcome.DUPLICATE)
    out[state.record_broke >= 0] = _number(RECORD, Outcome.DROPPED)
    out[_fails(rules, state.record_broke)] = _number(RECORD, Outcome.FAILED)
    out[loaded.record_failed] = _number(RECORD, Outcome.FAILED)
    return out


def _sample_outcomes(
    loaded: Loaded, rules: Sequence[Threshold], state: State, verdicts: Verdicts | None
) -> tuple[NDArray[np.int64], Keys, NDArray[np.float64]]:
    """Outcome, keeper and similarity of each sample, listed or not."""
    out = np.full(len(loaded.sample), _number(SAMPLE, Outcome.KEPT), np.int64)
    out[loaded.later_failed] = _number(SAMPLE, Outcome.FAILED)
    keeper = np.zeros(len(out), "S16")
    similarity = np.full(len(out), np.nan)
    if verdicts is not None:
        names = np.array([_number(SAMPLE, o) for o in (Outcome.KEPT, Outcome.FAILED, Outcome.DUPLICATE)])
        out[verdicts.row] = names[verdicts.outcome]
        keeper[verdicts.row] = verdicts.keeper
        similarity[verdicts.row] = verdicts.similarity
    out[state.broke >= 0] = _number(SAMPLE, Outcome.DROPPED)
    out[_fails(rules, state.broke)] = _number(SAMPLE, Outcome.FAILED)
    out[loaded.sample_failed] = _number(SAMPLE, Outcome.FAILED)
    return out, keeper, similarity


def _failures(
    failures: pa.Table,
    failed: NDArray[np.bool_],
    rules: Sequence[Threshold],
    broke: NDArray[np.int16],
    before: NDArray[np.bool_],
) -> dict[str, pa.Array]:
    """FAILURE columns of all rows; null where they did not fail. Of several failures of a row the first: those of
    `before`, of a bound that fails what breaks it, others."""
    numbers = [i for i, bound in enumerate(rules) if bound.fails]
    own = pa.table(
        {
            "row": pa.array(range(len(numbers)), pa.int32()),
            "stage": ["decide"] * len(numbers),
            "error": ["MissingValue"] * len(numbers),
            "message": [f"there is no {rules[i].field}, and a rule says `missing: fail`" for i in numbers],
            "attempt": [1] * len(numbers),
        },
        schema=pa.schema([pa.field("row", pa.int32()), *FAILURE]),
    )
    rows = failures["row"].to_numpy()
    at = np.full(len(failed), -1)
    at[rows[::-1]] = np.arange(len(rows))[::-1]
    for i, number in enumerate(numbers):
        at[(broke == number) & ~before] = len(rows) + i
    where = pa.array(at, mask=(at < 0) | ~failed)
    return {
        f.name: pa.chunked_array([*failures[f.name].chunks, *own[f.name].chunks]).combine_chunks().take(where)
        for f in FAILURE
    }


def _rows(columns: dict[str, pa.Array], verdict: _Level) -> pa.Table:
    """Rows of LEDGER, from the columns that say what they are about."""
    n = len(verdict.outcome)
    is_a = {o: verdict.outcome == i for i, o in enumerate(OUTCOMES[verdict.level])}
    columns["level"] = pa.repeat(verdict.level, n)
    columns["outcome"] = pa.array(list(map(str, OUTCOMES[verdict.level]))).take(pa.array(verdict.outcome))
    dropped, duplicate = is_a[Outcome.DROPPED], is_a[Outcome.DUPLICATE]
    columns |= _dropped(verdict, dropped)
    names = names_of(verdict.keeper)
    columns["duplicate_of"] = pc.if_else(pa.array(duplicate), names, pa.scalar(None, pa.string()))
    how = "exact" if verdict.similarity is None else "near"
    columns["match"] = pc.if_else(pa.array(duplicate), how, pa.scalar(None, pa.string()))
    if verdict.similarity is not None:
        columns["similarity"] = pa.array(verdict.similarity, mask=~duplicate)
    failed = pa.array(is_a[Outcome.FAILED])
    for field in FAILURE:
        columns[field.name] = pc.if_else(failed, verdict.failures[field.name], pa.scalar(None, field.type))
    arrays = [columns.get(f.name, pa.nulls(n, f.type)) for f in LEDGER]
    return pa.table(arrays, names=LEDGER.names).cast(LEDGER)


def _dropped(verdict: _Level, dropped: NDArray[np.bool_]) -> dict[str, pa.Array]:
    """Rule, value and threshold of the rows that are dropped; of one on words what broke it in place of the two."""
    value, numeric = np.zeros(len(dropped)), dropped.copy()
    said = pa.nulls(len(dropped), pa.string())
    for number in np.unique(verdict.broke[dropped]).tolist():
        some = dropped & (verdict.broke == number)
        if number in verdict.words:
            said = pc.if_else(pa.array(some), verdict.words[number], said)
            numeric &= ~some
        else:
            value[some] = verdict.values[verdict.rules[number].field][some]
    which = pa.array(verdict.broke, mask=~dropped)
    return {
        "rule": pa.array([b.name for b in verdict.rules], pa.string()).take(which),
        "value": pa.array(value, mask=~numeric),
        "value_text": said,
        "threshold": pa.array([b.value for b in verdict.rules], pa.float64()).take(which),
    }
