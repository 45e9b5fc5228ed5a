"""The order of an epoch: which row stands at each position, a pure function of both."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, Protocol

import numpy as np
from blake3 import blake3

from curate.decide.keys import mix
from curate.shards.memory import Ints
from curate.shards.shuffle import Permutation

Shuffle = bool | Literal["blocks"]

BLOCK_SHARDS = 4
"""Most shards that are shuffled together where `shuffle` is "blocks"."""

AHEAD = 2
"""Blocks that are fetched ahead of the one that is read, so that reading and fetching go on together."""


class Order(Protocol):
    """Rows of positions: int64 `(n,)`, each in [0, samples), to int64 `(n,)`."""

    def __call__(self, positions: Ints, /) -> Ints: ...


def order_of(shuffle: Shuffle, shard_rows: Sequence[int], key: str) -> Order:
    """The order of an epoch.

    Args:
        shuffle: True for a permutation of all rows, "blocks" for one of shards and then of rows within a few of them,
            False for the stored order.
        shard_rows: rows of each shard.
        key: what it is drawn from.
    """
    if shuffle == "blocks":
        return Blocks(shard_rows, key)
    return Permutation(sum(shard_rows), key) if shuffle else _stored


def _stored(positions: Ints) -> Ints:
    return positions


class Blocks:
    """Shards in an order drawn anew, some at a time, and the rows of those in an order of their own.

    What is read lies in a few shards at a time: so shards of a bucket are fetched one after the other, ahead of their
    use. Each row comes once; a row's neighbours are drawn from its block. The first block is of one shard, the next of
    two, all others of `BLOCK_SHARDS`: nothing can be read before all of the first is here.
    """

    def __init__(self, shard_rows: Sequence[int], key: str) -> None:
        rows = np.array(shard_rows, np.int64)
        self._key = key
        self._shards = Permutation(len(rows), f"{key}/shards")(np.arange(len(rows)))
        self._begins = (np.cumsum(rows) - rows)[self._shards]
        self._ends = np.cumsum(rows[self._shards])
        firsts = [0, 1, *range(3, len(rows), BLOCK_SHARDS)]
        self._edges = [*(first for first in firsts if first < len(rows)), len(rows)]
        self._bounds = np.concatenate(([0], self._ends))[self._edges]
        self._within = lru_cache(4)(self._drawn)

    def __call__(self, positions: Ints) -> Ints:
        out = np.empty(len(positions), np.int64)
        block = np.searchsorted(self._bounds, positions, side="right") - 1
        for number in np.unique(block).tolist():
            mine = np.flatnonzero(block == number)
            first = int(self._bounds[number])
            at = self._within(number)[positions[mine] - first] + first
            shard = np.searchsorted(self._ends, at, side="right")
            before = self._ends[shard - 1] * (shard > 0)
            out[mine] = self._begins[shard] + at - before
        return out

    def next_shards(self, position: int) -> list[int]:
        """The shards of the block that holds a position and of the `AHEAD` behind it, in the order of their use."""
        block = int(np.searchsorted(self._bounds, position, side="right")) - 1
        shards: list[int] = self._shards[self._edges[block] : self._edges[block:][: AHEAD + 2][-1]].tolist()
        return shards

    def _drawn(self, block: int) -> Ints:
        """The order of a block's rows, int64 `(rows,)`: as a table, which is drawn sooner than a `Permutation` of as
        many."""
        rows = int(self._bounds[block + 1] - self._bounds[block])
        salt = np.frombuffer(blake3(f"{self._key}/block {block}".encode()).digest(8), "<u8")
        return np.argsort(mix(np.arange(rows, dtype=np.uint64) ^ salt))  # no two are equal
