"""The funnel as a drawing: a band that narrows, with an exit for each way out.

Heights are in proportion inside one level. Between levels the unit changes (one record becomes many samples), so the
band keeps its height there and the words say that what it counts has changed.
"""

from __future__ import annotations

from dataclasses import dataclass

from curate.card.funnel import Funnel, Level
from curate.card.text import number, percent
from curate.schema.verdict import Outcome

WIDTH = 1080
BAND = 190  # height of all records
THIN = 3  # the least height of something that is not nothing
NODE = 12  # width of a node
ROW = 40  # the least distance of two exits: two lines of text
COLUMNS = (0, 232, 464, 696, 928)


@dataclass(frozen=True)
class Node:
    """A bar with words to its right: `title` above `note`; `tone` is the outcome that colours it."""

    x: float
    y: float
    height: float
    tone: str
    title: str
    note: str = ""


@dataclass(frozen=True)
class Ribbon:
    """What flows from one node into the next, as an SVG path."""

    path: str
    tone: str


@dataclass(frozen=True)
class Flow:
    width: int
    height: float
    nodes: list[Node]
    ribbons: list[Ribbon]


def flow(funnel: Funnel) -> Flow:
    """Lays the drawing out: records, their outcomes, samples, theirs, and the splits of what was kept."""
    nodes: list[Node] = []
    ribbons: list[Ribbon] = []
    bottom = float(BAND)
    top = 2.0
    height = float(BAND)
    for level, at, onward in (
        (funnel.records, 0, Outcome.SAMPLED),
        (funnel.samples, 2, Outcome.KEPT),
    ):
        nodes.append(Node(COLUMNS[at], top, height, "all", f"{number(level.total)} {level.name}s"))
        left, right = COLUMNS[at] + NODE, COLUMNS[at + 1]
        heights = _heights(level, height, onward)
        y = top
        exit_y = top + heights[onward] + 26
        for outcome, h in heights.items():
            count = level.parts[outcome]
            if not count:
                continue
            if outcome == onward:
                target = y
            else:
                target, exit_y = exit_y, exit_y + max(h + 10, ROW)
                bottom = max(bottom, target + max(h, ROW - 8))
            nodes.append(Node(right, target, h, outcome, f"{number(count)} {outcome}", _why(level, outcome)))
            ribbons.append(Ribbon(_curve(left, y, right, target, h), outcome))
            y += h
        height = heights[onward]
        if level is funnel.records and height and funnel.samples.total:
            ribbons.append(Ribbon(_curve(right + NODE, top, COLUMNS[2], top, height), "cut"))
    bottom = max(bottom, _splits(funnel, top, height, nodes, ribbons))
    return Flow(WIDTH, round(bottom + 12, 1), nodes, ribbons)


def _heights(level: Level, height: float, onward: str) -> dict[str, float]:
    """Heights of the outcomes, the one that goes on first; small ones get a least height."""
    order = [onward, *(o for o in level.parts if o != onward)]
    return {o: max(THIN, height * level.parts[o] / level.total) if level.parts[o] else 0.0 for o in order}


def _splits(funnel: Funnel, top: float, height: float, nodes: list[Node], ribbons: list[Ribbon]) -> float:
    """Puts the splits at the right; returns how far down they reach."""
    total, y, source = sum(s.samples for s in funnel.splits), top, top
    for split in funnel.splits:
        if not split.samples:
            continue
        h = max(THIN, height * split.samples / total)
        if len(funnel.splits) > 1:
            note = f"{percent(split.samples, total)}, asked {percent(funnel.asked[split.name], 1)}"
        else:
            note = f"in {number(len(split.shards))} shard{'s' if len(split.shards) != 1 else ''}"
        nodes.append(Node(COLUMNS[4], y, h, "split", f"{number(split.samples)} {split.name}", note))
        ribbons.append(Ribbon(_curve(COLUMNS[3] + NODE, source, COLUMNS[4], y, h), "kept"))
        source += h
        y += max(h + 4, ROW)
    return y


def _why(level: Level, outcome: str) -> str:
    """The causes of an outcome in a few words."""
    causes = level.of(outcome)
    if not causes:
        return ""
    first = causes[0]
    label = first.label if len(first.label) <= 24 else f"{first.label[:23]}…"
    return f"{number(first.count)} {label}" + (
        f", {len(causes) - 1} other cause" + "s" * (len(causes) > 2) if len(causes) > 1 else ""
    )


def _curve(x0: float, y0: float, x1: float, y1: float, height: float) -> str:
    m = (x0 + x1) / 2
    return (
        f"M{x0:g} {y0:.1f}C{m:g} {y0:.1f} {m:g} {y1:.1f} {x1:g} {y1:.1f}V{y1 + height:.1f}"
        f"C{m:g} {y1 + height:.1f} {m:g} {y0 + height:.1f} {x0:g} {y0 + height:.1f}Z"
    )
