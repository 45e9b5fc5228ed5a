"""What the card says of each signal: unit, range, model, how it is spread, and what its thresholds did."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from curate.card.histogram import Distribution, spread
from curate.card.sweep import RECORD_VALUES
from curate.card.text import number
from curate.card.thresholds import Column, ThresholdLine, thresholds
from curate.schema.fields import KINDS
from curate.schema.recipe import Recipe, Rule
from curate.shards.tables import FAILURE_PREFIX, Tables
from curate.signals.probed import PROBED
from curate.storage.sql import quoted, text

_ALWAYS = ("pixels", "duration")
FEW = 12
"""Values of a category that are listed; text with more different ones is no category."""

_VALUE, _FAILED = "signal:", "failed:"


@dataclass(frozen=True)
class Number:
    """A numeric field with its histogram.

    Attributes:
        signal, version, options: what computed it; empty for probed fields.
        level: whether records or samples have it.
        absent: samples of the field's kinds without a value: nothing to evaluate.
        unseen: samples of the field's kinds that the second look did not look at: not evaluated.
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
    spread: Distribution
    bounds: list[ThresholdLine]
    absent: int
    unseen: int
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


def swept(tables: Tables) -> dict[str, dict[str, str]]:
    """Columns of signals for `sweep`: numbers, text and tags; of other fields and of failures whether there is one."""
    out: dict[str, dict[str, str]] = {}
    for _, field in _fields(tables):
        name = field["name"]
        whole = _is_number(tables.types[name]) or _is_words(tables.types[name])
        sql = quoted(name) if whole else tables.filled(name)
        out.setdefault(tables.fields[name], {})[_VALUE + name] = sql
    for signal, group in tables.failures.items():
        out.setdefault(group, {})[_FAILED + signal] = f"{quoted(FAILURE_PREFIX + signal)} IS NOT NULL"
    return out


def queries(tables: Tables, recipe: Recipe) -> dict[str, str]:
    """Queries for `sweep`: `sample_values`, `record_values` where a rule needs it, `unseen`, `failures`, `filled`,
    `words`."""
    names = [f["name"] for _, f in _fields(tables)]
    numeric = [quoted(_VALUE + n) for n in names if _is_number(tables.types[n])]
    rest = [n for n in names if not _is_number(tables.types[n])]
    return {
        "sample_values": f"SELECT {', '.join(['kind', 'judged', *PROBED, *numeric])} FROM chunk",
        "unseen": "SELECT kind, count(*) AS n FROM chunk WHERE unseen GROUP BY kind",
        **({"record_values": RECORD_VALUES} if recipe.decide.records else {}),
        "failures": _each([(s, f"count_if({quoted(_FAILED + s)})") for s in tables.failures], "chunk"),
        "filled": _each([(n, _filled(tables.types[n], quoted(_VALUE + n))) for n in rest], "chunk"),
        "words": " UNION ALL ".join(
            ["SELECT '' AS field, '' AS v, 0::BIGINT AS n WHERE false"]
            + [_words(n, tables.types[n]) for n in rest if _is_words(tables.types[n])]
        ),
    }


def _each(counts: list[tuple[str, str]], table: str) -> str:
    """A query with a row `name`, `n` for each of some aggregates, computed in one scan."""
    if not counts:
        return "SELECT '' AS name, 0::BIGINT AS n WHERE false"
    pairs = ", ".join(f"{{name: {text(name)}, n: {sql}::BIGINT}}" for name, sql in counts)
    return f"SELECT unnest([{pairs}], recursive := true) FROM {table}"


def _filled(kind: pa.DataType, column: str) -> str:
    return f"count({column})" if _is_words(kind) else f"count_if({column})"


def _words(name: str, kind: pa.DataType) -> str:
    """How often each value occurs; of text with more than `FEW` in the chunk one row, whose value is null."""
    column = quoted(_VALUE + name)
    if pa.types.is_list(kind):
        return f"SELECT {text(name)}, v, count(*) FROM (SELECT unnest({column}) AS v FROM chunk) GROUP BY v"
    return (
        f"SELECT {text(name)}, CASE WHEN count(*) OVER () > {FEW} THEN NULL ELSE v END, n FROM "
        f"(SELECT {column} AS v, count(*) AS n FROM chunk WHERE {column} IS NOT NULL GROUP BY v "
        f"ORDER BY v LIMIT {FEW + 1})"
    )


