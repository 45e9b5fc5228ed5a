"""The ledger: one row for each record and each sample, a fragment a partition, and the sums that must come out (law 1).

The rows of a partition are its records in order, then those of its samples whose record is sampled. All fragments
together are the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.groups import Verdicts
from curate.decide.keys import Keys, keys_of, names_of
from curate.decide.partitions import Loaded, PartitionFiles
from curate.decide.rules import Bound
from curate.decide.survey import State
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS
from curate.schema.tables import FAILURE, FAILURE_NAMES, LEDGER
from curate.schema.verdict import RECORD_OUTCOMES, SAMPLE_OUTCOMES, Outcome
from curate.storage import Store
from curate.storage.tables import read_table, write_named_table

RECORD = "record"
SAMPLE = "sample"

OUTCOMES = {RECORD: RECORD_OUTCOMES, SAMPLE: SAMPLE_OUTCOMES}

Counts = Mapping[str, Mapping[str, int]]
"""By level, by outcome."""

_BROKEN_BUILD = "the build may hold files of different runs: remove its records, samples and signals and run again"


@dataclass(frozen=True)
class Fragment:
    """The verdicts of one partition.

    Attributes:
        path: of its rows of LEDGER, in the build; named by its bytes.
        counts: rows by level and outcome; all outcomes of a level are there.
        kept: kept samples by kind.
    """

    path: str
    counts: Counts
    kept: Mapping[str, int]


@dataclass(frozen=True)
class _Level:
    """Verdicts of one level: outcomes as numbers of its OUTCOMES, `(n,)`, and columns that they come with."""

    level: str
    outcome: NDArray[np.int64]
    rules: Sequence[Bound]
    broke: NDArray[np.int16]
    values: Mapping[str, NDArray[np.float64]]
    keeper: Keys
    similarity: NDArray[np.float64] | None
    failures: Mapping[str, pa.Array]


def write_verdicts(
    build: Store,
    record_rules: Sequence[Bound],
    rules: Sequence[Bound],
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
    outcome, keeper, similarity = _sample_outcomes(loaded, state, verdicts)
    failures = _sample_failures(loaded, outcome)
    record = _record_outcomes(loaded, state)
    record_keeper = np.zeros(len(record), "S16")
    record_keeper[state.copies] = state.keeper
    out = []
    for part, files in enumerate(group):
        records = read_table(build, files.records, ["record_id", "source", "uri", "kind", *FAILURE_NAMES])
        samples = read_table(
            build, files.samples, ["sample_id", "record_id", "source", "uri", "kind", "start_us", "end_us"]
        )
        r = slice(int(loaded.record_starts[part]), int(loaded.record_starts[part + 1]))
        s = loaded.sample_starts[part] + np.flatnonzero(
            state.listed[loaded.sample_starts[part] : loaded.sample_starts[part + 1]]
        )
        if len(records) != r.stop - r.start or not np.array_equal(keys_of(records["record_id"]), loaded.record[r]):
            raise CurateError(f"{build.name(files.records)} was replaced while it was decided on", _BROKEN_BUILD)
        about = samples.take(pa.array(s - loaded.sample_starts[part]))
        levels = [
            _rows(
                records.append_column("id", records["record_id"]),
                _Level(
                    RECORD,
                    record[r],
                    record_rules,
                    state.record_broke[r],
                    {f: v[r] for f, v in loaded.record_values.items()},
                    record_keeper[r],
                    None,
                    {name: records[name] for name in FAILURE_NAMES},
                ),
            ),
            _rows(
                about.rename_columns(["id", *about.column_names[1:]]),
                _Level(
                    SAMPLE,
                    outcome[s],
                    rules,
                    state.broke[s],
                    {f: v[s] for f, v in loaded.sample_values.items()},
                    keeper[s],
                    similarity[s],
                    {name: failures[name].take(pa.array(s)) for name in FAILURE_NAMES},
                ),
            ),
        ]
        path = write_named_table(build, f"verdicts/{files.name}", pa.concat_tables(levels).combine_chunks())
        numbers = {RECORD: record[r], SAMPLE: outcome[s]}
        counts = {
            level: dict(zip(map(str, names), np.bincount(numbers[level], minlength=len(names)).tolist(), strict=True))
            for level, names in OUTCOMES.items()
        }
        kept = loaded.sample_kind[s][outcome[s] == _number(SAMPLE, Outcome.KEPT)]
        kinds = np.bincount(kept[kept >= 0], minlength=len(KINDS)).tolist()
        out.append(Fragment(path, counts, {kind: n for kind, n in zip(KINDS, kinds, strict=True) if n}))
    return out


def conserve(
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
    out = {f"{level}s": {"total": 0, **{str(o): 0 for o in names}} for level, names in OUTCOMES.items()}
    for one in counts:
        for level in OUTCOMES:
            sums = out[f"{level}s"]
            for outcome, n in one[level].items():
                if outcome not in sums or outcome == "total":
                    raise CurateError(f"the ledger does not add up: no {level} is {outcome}", _BROKEN_BUILD)
                sums[outcome] += n
                sums["total"] += n
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


def _record_outcomes(loaded: Loaded, state: State) -> NDArray[np.int64]:
    out = np.full(len(loaded.record), _number(RECORD, Outcome.SAMPLED), np.int64)
    out[state.copies] = _number(RECORD, Outcome.DUPLICATE)
    out[state.record_broke >= 0] = _number(RECORD, Outcome.DROPPED)
    out[loaded.record_failed] = _number(RECORD, Outcome.FAILED)
    return out


def _sample_outcomes(
    loaded: Loaded, state: State, verdicts: Verdicts | None
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
    out[loaded.sample_failed] = _number(SAMPLE, Outcome.FAILED)
    return out, keeper, similarity


def _sample_failures(loaded: Loaded, outcome: NDArray[np.int64]) -> dict[str, pa.Array]:
    """FAILURE columns of all samples of a task; null where they did not fail."""
    whole = pa.concat_tables([loaded.failures, loaded.later]).combine_chunks()
    at = np.full(len(outcome), -1)
    at[whole["row"].to_numpy()[::-1]] = np.arange(len(whole))[::-1]  # of a signal before that of tokenizing
    where = pa.array(at, mask=(at < 0) | (outcome != _number(SAMPLE, Outcome.FAILED)))
    return {f.name: whole[f.name].combine_chunks().take(where).cast(f.type) for f in FAILURE}


def _rows(about: pa.Table, verdict: _Level) -> pa.Table:
    """Rows of LEDGER."""
    n = len(about)
    is_a = {o: verdict.outcome == i for i, o in enumerate(OUTCOMES[verdict.level])}
    columns = {name: about[name] for name in about.column_names if name in LEDGER.names}
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
    """Rule, value and threshold of the rows that are dropped."""
    value = np.zeros(len(dropped))
    for number in np.unique(verdict.broke[dropped]):
        some = dropped & (verdict.broke == number)
        value[some] = verdict.values[verdict.rules[number].field][some]
    which = pa.array(verdict.broke, mask=~dropped)
    return {
        "rule": pa.array([b.name for b in verdict.rules], pa.string()).take(which),
        "value": pa.array(value, mask=~dropped),
        "threshold": pa.array([b.threshold for b in verdict.rules], pa.float64()).take(which),
    }
