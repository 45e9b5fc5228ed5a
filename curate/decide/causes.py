"""Outcomes and their causes, counted out of the ledger. No row of it is held."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from curate.schema.events import Cause, Outcomes, SourceFailures
from curate.storage import Store
from curate.storage.sql import connect, scan

Level = Literal["records", "samples"]

_FILES = 256
"""Fragments that one query reads."""

_FAILURES = """
    SELECT level, stage, error, count(*) AS n, min(id) AS id, arg_min(uri, id) AS uri, arg_min(message, id) AS message
    FROM {} WHERE outcome = 'failed' AND source = coalesce(?, source) GROUP BY level, stage, error
"""

_BY_SOURCE = """
    SELECT source, level || 's', count(*) AS n, count(*) FILTER (outcome = 'failed') AS failed
    FROM {} GROUP BY source, level
"""

_OUTCOMES = """
    SELECT level, outcome,
        CASE outcome WHEN 'dropped' THEN rule WHEN 'duplicate' THEN "match"
                     WHEN 'failed' THEN stage || ': ' || error END AS cause,
        count(*) AS n
    FROM {} GROUP BY ALL
"""

_VALUES = "SELECT min(value), max(value) FROM {} WHERE level = ? AND outcome = 'dropped' AND rule = ?"


def causes_of(build: Store, verdicts: Sequence[str], source: str | None = None) -> list[Cause]:
    """Failures by level, stage and class of error, the most frequent first.

    Args:
        build: where they lie.
        verdicts: fragments of LEDGER, relative to it.
        source: whose failures; of all where absent.

    Returns:
        Every cause, with the failure of the smallest id as its example. Ties go by level, stage and error.
    """
    counts: dict[tuple[str, str, str], int] = {}
    examples: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    for level, stage, error, count, *example in _rows(build, verdicts, _FAILURES, [source]):
        key = (level, stage, error)
        counts[key] = counts.get(key, 0) + count
        examples[key] = min(examples.get(key, tuple(example)), tuple(example))
    return [
        Cause(level=level, stage=stage, error=error, count=counts[level, stage, error], uri=uri, message=message)
        for (level, stage, error), (_, uri, message) in sorted(
            examples.items(), key=lambda item: (-counts[item[0]], item[0])
        )
    ]


def outcomes_of(build: Store, verdicts: Sequence[str]) -> list[Outcomes]:
    """Records and samples by outcome and cause, the most frequent first within a level and outcome.

    Args:
        build, verdicts: as `causes_of` takes them.
    """
    counts: Counter[tuple[str, str, str | None]] = Counter()
    for level, outcome, cause, count in _rows(build, verdicts, _OUTCOMES):
        counts[level, outcome, cause] += count
    ordered = sorted(counts.items(), key=lambda item: (*item[0][:2], -item[1], item[0][2] or ""))
    return [
        Outcomes(level=level, outcome=outcome, cause=cause, count=count) for (level, outcome, cause), count in ordered
    ]


def dropped_values(build: Store, verdicts: Sequence[str], level: str, rule: str) -> tuple[float, float] | None:
    """The smallest and the largest value that a rule dropped; None where it is not on numbers, or dropped nothing.

    Args:
        build, verdicts: as `causes_of` takes them.
        level: `record` or `sample`.
        rule: its name in the ledger.
    """
    ends = [ends for ends in _rows(build, verdicts, _VALUES, [level, rule]) if ends[0] is not None]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def failed_by_source(build: Store, verdicts: Sequence[str], max_failed: float) -> list[SourceFailures]:
    """Sources of whose records, or samples, a greater share failed than `max_failed`, by name.

    Args:
        build, verdicts: as `causes_of` takes them.
    """
    totals: Counter[tuple[str, Level]] = Counter()
    failed: Counter[tuple[str, Level]] = Counter()
    for source, level, count, bad in _rows(build, verdicts, _BY_SOURCE):
        totals[source, level] += count
        failed[source, level] += bad
    return [
        SourceFailures(
            name=source,
            level=level,
            failed=failed[source, level],
            total=total,
            cause=next(c for c in causes_of(build, verdicts, source) if f"{c.level}s" == level),
        )
        for (source, level), total in sorted(totals.items())
        if failed[source, level] / total > max_failed
    ]


def _rows(build: Store, verdicts: Sequence[str], query: str, given: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
    """Rows of a query over each of some groups of fragments, with what stands for its `?`."""
    with connect() as con:
        for start in range(0, len(verdicts), _FILES):
            with build.pinned(verdicts[start : start + _FILES]) as local:
                yield from con.execute(query.format(scan([str(path) for path in local])), given).fetchall()
