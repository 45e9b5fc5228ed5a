"""Where an iteration stands: an epoch, and positions of it that were given out. Two integers."""

from __future__ import annotations


class Place:
    """The place of a stream that is iterated in this process. `TorchPlace` knows of a DataLoader's workers too."""

    def __init__(self, epoch: int) -> None:
        self._epoch, self._index = epoch, 0
        self._started = (epoch, 0)  # where the last iteration began

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

    def _worker(self) -> tuple[int, int]:
        """(worker, workers) that share this rank's items."""
        return 0, 1
