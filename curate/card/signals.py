"""What the card says of each signal: unit, range, model, how it is spread, and what its thresholds did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.card.histogram import Spread, spread
from curate.card.tables import Tables, quoted
from curate.card.text import number
from curate.card.thresholds import Column, Threshold, thresholds
from curate.schema.fields import KINDS
from curate.schema.recipe import Recipe, Rule
from curate.signals.probed import PROBED_FIELDS

PROBED = {
    "width": "x.width",
    "height": "x.height",
    "pixels": "x.width::BIGINT * x.height",
    "duration": "x.duration",
    "fps": "x.fps",
}
"""SQL of the fields that probing gives."""

_ALWAYS = ("pixels", "duration")
_SIGNAL_TABLES = "samples x JOIN {view} g USING (sample_id) JOIN ledger l ON l.level = 'sample' AND l.id = x.sample_id"
_PROBED_TABLES = "{table} x JOIN ledger l ON l.level = '{level}' AND l.id = x.{level}_id"


@dataclass(frozen=True)
class Number:
    """A numeric field with its histogram.

    Attributes:
        signal, version, options: what computed it; empty for probed fields.
        level: whether records or samples have it.
        absent: samples of the field's kinds without a value (not evaluated, or nothing to evaluate).
        other: samples of kinds that cannot have it.
        failed: samples on which the signal failed.
    """

    name: str
    unit: str
    range: str
    about: str
    kinds: tuple[str, ...]
    signal: str
    version: str
    options: str
    level: str
    spread: Spread
    bounds: list[Threshold]
    absent: int
    other: int
    failed: int


@dataclass(frozen=True)
class Other:
    """A field that is not a number: text, tags, an embedding."""

    name: str
    type: str
    about: str
    signal: str
    version: str
    count: int
    common: list[tuple[str, int]]


def numbers(tables: Tables, recipe: Recipe) -> list[Number]:
    """Numeric fields: those of signals in recipe order, then probed ones that have a rule or always matter."""
    out = []
    for signal, field in _fields(tables):
        if _is_number(tables.types[field["name"]]):
            view = tables.fields[field["name"]]
            column = Column("sample", field["name"], f"g.{quoted(field['name'])}", _SIGNAL_TABLES.format(view=view))
            out.append(_number(tables, column, recipe.decide.rules, signal, field))
    for level, rules in (("record", recipe.decide.records), ("sample", recipe.decide.rules)):
        ruled = {r.field for r in rules}
        for probed in PROBED_FIELDS:
            if probed.name in ruled or (level == "sample" and probed.name in _ALWAYS):
                relation = _PROBED_TABLES.format(table=f"{level}s", level=level)
                column = Column(level, probed.name, PROBED[probed.name], relation)
                plain = {
                    "name": probed.name,
                    "unit": probed.unit,
                    "range": list(probed.range),
                    "kinds": list(probed.kinds),
                    "about": probed.about,
                }
                out.append(_number(tables, column, rules, {}, plain))
    return out


def others(tables: Tables) -> list[Other]:
    """Fields that are not numbers, with their commonest values where they are categories or tags."""
    out = []
    for signal, field in _fields(tables):
        kind = tables.types[field["name"]]
        if _is_number(kind):
            continue
        view, column = tables.fields[field["name"]], quoted(field["name"])
        count = tables.row(f"SELECT count({column}) AS n FROM {view}")["n"]
        out.append(
            Other(
                field["name"],
                _type_name(kind),
                field.get("about") or "",
                signal["name"],
                signal.get("version") or "",
                count,
                _common(tables, kind, view, column, count),
            )
        )
    return out


def _fields(tables: Tables) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Signal and field for each field that the manifest names and a table holds."""
    found = [(s, f) for s in tables.manifest.signals for f in s["fields"]]
    return [(s, f) for s, f in found if f["name"] in tables.fields]


def _number(tables: Tables, column: Column, rules: list[Rule], signal: dict[str, Any], field: dict[str, Any]) -> Number:
    bounds = thresholds(tables, rules, column)
    kinds = tuple(field.get("kinds") or KINDS)
    marks = ", ".join("?" for _ in kinds)
    counted = tables.row(
        f"SELECT count(*) FILTER (x.kind NOT IN ({marks})) AS other, "
        f"count(*) FILTER (x.kind IN ({marks}) AND ({column.value}) IS NULL) AS empty FROM {column.relation}",
        [*kinds, *kinds],
    )
    failed = 0
    if signal:
        failed = tables.row(f"SELECT count(stage) AS n FROM {tables.fields[field['name']]}")["n"]
    low, high = field.get("range") or (None, None)
    options = ", ".join(f"{k} = {v}" for k, v in sorted((signal.get("options") or {}).items()))
    return Number(
        name=field["name"],
        unit=field.get("unit") or "",
        range=_range(low, high, field.get("unit") or ""),
        about=field.get("about") or "",
        kinds=kinds,
        signal=signal.get("name", ""),
        version=signal.get("version") or "",
        options=options,
        level=column.level,
        spread=spread(tables, column, bounds),
        bounds=bounds,
        absent=max(0, counted["empty"] - failed),
        other=counted["other"],
        failed=failed,
    )


def _range(low: float | None, high: float | None, unit: str) -> str:
    """The declared range in words."""
    if low is None and high is None:
        return f"any value, {unit}" if unit else "any value"
    words = (
        f"up to {number(high)}"
        if low is None
        else f"{number(low)} and more"
        if high is None
        else f"{number(low)} to {number(high)}"
    )
    return f"{words} {unit}".strip() if high is not None else f"{words}, {unit}" if unit else words


def _common(tables: Tables, kind: pa.DataType, view: str, column: str, count: int) -> list[tuple[str, int]]:
    """The commonest values of tags, and of text that has few different ones."""
    if pa.types.is_list(kind) and pa.types.is_string(kind.value_type):
        values = f"(SELECT unnest({column}) AS v FROM {view})"
    elif pa.types.is_string(kind):
        values = f"(SELECT {column} AS v FROM {view} WHERE {column} IS NOT NULL)"
        if tables.row(f"SELECT count(DISTINCT v) AS n FROM {values}")["n"] > min(12, count / 4):
            return []
    else:
        return []
    rows = tables.rows(f"SELECT v, count(*) AS n FROM {values} GROUP BY v ORDER BY n DESC, v LIMIT 12")
    return [(r["v"], r["n"]) for r in rows]


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"vector of {kind.list_size} {kind.value_type}"
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)
