"""The token stream as a torch data set. Imported only where torch is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import from_numpy
from torch.utils.data import IterableDataset, get_worker_info

from curate.schema.errors import CurateError
from curate.shards.rows import Ragged
from curate.shards.token_stream import TokenStream
from curate.shards.turns import Iteration, Turns


class TorchTokenStream(TokenStream, IterableDataset[Any]):
    """`TokenStream` that a `torch.utils.data.DataLoader` takes; its workers share a rank's items in turn."""

    def __init__(self, *args: Any, tensors: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self._tensors = tensors
        self._turns = Turns(self._epoch, self._index)
        self._count = 0
        self._iteration: Iteration | None = None

    @property
    def epoch(self) -> int:
        last = self._turns.last
        return super().epoch if last is None or last.whole else last.epoch

    def resume(self, state: Mapping[str, int]) -> None:
        super().resume(state)
        self._turns.move(*self._turns.next)

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

    def _given(self, item: dict[str, Any]) -> dict[str, Any]:
        return {key: as_tensor(value) for key, value in item.items()} if self._tensors else item

    def _place(self, epoch: int, index: int) -> None:
        if self._iteration is None:  # in a worker the place is the loader's, not this one's
            self._turns.step(epoch, index)


def as_tensor(value: Any) -> Any:
    """Numbers in numpy as a tensor of the same memory and type, those of a `Ragged` too; anything else as it is."""
    if isinstance(value, Ragged):
        values, offsets, present = (from_numpy(a) for a in (value.values, value.offsets, value.present))
        return Ragged(values, offsets, present, value.varies)
    return from_numpy(value) if isinstance(value, np.ndarray) and value.dtype.kind in "buif" else value
