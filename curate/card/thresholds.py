"""The bounds of a recipe's rules as lines to draw: a percentile with the value that it came to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from curate.decide.bounds import Threshold, thresholds_of
from curate.schema.recipe import Rule
from curate.shards.tables import Tables
from curate.storage.sql import quoted


@dataclass(frozen=True)
class Column:
    """A number of records or samples that a chart shows.

    Attributes:
        level: record or sample.
        field: its name in rules.
        column: its name in the table that `sweep` made of it, which has `kind` and `judged` too.
    """

    level: str
    field: str
    column: str

    @property
    def relation(self) -> str:
        """That table."""
        return f"{self.level}_values"

    @property
    def value(self) -> str:
        """SQL of the value, float64."""
        return f"CAST({quoted(self.column)} AS DOUBLE)"

    def quantile(self, tables: Tables, share: float, condition: str, parameters: Sequence[object] = ()) -> float | None:
        """The value below which `share` of those that are judged lie, linear between neighbours; None of none.

        It sorts, since a sort spills to disk and DuckDB's own quantile holds every value.
        """
        base = f"FROM {self.relation} WHERE judged AND {condition} AND {self.value} IS NOT NULL"
        count = tables.row(f"SELECT count(*) AS n {base}", parameters)["n"]
        if not count:
            return None
        at = (count - 1) * share
        below = math.floor(at)
        found = tables.rows(f"SELECT {self.value} AS v {base} ORDER BY v LIMIT 2 OFFSET ?", [*parameters, below])
        low, high = found[0]["v"], found[-1]["v"]
        return float(low + (high - low) * (at - below)) if at > below else float(low)


@dataclass(frozen=True)
class ThresholdLine:
    """One bound.

    Attributes:
        bound: as the recipe says; its name is the ledger's, e.g. `sharpness >= 20`, `motion >= p5`.
        value: absolute; None where no sample has the field, so that a percentile came to nothing.
        dropped: of how many this bound was the first that they broke.
    """

    bound: Threshold
    value: float | None
    dropped: int

    def broken(self, value: str) -> tuple[str, list[object]]:
        """SQL that is true where the bound is broken, with its parameters."""
        marks = ", ".join("?" for _ in self.bound.kinds)
        beyond = "<" if self.bound.op == ">=" else ">"
        return f"(({value}) {beyond} ? AND kind IN ({marks}))", [self.value, *self.bound.kinds]


def thresholds(tables: Tables, rules: Sequence[Rule], column: Column) -> list[ThresholdLine]:
    """The bounds that `rules` set on the column, in recipe order."""
    out = []
    for bound in thresholds_of(rules):
        if bound.field != column.field or bound.is_words:
            continue
        said = tables.row(
            "SELECT coalesce(sum(n), 0)::BIGINT AS n, max(threshold) AS value FROM counts "
            "WHERE level = ? AND outcome = 'dropped' AND label = ?",
            [column.level, bound.name],
        )
        value = bound.value if bound.value is not None else said["value"]
        if value is None:  # a percentile that dropped nothing is in no row of the ledger
            kinds = ", ".join("?" for _ in bound.kinds)
            value = column.quantile(tables, (bound.percentile or 0) / 100, f"kind IN ({kinds})", bound.kinds)
        out.append(ThresholdLine(bound, value, said["n"]))
    return out
