"""Exact percentiles of columns that lie in many places: histograms of the numbers' bits, refined where it matters.

A float64 is mapped to 64 bits that sort as the numbers do. Each pass counts the next 16 bits of the values that begin
like the one looked for; once few begin so, they are taken whole. So a place sends at most 65,536 counts a column, or
`TAKE` values, and all percentiles of all columns share the passes: usually two.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.decide.bounds import Threshold
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS

TAKE = 1 << 14
"""So many values are taken whole."""

_DIGIT = 16  # bits of one pass
_SIGN = np.uint64(1 << 63)


class Column(NamedTuple):
    """A field over samples of some kinds."""

    field: str
    kinds: tuple[str, ...]


class Bin(NamedTuple):
    """Values of a column whose first `16 * depth` bits are `prefix`."""

    column: Column
    depth: int
    prefix: int


Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Distinct numbers, ascending, and how often each occurs."""

Pass = Callable[[Mapping[Bin, bool]], Iterator[Mapping[Bin, Counts]]]
"""Answers of all places: for each bin counts of the next 16 bits, or where it says True of whole values."""


def counts(
    bins: Mapping[Bin, bool], values: Mapping[str, NDArray[np.float64]], kind: NDArray[np.int8]
) -> dict[Bin, Counts]:
    """One place's answer.

    Args:
        bins: asked for.
        values: by field, `(n,)`; NaN takes no part.
        kind: `(n,)`, numbers in KINDS.
    """
    out = {}
    image: dict[Column, NDArray[np.uint64]] = {}
    for one, whole in bins.items():
        if one.column not in image:
            some = np.isin(kind, [KINDS.index(k) for k in one.column.kinds])
            column = values[one.column.field][some]
            image[one.column] = _image(column[~np.isnan(column)])
        bits = image[one.column]
        if one.depth:
            bits = bits[bits >> np.uint64(64 - _DIGIT * one.depth) == np.uint64(one.prefix)]
        if not whole:
            bits = bits >> np.uint64(64 - _DIGIT * (one.depth + 1)) & np.uint64((1 << _DIGIT) - 1)
        distinct, times = np.unique(bits, return_counts=True)
        out[one] = distinct.view(np.int64), times
    return out


def resolve(bounds: Sequence[Threshold], ask: Pass) -> list[Threshold]:
    """`bounds` with each percentile as the absolute threshold it comes out as; None where no value is there.

    It interpolates linearly between neighbours (Hyndman and Fan's type 7, numpy's default).

    Raises:
        CurateError: a percentile lies between -inf and inf.
    """
    columns = {Column(b.field, b.kinds) for b in bounds if b.percentile is not None}
    if not columns:
        return list(bounds)
    ranks: dict[Column, dict[int, float]] = {}
    asked = {Bin(c, 0, 0): False for c in columns}
    first = _merged(asked, ask)
    totals = {one.column: int(times.sum()) for one, (_, times) in first.items()}
    for bound in bounds:
        column = Column(bound.field, bound.kinds)
        if bound.percentile is not None and totals[column]:
            below, above, _ = _place(totals[column], bound.percentile)
            ranks.setdefault(column, {}).update({below: math.nan, above: math.nan})
    # Every rank wanted, by the bin it is in and its place there.
    waiting = [(Bin(c, 0, 0), c, rank, rank) for c, some in ranks.items() for rank in some]
    found = first
    while waiting:
        deeper: dict[Bin, bool] = {}
        later = []
        for one, column, rank, place in waiting:
            digits, times = found[one]
            i = int(np.searchsorted(np.cumsum(times), place, side="right"))
            place -= int(times[:i].sum())
            if asked[one]:
                ranks[column][rank] = _number(int(digits[i]))
                continue
            child = Bin(column, one.depth + 1, one.prefix << _DIGIT | int(digits[i]))
            if child.depth * _DIGIT == 64:
                ranks[column][rank] = _number(child.prefix)
                continue
            deeper[child] = int(times[i]) <= TAKE
            later.append((child, column, rank, place))
        waiting, asked = later, deeper
        found = _merged(asked, ask) if asked else {}
    return [_resolved(b, totals, ranks) for b in bounds]


def _resolved(bound: Threshold, totals: Mapping[Column, int], ranks: Mapping[Column, Mapping[int, float]]) -> Threshold:
    column = Column(bound.field, bound.kinds)
    if bound.percentile is None or not totals[column]:
        return bound
    below, above, share = _place(totals[column], bound.percentile)
    return replace(bound, value=_between(bound, ranks[column][below], ranks[column][above], share))


def resolve_in(bound: Threshold, values: NDArray[np.float64]) -> Threshold:
    """What `resolve` makes of a bound where all values are at hand.

    Args:
        values: of the bound's field and kinds, `(n,)`, ascending.
    """
    if bound.percentile is None or not len(values):
        return bound
    below, above, share = _place(len(values), bound.percentile)
    return replace(bound, value=_between(bound, float(values[below]) + 0.0, float(values[above]) + 0.0, share))


def _between(bound: Threshold, low: float, high: float, share: float) -> float:
    """The number that is `share` of the way from `low` to `high`."""
    if share == 0 or low == high:
        return low
    if math.isinf(low) and math.isinf(high):
        raise CurateError(f"{bound.name} lies between -inf and inf, so it is no number", "give an absolute threshold")
    between = low + (high - low) * share
    return between if math.isfinite(between) else low * (1 - share) + high * share


def _place(total: int, percentile: float) -> tuple[int, int, float]:
    """Ranks of the two neighbours of a percentile, and how far it is from the one to the other."""
    at = (total - 1) * (percentile / 100)
    below = min(int(at), total - 1)
    return below, min(below + 1, total - 1), at - below


def _merged(asked: Mapping[Bin, bool], ask: Pass) -> dict[Bin, Counts]:
    out: dict[Bin, Counts] = {}
    for answer in ask(asked):
        for one, (numbers, times) in answer.items():
            if one in out:
                both, which = np.unique(np.concatenate([out[one][0], numbers]).view(np.uint64), return_inverse=True)
                sums = np.bincount(which, weights=np.concatenate([out[one][1], times]), minlength=len(both))
                out[one] = both.view(np.int64), sums.astype(np.int64)
            else:
                out[one] = numbers, times
    return out


def _image(values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Bits that sort as the numbers do."""
    bits = (values + 0.0).view(np.uint64)  # -0.0 becomes 0.0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


def _number(image: int) -> float:
    bits = np.array([image % (1 << 64)], np.uint64)
    return float(np.where(bits & _SIGN, bits ^ _SIGN, ~bits).view(np.float64)[0])
