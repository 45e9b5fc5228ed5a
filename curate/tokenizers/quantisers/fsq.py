"""FSQ ids in plain numpy: what an id means, written so that it can be read without torch.

Finite scalar quantisation (Mentzer et al. 2023, arXiv 2309.15505) rounds each latent channel to one of L levels. For
a channel value z, with h = (L - 1)(1 + 1e-3)/2, o = 1/2 for even L else 0, and s = artanh(o/h):

    n = round(tanh(z + s) h - o)        rounded half to even, -floor(L/2) <= n < L - floor(L/2)
    digit = n + floor(L/2)              0 <= digit < L
    id = sum over i of digit_i * prod(L_0 .. L_{i-1})      little-endian mixed radix
    code = n / floor(L/2)               what the decoder is fed

This is what `vector_quantize_pytorch.FSQ` computes (the tests hold the two equal) and what Cosmos tokenizers store.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import smallest_unsigned
from curate.schema.errors import CurateError

EXACT = 1 << 24
"""`vector_quantize_pytorch` adds the digits of an id up in float32, which holds whole numbers up to here."""


def fsq_vocabulary(levels: Sequence[int]) -> int:
    """The product of the levels.

    Raises:
        CurateError: a level is below 3, or the product is above `EXACT`.
    """
    vocabulary = prod(levels)
    if not levels or min(levels) < 3 or vocabulary > EXACT:
        raise CurateError(
            f"levels {list(levels)} cannot be: each is 3 or more, and their product at most {EXACT}",
            "beyond it the library's arithmetic in fp32 gives wrong ids",
        )
    return vocabulary


def fsq_ids(z: NDArray[np.float32], levels: Sequence[int]) -> NDArray[Any]:
    """Latents, float32 `(..., len(levels))`, to ids `(...)` of the smallest unsigned dtype that holds them.

    Float32 is asked for, not converted to: rounding a latent to bfloat16 first flips about 0.5 % of the ids.
    """
    count, _ = _radix(levels)
    if z.dtype != np.float32 or z.ndim == 0 or z.shape[-1] != count.size or not np.isfinite(z).all():
        raise ValueError(f"expected finite float32 (..., {count.size}), got {z.dtype} {z.shape}")
    half: NDArray[np.float32] = (count - 1).astype(np.float32) * np.float32(1 + 1e-3) / np.float32(2)
    offset = (1 - count % 2).astype(np.float32) / np.float32(2)
    shift: NDArray[np.float32] = np.arctanh(offset / half)
    steps = np.rint(np.tanh(z + shift) * half - offset).astype(np.int64)
    return _pack(steps + count // 2, levels)


def fsq_codes(ids: NDArray[Any], levels: Sequence[int]) -> NDArray[np.float32]:
    """Ids `(...)` to codes, float32 `(..., len(levels))` in [-1, 1]."""
    count, basis = _radix(levels)
    if ids.dtype.kind not in "ui" or (ids.size and (int(ids.min()) < 0 or int(ids.max()) >= int(count.prod()))):
        raise ValueError(f"expected integer ids with 0 <= id < {int(count.prod())}, got {ids.dtype}")
    digits = ids.astype(np.int64)[..., None] // basis % count
    return ((digits - count // 2) / (count // 2)).astype(np.float32)


def _radix(levels: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Levels and the value of one step of each digit: for [8, 8, 8, 5, 5, 5] that is 1, 8, 64, 512, 2560, 12800."""
    # From 1001 levels on, the 1e-3 above would round past the last level; 2 levels never reach both of them evenly.
    if not levels or not all(3 <= level <= 1000 for level in levels):
        raise ValueError(f"expected levels between 3 and 1000, got {list(levels)}")
    count = np.asarray(levels, np.int64)
    return count, np.concatenate([[1], count[:-1]]).cumprod()


def _pack(digits: NDArray[np.int64], levels: Sequence[int]) -> NDArray[Any]:
    count, basis = _radix(levels)
    ids: NDArray[Any] = (digits * basis).sum(-1).astype(smallest_unsigned(int(count.prod())))
    return ids
