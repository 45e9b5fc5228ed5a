"""Arrays that wait in memory or in a temporary file until it is known if they are needed."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Spilled:
    """Arrays that wait, to be looked at until they are dropped."""

    def __init__(self, buffer: SpillBuffer, arrays: list[NDArray[Any]], at: int, size: int) -> None:
        self._buffer, self._arrays, self._at, self._size = buffer, arrays, at, size

    def look(self) -> list[NDArray[Any]]:
        """The arrays, as they were."""
        if self._at < 0:
            return self._arrays
        out, at = [], self._at
        for like in self._arrays:
            array = np.empty(like.shape, like.dtype)
            self._buffer.read(array, at)
            at += array.nbytes
            out.append(array)
        return out

    def drop(self) -> None:
        """Free what they take."""
        self._buffer.free(self._at, self._size)
        self._arrays = []


class SpillBuffer:
    """A place for arrays: in memory first, then in a temporary file without a name, which is gone with its process.

    Args:
        memory_bytes, file_bytes: what they may take in each. Of the file it is used again once nothing lies in it.
    """

    def __init__(self, memory_bytes: int, file_bytes: int) -> None:
        self._memory_left, self._file_bytes = memory_bytes, file_bytes
        self._file: Any = None
        self._end = 0
        self._there = 0

    def put(self, arrays: Sequence[NDArray[Any]]) -> Spilled | None:
        """Take in arrays; None where there is no room for them."""
        size = sum(array.nbytes for array in arrays)
        if size <= self._memory_left:
            self._memory_left -= size
            return Spilled(self, list(arrays), -1, size)
        if self._end + size > self._file_bytes:
            return None
        at = self._end
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
            for array in arrays:
                self._write(np.ascontiguousarray(array))
        except OSError:  # the disk is full: as if there were no room
            self._end = at
            return None
        self._there += 1
        # of what lies in the file only the form is kept: an array that takes no memory
        return Spilled(self, [np.broadcast_to(np.empty((), a.dtype), a.shape) for a in arrays], at, size)

    def close(self) -> None:
        """Give the file back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, array: NDArray[Any], at: int) -> None:
        """Fill an array from the file."""
        view = array.reshape(-1).view(np.uint8).data
        while len(view):
            got = os.preadv(self._file.fileno(), [view], at)
            if not got:
                raise EOFError("the temporary file is shorter than what was written")
            view, at = view[got:], at + got

    def free(self, at: int, size: int) -> None:
        """What lay at `at` in the file, or in memory (-1), is needed no more."""
        if at < 0:
            self._memory_left += size
            return
        self._there -= 1
        if not self._there:
            self._end = 0

    def _write(self, array: NDArray[Any]) -> None:
        view = array.reshape(-1).view(np.uint8).data
        while len(view):
            written = os.pwrite(self._file.fileno(), view, self._end)
            view, self._end = view[written:], self._end + written
