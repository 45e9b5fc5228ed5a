"""Which part of a mixture a position is of: by integers alone, so that any position can be asked for.

Weights become whole numbers w_i with sum W. Within W positions part i has w_i of them, and its j-th one lies in
[floor(j W / w_i), ceil((j + 1) W / w_i)): so after any n positions it has had floor(n w_i / W) or ceil(n w_i / W). Such
an order always exists, and serving the earliest deadline first finds it (Baruah, Cohen, Plaxton and Varvel 1996; the
bound is that of Tijdeman's chairman assignment, 1980). One round of W is kept as a table; all else is division.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from heapq import heappop, heappush
from math import lcm

import numpy as np
from numpy.typing import NDArray

from curate.decide.keys import mix
from curate.shards.memory import Ints

FINEST = 1 << 16
"""Most positions of a round; weights that do not fit are rounded to this many parts."""
_SHORTEST = 1 << 12
"""Rounds are at least half as long as this, so that what chance decides is not soon repeated."""


def whole_weights(weights: Sequence[float]) -> list[int]:
    """Weights as whole numbers: exact where the decimals that are written allow it, else to 1 / `FINEST` of the sum.

    A part with a tiny weight still gets 1.

    Args:
        weights: above 0, at least one, at most `FINEST`.
    """
    exact = [Fraction(str(float(w))) for w in weights]
    shares = [w / sum(exact) for w in exact]
    size = lcm(*(s.denominator for s in shares))
    if size <= FINEST:
        return [int(s * size) for s in shares]
    whole = [max(1, int(s * FINEST)) for s in shares]
    rest = sorted(range(len(shares)), key=lambda i: whole[i] - shares[i] * FINEST)
    for i in rest[: max(0, FINEST - sum(whole))]:
        whole[i] += 1
    return whole


class Schedule:
    """Positions 0, 1, 2, ... dealt to parts.

    Args:
        weights: whole numbers above 0 (`whole_weights`).
        seed: decides where several parts might come next.
    """

    def __init__(self, weights: Sequence[int], seed: int = 0) -> None:
        times = max(1, _SHORTEST // sum(weights))
        self._weights = np.array(weights, np.int64) * times
        self._size = int(self._weights.sum())
        self._table = _round(self._weights, seed)
        self._where = [np.flatnonzero(self._table == i) for i in range(len(weights))]
        self._before = np.empty(self._size, np.int64)
        for places in self._where:
            self._before[places] = np.arange(len(places))

    def __call__(self, positions: Ints) -> tuple[Ints, Ints]:
        """The part of each position, and how often that part came before: int64 `(n,)` twice."""
        rounds, at = np.divmod(positions, self._size)
        parts = self._table[at]
        return parts, rounds * self._weights[parts] + self._before[at]

    def counts(self, n: int) -> list[int]:
        """How many of the first n positions each part has."""
        rounds, at = divmod(n, self._size)
        return [
            rounds * int(w) + int(np.searchsorted(places, at))
            for w, places in zip(self._weights, self._where, strict=True)
        ]

    def position(self, part: int, number: int) -> int:
        """Where a part comes for the `number`-th time, counted from 0."""
        rounds, at = divmod(number, int(self._weights[part]))
        return rounds * self._size + int(self._where[part][at])


def _round(weights: Ints, seed: int) -> NDArray[np.int64]:
    """The part of each position of one round, earliest deadline first; between equal ones chance decides."""
    size = int(weights.sum())
    parts = np.repeat(np.arange(len(weights)), weights)
    number = np.arange(size) - np.repeat(np.cumsum(weights) - weights, weights)
    release = number * size // weights[parts]
    deadline = -((number + 1) * -size // weights[parts])
    chance = mix(np.arange(size, dtype=np.uint64) ^ mix(np.array([seed % (1 << 64)], np.uint64)))
    order = np.argsort(release, kind="stable")
    jobs = list(zip(*(column[order].tolist() for column in (release, deadline, chance, parts)), strict=True))
    out = np.empty(size, np.int64)
    waiting: list[tuple[int, int, int]] = []
    at = 0
    for position in range(size):
        while at < size and jobs[at][0] <= position:
            heappush(waiting, jobs[at][1:])
            at += 1
        out[position] = heappop(waiting)[2]
    return out
