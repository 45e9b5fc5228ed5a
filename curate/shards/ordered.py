"""A part's rows in the order of its epochs."""

from __future__ import annotations

from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from curate.shards.epoch import Blocks, Order, Shuffle, order_of
from curate.shards.memory import Ints
from curate.shards.parts import Part, Rowed
from curate.shards.rows import Rows

R = TypeVar("R", bound=Rowed, covariant=True)


class Ordered(Generic[R]):
    """An opened part.

    Args:
        part: what it is of.
        rows: what it was opened as.
        shuffle, seed: what the order of an epoch is.

    Attributes:
        rows: by the number at which they are stored.
    """

    def __init__(self, part: Part, rows: R, shuffle: Shuffle, seed: int) -> None:
        self.rows = rows
        self._part, self._shuffle, self._seed = part, shuffle, seed
        self._orders = lru_cache(2)(self._order)

    def index(self, epoch: int, positions: Ints) -> Ints:
        """The stored rows at some positions of an epoch; shards that come after them begin to be fetched, where they
        lie in a bucket and the order is one of blocks.

        Args:
            positions: the last one is the farthest.
        """
        order = self._orders(epoch)
        if isinstance(order, Blocks) and len(positions):
            self.rows.fetch(order.next_shards(int(positions[-1])))
        return order(positions)

    def take(self, index: Ints, skip: bool) -> tuple[Rows, NDArray[np.bool_]]:
        """Stored rows, and which they are of those asked for.

        Args:
            skip: True to leave out those of shards that cannot be read.

        Raises:
            CurateError: such a shard, where they are not left out.
        """
        fits = self.rows.readable(index) if skip else np.ones(len(index), np.bool_)
        return self.rows.take(index[fits] if skip else index), fits

    def _order(self, epoch: int) -> Order:
        part = self._part
        return order_of(self._shuffle, part.shard_rows, f"{self._seed}/{epoch}/{part.split}")
