"""Gathering from Arrow buffers where they lie, many files at a time, without a loop over files, batches or rows.

All of a process's memory is one array here, and an index is an address. That is what numpy lacks to gather from a
thousand mapped files in one call, and why every address is checked against its buffer before it is read.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_BASE = 64
"""The address of index 0: not null, and a multiple of the size of every number."""
_BYTES = 1 << 48
"""What a process is given on x86-64 and ARM; more only if it asks for that."""
_LONGEST = 1 << 13
"""Bytes of the longest run that is copied at once: numpy wants its product with `_BYTES` below 2^63."""


class Memory:
    """All of memory as numbers of one type; only what lies in a buffer that somebody holds may be read.

    The array itself never leaves this class: to print it would end the process.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        every: Any = (ctypes.c_uint8 * _BYTES).from_address(_BASE)  # numpy's types do not know ctypes' arrays
        self._array: NDArray[Any] = np.frombuffer(every, dtype)

    def __repr__(self) -> str:
        return f"Memory({self.dtype})"

    def index_of(self, address: int) -> int:
        """Where an address is.

        Raises:
            ValueError: the address is not a multiple of the type's size.
        """
        if address % self.dtype.itemsize:
            raise ValueError(f"a buffer of {self.dtype} at an odd address")
        return (address - _BASE) // self.dtype.itemsize

    def at(self, index: Ints) -> NDArray[Any]:
        """The numbers there, copied: `(n,)`."""
        picked: NDArray[Any] = self._array[index]
        return picked

    def runs(self, starts: Ints, wide: int) -> NDArray[np.void]:
        """As many neighbours from each start on, copied: `(n,)` items of `wide` numbers."""
        items = np.dtype((np.void, wide * self.dtype.itemsize))
        count, stride = len(self._array) - wide + 1, (self.dtype.itemsize,)
        return np.ndarray((count,), items, self._array.data, 0, stride)[starts]


@cache
def memory(dtype: np.dtype[Any]) -> Memory:
    """Memory as numbers of that type; one object a type."""
    return Memory(dtype)


def bits_at(addresses: Ints, bits: Ints) -> NDArray[np.bool_]:
    """The bits of Arrow's validity bitmaps: bool `(n,)`; True where there is no bitmap.

    Args:
        addresses: `index_of` bytes, one a bit; negative for no bitmap.
        bits: which bit from there on.
    """
    out = np.ones(len(bits), np.bool_)
    some = np.flatnonzero(addresses >= 0)
    if len(some):
        held = memory(np.dtype(np.uint8)).at(addresses[some] + (bits[some] >> 3))
        out[some] = (held >> (bits[some] & 7).astype(np.uint8)) & 1
    return out


def copy_runs(source: Memory, starts: Ints, lengths: Ints, offsets: Ints) -> NDArray[Any]:
    """Runs of numbers, one after the other.

    Runs of one length are copied whole. Others are copied by the powers of two in their lengths, so that the calls into
    numpy grow with the logarithm of the longest run, not with the number of runs.

    Args:
        source: where the numbers are.
        starts, lengths: `(runs,)`, indices of it.
        offsets: `(runs + 1,)`, the sums of lengths: where each run goes.

    Returns:
        `(sum of lengths,)` of its dtype, writable.
    """
    dtype = source.dtype
    if not len(lengths) or not offsets[-1]:
        return np.empty(0, dtype)
    longest = _LONGEST // dtype.itemsize
    if lengths.max() > longest:
        starts, lengths, offsets = _pieces(starts, lengths, longest)
    wide = int(lengths[0])
    if (lengths == wide).all():
        return source.runs(starts, wide).view(dtype)
    out = np.empty(int(offsets[-1]), dtype)
    for power in range(int(lengths.max()).bit_length()):
        size = 1 << power
        runs = np.flatnonzero(lengths & size)
        if len(runs):
            done = lengths[runs] >> (power + 1) << (power + 1)  # the larger powers come first
            _windows(out, size)[offsets[runs] + done] = source.runs(starts[runs] + done, size)
    return out


def _windows(array: NDArray[Any], wide: int) -> NDArray[np.void]:
    """Every `wide` neighbours of an array as one item, overlapping: `(n - wide + 1,)`."""
    size = array.dtype.itemsize
    return np.ndarray((len(array) - wide + 1,), np.dtype((np.void, wide * size)), array.data, 0, (size,))


def _pieces(starts: Ints, lengths: Ints, longest: int) -> tuple[Ints, Ints, Ints]:
    """The same runs as more of them, none longer than `longest`; what `copy_runs` makes of them is the same."""
    count = np.maximum(1, -(-lengths // longest))
    first = np.cumsum(count) - count
    done = (np.arange(int(count.sum())) - np.repeat(first, count)) * longest
    pieces = np.minimum(longest, np.repeat(lengths, count) - done)
    return np.repeat(starts, count) + done, pieces, np.concatenate(([0], np.cumsum(pieces)))
