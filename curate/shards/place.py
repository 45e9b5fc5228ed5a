"""Where an iteration stands: an epoch, and positions of it that were given out. Two integers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any


class Place:
    """The place of a stream that is iterated in this process. `TorchPlace` knows of a DataLoader's workers too."""

    def __init__(self, epoch: int) -> None:
        self._epoch, self._index = epoch, 0
        self._started = (epoch, 0)  # where the last iteration began
        self._here = 0  # items of this process's share of it that are given
        self._done = 0  # those that were given before, in a process that it is gone on with

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of this epoch. What comes after is the next epoch."""
        raise NotImplementedError

    @abstractmethod
    def state(self, items: int | None = None) -> dict[str, int]:
        """Where this stream stands, as a few integers.

        Args:
            items: how many items were taken since it was last begun; None where this object counts them itself.
        """

    @abstractmethod
    def resume(self, state: Mapping[str, int]) -> None:
        """Go to where `state` was taken."""

    @property
    def epoch(self) -> int:
        """The epoch that the next item is of."""
        return self._next()[0]

    def _next(self) -> tuple[int, int]:
        """(epoch, index) of the next item."""
        return self._epoch, self._index

    def _begun(self, items: int | None) -> tuple[int, int]:
        """Where the items that `state` is told of were counted from."""
        return self._next() if items is None else self._started

    def _begin(self) -> tuple[int, int]:
        """Where an iteration begins; called in the process that iterates."""
        self._started = self._next()
        return self._started

    def _end(self, epoch: int) -> None:
        """An iteration has given all of its epoch."""
        self._place(epoch + 1, 0)
        self._started = self._next()

    def _go(self, epoch: int, index: int) -> None:
        """Begin there next."""
        self._place(epoch, index)
        self._started = self._next()

    def _place(self, epoch: int, index: int) -> None:
        self._epoch, self._index = epoch, index

    def _given(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item as it is given out."""
        return item

    def _worker(self) -> tuple[int, int]:
        """(worker, workers) that share this rank's items."""
        return 0, 1
