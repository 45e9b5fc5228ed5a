"""How items pass a network: on a GPU in full batches of one shape, halved where memory ends; on a CPU one by one."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError, first_line
from curate.schema.fields import RunsOn

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Found = TypeVar("Found")

_NO_MEMORY = re.compile(
    r"CUDA (error: |failed with error )?out of memory|cudaErrorMemoryAllocation|Failed to allocate memory|"
    r"CU(BLAS|DNN)_STATUS_ALLOC_FAILED"
)
"""What libraries other than PyTorch say where a GPU's memory ends: ONNX Runtime, CTranslate2, cuBLAS, cuDNN."""


class DeviceMemoryError(RuntimeError):
    """One item alone needs more memory than the GPU has left.

    Attributes:
        attempts: passes that were tried with it, in ever smaller batches.
    """

    def __init__(self, said: str, attempts: int) -> None:
        super().__init__(
            f"it does not fit the GPU's memory, not even alone ({said}); under `compute` a larger share `gpus`, a "
            "smaller `dtype` or `device: cpu` may help"
        )
        self.attempts = attempts


class NotFiniteError(ValueError):
    """A network gave NaN or infinity."""

    def __init__(self, dtype: str) -> None:
        way_out = "" if dtype == "float32" else "; it may give numbers with `dtype: float32` under `compute`"
        super().__init__(f"the network gave NaN or infinity in {dtype}{way_out}")


def is_device_full(error: BaseException) -> bool:
    """True if an exception of PyTorch, ONNX Runtime or CTranslate2 says that a GPU's memory ended."""
    named = any(cls.__name__ == "OutOfMemoryError" for cls in type(error).__mro__)
    return named or (isinstance(error, Exception) and _NO_MEMORY.search(str(error)) is not None)


@contextmanager
def fitting(name: str, on: RunsOn) -> Iterator[None]:
    """A model is loaded inside.

    Raises:
        CurateError: the GPU's memory ended, or there is none that can be used.
    """
    try:
        yield
    except Exception as error:
        if on.device != "cpu" and not is_device_full(error) and "CUDA" in str(error):
            raise CurateError(
                f"{name} cannot be loaded onto the GPU: {first_line(error)[:200]}", "give it `compute: {device: cpu}`"
            ) from error
        if not is_device_full(error):
            raise
        raise CurateError(
            f"{name} does not fit the memory of the GPU in {on.dtype}: {first_line(error)[:200]}",
            "under `compute` give it a smaller `dtype`, a larger share `gpus`, or `device: cpu`",
        ) from error


def shape_of(item: Any) -> Hashable:
    """What tells arrays apart that cannot share a batch: shape and dtype."""
    return item.shape, item.dtype.str


def finite_rows(array: NDArray[Any], dtype: str) -> list[NDArray[Any] | Exception]:
    """The rows of what a network gave `(n, ...)`; a NotFiniteError in place of one that is not finite.

    Args:
        dtype: that it was computed in.
    """
    good = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    return [row if fine else NotFiniteError(dtype) for row, fine in zip(array, good, strict=True)]


def raised(found: Found | Exception) -> Found:
    """What a network gave for an item; raises it where it is an exception."""
    if isinstance(found, Exception):
        raise found
    return found


class Passes:
    """Passes of one network. A GPU's batch always has the same number of places, those behind the last item filled with
    copies of it: kernels choose their order of summation by shape, and so an item's last bits depend as little on its
    neighbours as the network allows. What shares a batch follows from the order of the items alone (law 6).

    Args:
        name: of the model, for the log.
        on: what it runs on; on a CPU a pass is of one item, whatever `batch` is.
        snug: True if a batch that is not full has as few places as a power of two allows: for items of many shapes, of
            which most batches would be padding.

    Attributes:
        size: items of one pass.
        halved: how often a batch did not fit the GPU's memory, and was halved.
    """

    def __init__(self, name: str, on: RunsOn, snug: bool = False) -> None:
        self.size = 1 if on.device == "cpu" else on.batch
        self.halved = 0
        self._name, self._snug = name, snug
        self._most: dict[Hashable, int] = {}

    def __call__(
        self,
        items: Sequence[Item],
        run: Callable[[list[Item]], Sequence[Found | Exception]],
        kind: Callable[[Item], Hashable] | None = shape_of,
    ) -> list[Found | Exception]:
        """What the network gives for each item, in order; an exception for one that it fails on, which takes no other
        along.

        Args:
            run: the network: items of one kind, to one result each. What it raises is tried again one by one.
            kind: items of different kinds share no batch; None: all may.

        Raises:
            CurateError: `run` raises one.
        """
        found: list[Found | Exception] = [RuntimeError("not computed")] * len(items)
        places: dict[Hashable, list[int]] = {}
        for place, item in enumerate(items):
            places.setdefault(None if kind is None else kind(item), []).append(place)
        for key, mine in places.items():
            for start in range(0, len(mine), self.size):
                some = mine[start : start + self.size]
                room = min(self.size, 1 << (len(some) - 1).bit_length()) if self._snug else self.size
                for place, one in zip(some, self._batch([items[i] for i in some], room, key, run), strict=True):
                    found[place] = one
        return found

    def _batch(
        self,
        items: list[Item],
        room: int,
        key: Hashable,
        run: Callable[[list[Item]], Sequence[Found | Exception]],
        attempt: int = 1,
    ) -> list[Found | Exception]:
        """Results of at most `room` items, in a batch of `room` places."""
        if room > self._most.get(key, room):  # its halves are what it would be cut into again
            return self._halves(items, room, key, run, attempt)
        try:
            return list(run([*items, *[items[-1]] * (room - len(items))])[: len(items)])
        except CurateError:
            raise
        except Exception as error:
            # without its traceback: its frames hold what the failed pass had on the GPU
            failed, full = error.with_traceback(None), is_device_full(error)
        if full:
            _give_back()
            if room == 1:
                return [DeviceMemoryError(first_line(failed)[:200], attempt)]
            self.halved += 1
            if key is not None:
                self._most[key] = room // 2
            log.warning(
                "%s: a batch of %d does not fit the GPU's memory and is halved, as were %d before",
                self._name, room, self.halved - 1,
            )  # fmt: skip
            return self._halves(items, room, key, run, attempt + 1)
        if len(items) == 1:
            return [failed]
        return [self._batch([item], room, key, run, attempt + 1)[0] for item in items]

    def _halves(
        self,
        items: list[Item],
        room: int,
        key: Hashable,
        run: Callable[[list[Item]], Sequence[Found | Exception]],
        attempt: int,
    ) -> list[Found | Exception]:
        half = room // 2
        parts = [items[i : i + half] for i in range(0, len(items), half)]
        return [one for part in parts for one in self._batch(part, half, key, run, attempt)]


def _give_back() -> None:
    """PyTorch gives memory that it holds in reserve back to the GPU, where a model has imported it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