def numbers(tables: Tables, recipe: Recipe) -> list[Number]:
    """Numeric fields: those of signals in recipe order, then probed ones that have a rule or always matter."""
    out = []
    for signal, field in _fields(tables):
        if _is_number(tables.types[field["name"]]):
            column = Column("sample", field["name"], _VALUE + field["name"])
            out.append(_number(tables, column, recipe.decide.rules, signal, field))
    for level, rules in (("record", recipe.decide.records), ("sample", recipe.decide.rules)):
        ruled = {r.field for r in rules}
        for probed in PROBED.values():
            if probed.name in ruled or (level == "sample" and probed.name in _ALWAYS):
                plain = {
                    "name": probed.name,
                    "unit": probed.unit,
                    "range": list(probed.range),
                    "kinds": list(probed.kinds),
                    "about": probed.about,
                }
                out.append(_number(tables, Column(level, probed.name, probed.name), rules, {}, plain))
    return out


def others(tables: Tables) -> list[Other]:
    """Fields that are not numbers, with their commonest values where they are categories or tags."""
    counts = {r["name"]: r["n"] for r in tables.rows("SELECT name, sum(n)::BIGINT AS n FROM filled GROUP BY name")}
    return [
        Other(
            field["name"],
            _type_name(tables.types[field["name"]]),
            field.get("about") or "",
            signal["name"],
            signal.get("version") or "",
            counts[field["name"]],
            _common(tables, tables.types[field["name"]], field["name"], counts[field["name"]]),
        )
        for signal, field in _fields(tables)
        if not _is_number(tables.types[field["name"]])
    ]


def _fields(tables: Tables) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Signal and field for each field that the manifest names and a table holds."""
    found = [(s, f) for s in tables.manifest.signals for f in s["fields"]]
    return [(s, f) for s, f in found if f["name"] in tables.fields]


def _number(tables: Tables, column: Column, rules: list[Rule], signal: dict[str, Any], field: dict[str, Any]) -> Number:
    bounds = thresholds(tables, rules, column)
    kinds = tuple(field.get("kinds") or KINDS)
    marks = ", ".join("?" for _ in kinds)
    counted = tables.row(
        f"SELECT count(*) FILTER (kind NOT IN ({marks})) AS other, "
        f"count(*) FILTER (kind IN ({marks}) AND {column.value} IS NULL) AS empty FROM {column.relation}",
        [*kinds, *kinds],
    )
    failed = unseen = 0
    second = tables.manifest.second_look
    if second is not None and signal.get("name") in second.signals:
        [unseen] = tables.row(
            f"SELECT coalesce(sum(n), 0)::BIGINT AS n FROM unseen WHERE kind IN ({marks})", [*kinds]
        ).values()
    if signal:
        failed = tables.row("SELECT coalesce(sum(n), 0)::BIGINT AS n FROM failures WHERE name = ?", [signal["name"]])[
            "n"
        ]
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
        absent=max(0, counted["empty"] - failed - unseen),
        unseen=unseen,
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


def _common(tables: Tables, kind: pa.DataType, name: str, count: int) -> list[tuple[str, int]]:
    """The commonest values of tags, and of text that has few different ones."""
    if not _is_words(kind):
        return []
    rows = tables.rows(
        "SELECT v, sum(n)::BIGINT AS n FROM words WHERE field = ? GROUP BY v ORDER BY n DESC, v LIMIT ?",
        [name, FEW + 1],
    )
    few = len(rows) <= min(FEW, count / 4) and all(r["v"] is not None for r in rows)
    return [(r["v"], r["n"]) for r in rows[:FEW]] if few or pa.types.is_list(kind) else []


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _is_words(kind: pa.DataType) -> bool:
    """Text, or tags."""
    return bool(pa.types.is_string(kind) or (pa.types.is_list(kind) and pa.types.is_string(kind.value_type)))


def _type_name(kind: pa.DataType) -> str:
    if pa.types.is_fixed_size_list(kind):
        return f"vector of {kind.list_size} {kind.value_type}"
    return f"list of {kind.value_type}" if pa.types.is_list(kind) else str(kind)
