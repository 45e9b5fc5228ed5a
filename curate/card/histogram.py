"""Histograms of signals with the recipe's thresholds drawn in, and what falls outside of them told apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.card.axis import Axis
from curate.card.text import number
from curate.card.thresholds import Column, ThresholdLine
from curate.shards.tables import Tables

WIDTH, HEIGHT = 400, 176
LEFT, RIGHT, TOP, FLOOR = 30.0, 392.0, 40.0, 150.0
BINS = 32
LOG_SPREAD = 25  # all values above 0 and the greatest this many times the median: a log axis


@dataclass(frozen=True)
class Bar:
    """One bin: what lies inside the thresholds stands on the floor, what lies outside on top of it."""

    x: float
    width: float
    inside: float
    outside: float
    title: str


@dataclass(frozen=True)
class Line:
    """A threshold: its place, its words, and where they stand."""

    x: float
    label_x: float
    label_y: float
    anchor: str
    label: str


@dataclass(frozen=True)
class Chart:
    """An SVG histogram, ready to draw."""

    bars: list[Bar]
    ticks: list[tuple[float, str]]
    lines: list[Line]
    most: int
    log: bool
    words: str


@dataclass(frozen=True)
class Distribution:
    """Of one column: how many have a value, how many of those are outside, and where they lie."""

    count: int
    outside: int
    lowest: float | None
    median: float | None
    highest: float | None
    chart: Chart | None


def spread(tables: Tables, column: Column, bounds: Sequence[ThresholdLine]) -> Distribution:
    """Counts in SQL over all that did not fail before the rules were applied; the same set that percentiles are of."""
    value, finite = column.value, f"isfinite({column.value})"
    base = f"FROM {column.relation} WHERE judged AND {finite}"
    facts = tables.row(f"SELECT count(*) AS n, min({value}) AS lo, max({value}) AS hi {base}")
    median = column.quantile(tables, 0.5, finite)
    if median is None:
        return Distribution(0, 0, None, None, None, None)
    drawn = [b for b in bounds if b.value is not None]
    axis = _axis(facts["lo"], median, facts["hi"], [b.value for b in drawn if b.value is not None])
    edges = axis.edges(BINS)
    broken, parameters = ["FALSE"], list[object]()
    for bound in drawn:
        test, values = bound.broken(value)
        broken.append(test)
        parameters += values
    # the bin of a value is the number of inner borders at or below it
    bin_of = " + ".join(f"({value} >= {edge!r})::INT" for edge in edges[1:-1])
    found = tables.rows(
        f"SELECT {bin_of} AS bin, coalesce({' OR '.join(broken)}, FALSE) AS out, count(*) AS n {base} GROUP BY ALL",
        parameters,
    )
    inside, outside = [0] * BINS, [0] * BINS
    for row in found:
        (outside if row["out"] else inside)[row["bin"]] = row["n"]
    chart = _chart(axis, edges, inside, outside, drawn)
    return Distribution(facts["n"], sum(outside), facts["lo"], median, facts["hi"], chart)


def _axis(low: float, median: float, high: float, bounds: list[float]) -> Axis:
    """An axis that shows all values and all thresholds."""
    lo, hi = min([low, *bounds]), max([high, *bounds])
    log = lo > 0 and hi > LOG_SPREAD * median
    if lo == hi:
        lo, hi = lo - (abs(lo) or 1.0) * 0.5, hi + (abs(hi) or 1.0) * 0.5
    return Axis(lo, hi, LEFT, RIGHT, log)


def _chart(
    axis: Axis, edges: list[float], inside: list[int], outside: list[int], bounds: Sequence[ThresholdLine]
) -> Chart:
    most = max(i + o for i, o in zip(inside, outside, strict=True))
    step = (RIGHT - LEFT) / BINS
    scale = (FLOOR - TOP) / most
    bars = [
        Bar(
            x=round(LEFT + i * step + 0.75, 2),
            width=round(step - 1.5, 2),
            inside=_height(inside[i], scale),
            outside=_height(outside[i], scale),
            title=f"{number(edges[i])} to {number(edges[i + 1])}: {inside[i] + outside[i]:,}"
            + (f", {outside[i]:,} outside" if outside[i] else ""),
        )
        for i in range(BINS)
        if inside[i] or outside[i]
    ]
    lines = []
    for i, bound in enumerate(bounds):
        assert bound.value is not None
        x = round(axis.at(bound.value), 1)
        to_right = x < (LEFT + RIGHT) / 2
        of = f"p{bound.bound.percentile:g} = " if bound.bound.percentile is not None else ""
        label = f"{'≥' if bound.bound.op == '>=' else '≤'} {of}{number(bound.value)}"
        lines.append(Line(x, x + (5 if to_right else -5), 14 + 14 * (i % 2), "start" if to_right else "end", label))
    words = f"Histogram of {sum(inside) + sum(outside):,} values" + (f", {sum(outside):,} outside" if bounds else "")
    return Chart(bars, axis.ticks(), lines, most, axis.log, words)


def _height(count: int, scale: float) -> float:
    """Pixels of a count; one of many thousands still shows."""
    return round(max(1.5, count * scale), 1) if count else 0.0
