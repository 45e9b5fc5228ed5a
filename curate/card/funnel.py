"""From records to shards in numbers that add up (law 1)."""

from __future__ import annotations

from dataclasses import dataclass

from curate.schema.errors import CurateError
from curate.schema.ledger_laws import OUTCOMES
from curate.schema.manifest import Split
from curate.schema.verdict import Outcome
from curate.shards.tables import Tables

COUNTS = """
    SELECT level, source, coalesce(kind, 'unknown') AS kind, outcome,
        CASE outcome WHEN 'dropped' THEN rule WHEN 'duplicate' THEN "match"
                     WHEN 'failed' THEN stage || ': ' || error END AS label,
        count(*) AS n, max(threshold) AS threshold,
        min(coalesce(value, similarity)) AS lowest, max(coalesce(value, similarity)) AS highest
    FROM ledger GROUP BY ALL
"""
"""Query of the ledger's sums for `sweep`, whose table is to be called `counts`."""


@dataclass(frozen=True)
class WayOut:
    """Why inputs ended where they did.

    Attributes:
        level: record or sample.
        outcome: dropped, duplicate or failed.
        label: the rule's name, `exact` or `near`, or `stage: ErrorClass`.
        threshold: of a rule, absolute; None otherwise.
        lowest, highest: of the values that broke the rule, or of the similarities.
    """

    level: str
    outcome: str
    label: str
    count: int
    threshold: float | None = None
    lowest: float | None = None
    highest: float | None = None


@dataclass(frozen=True)
class Level:
    """All records, or all samples, by outcome."""

    name: str
    total: int
    parts: dict[str, int]
    causes: list[WayOut]

    def of(self, outcome: str) -> list[WayOut]:
        return [c for c in self.causes if c.outcome == outcome]


@dataclass(frozen=True)
class Row:
    """One line of the table by source and kind."""

    source: str
    kind: str
    records: dict[str, int]
    samples: dict[str, int]


@dataclass(frozen=True)
class Funnel:
    records: Level
    samples: Level
    splits: list[Split]
    asked: dict[str, float]
    table: list[Row]


def funnel(tables: Tables) -> Funnel:
    """Sums `counts` up and compares it with the manifest.

    Raises:
        CurateError: the ledger disagrees with the manifest or does not add up; a card of it would not be true.
    """
    records, samples = _level(tables, "record"), _level(tables, "sample")
    counts = tables.manifest.counts
    for level, said in ((records, counts.records), (samples, counts.samples)):
        found = {"total": level.total, **level.parts}
        if sum(level.parts.values()) != level.total or found != {k: said.get(k, 0) for k in found}:
            raise CurateError(
                f"the ledger counts {found} {level.name}s, the manifest {said}", "run: curate verify BUILD"
            )
        for outcome in (Outcome.DROPPED, Outcome.DUPLICATE, Outcome.FAILED):
            if sum(c.count for c in level.of(outcome)) != level.parts[outcome]:
                raise CurateError(f"causes of {outcome} {level.name}s do not add up", "run: curate verify BUILD")
    packed = sum(s.samples for s in tables.manifest.splits)
    if packed != samples.parts[Outcome.KEPT]:
        raise CurateError(
            f"{samples.parts[Outcome.KEPT]} samples were kept, the shards hold {packed}", "run: curate verify BUILD"
        )
    asked = tables.manifest.recipe["pack"]["splits"]
    return Funnel(records, samples, tables.manifest.splits, asked, _by_source(tables))


def _level(tables: Tables, name: str) -> Level:
    found = tables.rows("SELECT outcome, sum(n)::BIGINT AS n FROM counts WHERE level = ? GROUP BY outcome", [name])
    counted = {row["outcome"]: row["n"] for row in found}
    parts = {str(o): counted.get(str(o), 0) for o in OUTCOMES[name]}
    causes = tables.rows(
        """
        SELECT outcome, label, sum(n)::BIGINT AS n, max(threshold) AS threshold,
               min(lowest) AS lowest, max(highest) AS highest
        FROM counts WHERE level = ? AND outcome IN ('dropped', 'duplicate', 'failed')
        GROUP BY outcome, label ORDER BY outcome, n DESC, label
        """,
        [name],
    )
    return Level(
        name,
        sum(counted.values()),
        parts,
        [
            WayOut(
                name, c["outcome"], c["label"] or "no cause given", c["n"], c["threshold"], c["lowest"], c["highest"]
            )
            for c in causes
        ],
    )


def _by_source(tables: Tables) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    for found in tables.rows(
        "SELECT source, kind, level, outcome, sum(n)::BIGINT AS n FROM counts GROUP BY ALL ORDER BY source, kind"
    ):
        key = (found["source"], found["kind"])
        row = rows.setdefault(key, Row(*key, _zeros("record"), _zeros("sample")))
        side = row.records if found["level"] == "record" else row.samples
        side[found["outcome"]] += found["n"]
    return list(rows.values())


def _zeros(level: str) -> dict[str, int]:
    return {str(o): 0 for o in OUTCOMES[level]}
