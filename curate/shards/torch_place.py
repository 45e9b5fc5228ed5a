"""The place of a stream whose items a torch DataLoader's workers make. Imported only where torch is."""

from __future__ import annotations

import warnings
from typing import Any

from torch.utils.data import get_worker_info

from curate.schema.errors import CurateError
from curate.shards.place import Place
from curate.shards.turns import Iteration, Turns


class TorchPlace(Place):
    """`Place` in memory that workers share: each time a loader begins, it is the next epoch."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._turns = Turns(self._epoch, self._index)
        self._count = 0
        self._iteration: Iteration | None = None

    @property
    def epoch(self) -> int:
        """The epoch that the next item is of."""
        last = self._turns.last
        return super().epoch if last is None or last.whole else last.epoch

    def _worker(self) -> tuple[int, int]:
        info = get_worker_info()
        return (0, 1) if info is None else (info.id, info.num_workers)

    def _next(self) -> tuple[int, int]:
        return self._turns.next

    def _begun(self, items: int | None) -> tuple[int, int]:
        last = self._turns.last
        if last is None:
            return super()._begun(items)
        if items is None and not last.whole:
            raise CurateError(
                f"the workers of a DataLoader are in the middle of epoch {last.epoch}, and make items ahead",
                "say how many were taken since the epoch was begun: state(items=...)",
            )
        # no item of an epoch that is whole: it is the next one that was begun
        return (last.epoch, last.index) if items or not last.whole else self._next()

    def _begin(self) -> tuple[int, int]:
        info = get_worker_info()
        if info is None:
            self._turns.move(*self._turns.next)
            return super()._begin()
        self._count += 1
        self._iteration, broken_off = self._turns.begin(info.id, info.num_workers, info.seed - info.id, self._count)
        if broken_off:
            warnings.warn(
                f"the last epoch of this stream was broken off, and with workers epoch {self._iteration.epoch} begins "
                "now; to go on where you stopped, call resume(state(items=...)) before",
                stacklevel=2,
            )
        return self._iteration.epoch, self._iteration.index

    def _end(self, epoch: int) -> None:
        if self._iteration is None:
            super()._end(epoch)
        else:
            self._turns.end(self._iteration, self._worker()[0])

    def _go(self, epoch: int, index: int) -> None:
        super()._go(epoch, index)
        self._turns.move(epoch, index)

    def _place(self, epoch: int, index: int) -> None:
        if self._iteration is None:  # in a worker the place is the loader's, not this one's
            self._turns.step(epoch, index)
