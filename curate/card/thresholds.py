"""The bounds of a recipe's rules as lines to draw: a percentile with the value that it came to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.card.tables import Tables
from curate.decide.rules import Bound, bounds
from curate.schema.recipe import Rule

NOT_FAILED = {
    "record": "l.outcome <> 'failed'",
    # what failed only after the rules had been applied, in tokenize, was there when percentiles were taken
    "sample": "(l.outcome <> 'failed' OR l.stage LIKE 'tokenize%')",
}


@dataclass(frozen=True)
class Column:
    """A number of records or samples that a chart shows.

    Attributes:
        level: record or sample.
        field: its name in rules.
        value: SQL of the value.
        relation: SQL of the joined tables; has `x.kind`, the ledger as `l`, and what `value` needs.
    """

    level: str
    field: str
    value: str
    relation: str


@dataclass(frozen=True)
class Threshold:
    """One bound.

    Attributes:
        bound: as the recipe says; its name is the ledger's, e.g. `sharpness >= 20`, `motion >= p5`.
        value: absolute; None where no sample has the field, so that a percentile came to nothing.
        dropped: of how many this bound was the first that they broke.
    """

    bound: Bound
    value: float | None
    dropped: int

    def broken(self, value: str) -> tuple[str, list[object]]:
        """SQL that is true where the bound is broken, with its parameters."""
        marks = ", ".join("?" for _ in self.bound.kinds)
        beyond = "<" if self.bound.op == ">=" else ">"
        return f"(({value}) {beyond} ? AND x.kind IN ({marks}))", [self.value, *self.bound.kinds]


def thresholds(tables: Tables, rules: Sequence[Rule], column: Column) -> list[Threshold]:
    """The bounds that `rules` set on the column, in recipe order."""
    out = []
    for bound in bounds(rules):
        if bound.field != column.field:
            continue
        said = tables.row(
            "SELECT count(*) AS n, max(threshold) AS value FROM ledger "
            "WHERE level = ? AND outcome = 'dropped' AND rule = ?",
            [column.level, bound.name],
        )
        value = bound.threshold if bound.threshold is not None else said["value"]
        if value is None:  # a percentile that dropped nothing is in no row of the ledger
            value = _quantile(tables, column, bound)
        out.append(Threshold(bound, value, said["n"]))
    return out


def _quantile(tables: Tables, column: Column, bound: Bound) -> float | None:
    marks = ", ".join("?" for _ in bound.kinds)
    found: float | None = tables.row(
        f"SELECT quantile_cont(CAST({column.value} AS DOUBLE), {(bound.percentile or 0) / 100!r}) AS q "
        f"FROM {column.relation} WHERE {NOT_FAILED[column.level]} AND x.kind IN ({marks})",
        list(bound.kinds),
    )["q"]
    return found
