"""The order of an epoch: a keyed pseudo-random permutation of [0, n), computed index by index without a table.

A Feistel network is a bijection of [0, 2^b) whatever its round function (Luby and Rackoff 1988); values that leave
[0, n) are sent through again until they come back ("cycle walking", Black and Rogaway 2002), fewer than twice on
average since 2^b < 2n. So the order of a billion samples costs no memory, and any position of it can be asked for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from curate.decide.keys import mix_in_place

_ROUNDS = 8


class Permutation:
    """A permutation of [0, n), pseudo-random in `key`.

    Args:
        n: size, 0 <= n < 2^62.
        key: any text; equal keys give equal permutations on any machine.
    """

    def __init__(self, n: int, key: str) -> None:
        if not 0 <= n < 1 << 62:
            raise ValueError(f"a permutation of {n}")
        self.n = n
        bits = max(2, (n - 1).bit_length())
        self._low = np.uint64(bits // 2)
        self._low_mask = np.uint64((1 << (bits // 2)) - 1)
        self._high_mask = np.uint64((1 << (bits - bits // 2)) - 1)
        self._keys = np.frombuffer(blake3(key.encode()).digest(length=8 * _ROUNDS), dtype="<u8").astype(np.uint64)

    def __call__(self, index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where each index goes: int64, each in [0, n), to int64 of the same shape.

        Raises:
            IndexError: an index outside [0, n).
        """
        index = np.asarray(index, np.int64)
        if index.size and (int(index.min()) < 0 or int(index.max()) >= self.n):
            raise IndexError(f"indices {index.min()} to {index.max()} of a permutation of {self.n}")
        out = self._walk(index.astype(np.uint64))
        outside = np.flatnonzero(out >= self.n)
        while len(outside):
            out[outside] = self._walk(out[outside])
            outside = outside[out[outside] >= self.n]
        return out.astype(np.int64)

    def _walk(self, x: NDArray[Any]) -> NDArray[Any]:
        high, low = x >> self._low, x & self._low_mask
        mixed, shifted = np.empty_like(x), np.empty_like(x)
        for number, key in enumerate(self._keys):
            half, other, mask = (high, low, self._low_mask) if number % 2 else (low, high, self._high_mask)
            np.bitwise_xor(half, key, out=mixed)
            mix_in_place(mixed, shifted)
            mixed &= mask
            other ^= mixed
        high <<= self._low
        high |= low
        return high
