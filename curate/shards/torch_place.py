"""The place of a stream whose items a torch DataLoader's workers make. Imported only where torch is."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch import from_numpy
from torch.utils.data import get_worker_info

from curate.schema.errors import CurateError
from curate.shards.place import Place
from curate.shards.rows import Ragged
from curate.shards.turns import Iteration, Turns


class TorchPlace(Place):
    """`Place` in memory that workers share: each time a loader begins, it is the next epoch.

    `state_dict` and `load_state_dict` are what torchdata's `StatefulDataLoader` asks of each worker's copy, and of the
    stream itself where there are no workers.

    Args:
        tensors: True to give tensors in place of numpy arrays.
    """

    def __init__(self, *args: Any, tensors: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tensors = tensors
        self._turns = Turns(self._epoch, self._index)
        self._count = 0
        self._iteration: Iteration | None = None
        self._resumed: Mapping[str, int] | None = None
        self._fresh = True

    def __iter__(self) -> Iterator[dict[str, Any]]:
        self._fresh = True  # till its first item is asked for
        return super().__iter__()

    def state_dict(self) -> dict[str, int]:
        """In a worker, where its own share of an iteration stands; elsewhere `state`."""
        if get_worker_info() is None:
            return self.state()
        if self._fresh and self._resumed is not None:
            return dict(self._resumed)
        if self._fresh or self._iteration is None:  # others of its loader may have begun
            last = self._turns.last
            epoch, index = self._turns.next if last is None or last.whole else (last.epoch, last.index)
            return {"epoch": epoch, "index": index, "given": 0}
        epoch, index = self._iteration.epoch, self._iteration.index
        return {"epoch": epoch, "index": index, "given": self._here}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go to where `state_dict` was taken, in a worker of the same number or where there are none."""
        if get_worker_info() is None:
            self.resume(state)
        else:
            self._resumed = state

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
        self._fresh = False
        at, self._resumed = self._resumed, None
        self._here = self._done = 0 if at is None else at["given"]
        self._iteration, broken_off = self._turns.begin(
            *(info.id, info.num_workers, info.seed - info.id, self._count),
            at=None if at is None else (at["epoch"], at["index"]),
        )
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

    def _given(self, item: dict[str, Any]) -> dict[str, Any]:
        return {key: as_tensor(value) for key, value in item.items()} if self._tensors else item


def as_tensor(value: Any) -> Any:
    """Numbers in numpy as a tensor of the same memory and type, those of a `Ragged` too; anything else as it is."""
    if isinstance(value, Ragged):
        values, offsets, present = (as_tensor(a) for a in (value.values, value.offsets, value.present))
        return Ragged(values, offsets, present, value.varies)
    return from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "buif" else value
