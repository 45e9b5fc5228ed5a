"""LFQ ids in plain numpy: signs as bits, and in which order.

Lookup-free quantisation (MAGVIT-v2, Yu et al. 2023, arXiv 2310.05737, section 3.1) keeps the sign of each latent
channel. With channels i = 0 .. b-1 and bit_i = 1 where z_i > 0, else 0:

    lsb: id = sum over i of bit_i * 2^i          channel 0 least significant: the paper, Open-MAGVIT2
    msb: id = sum over i of bit_i * 2^(b-1-i)    channel 0 most significant: `vector_quantize_pytorch.LFQ`
    code_i = 2 bit_i - 1                         what the decoder is fed; zero counts as negative

The same latents have other ids in the other order, and nothing in an id tells which it was: the codec card says it.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import smallest_unsigned

BitOrder = Literal["lsb", "msb"]


def lfq_ids(z: NDArray[np.float32], bit_order: BitOrder) -> NDArray[Any]:
    """Latents, float32 `(..., bits)`, to ids `(...)` of the smallest unsigned dtype that holds `2^bits`."""
    if z.dtype != np.float32 or z.ndim == 0 or not np.isfinite(z).all():
        raise ValueError(f"expected finite float32 (..., bits), got {z.dtype} {z.shape}")
    weights = _weights(z.shape[-1], bit_order)
    ids: NDArray[Any] = ((z > 0) * weights).sum(-1, dtype=np.int64).astype(smallest_unsigned(1 << weights.size))
    return ids


def lfq_codes(ids: NDArray[Any], bits: int, bit_order: BitOrder) -> NDArray[np.float32]:
    """Ids `(...)` to codes, float32 `(..., bits)`, each -1 or +1."""
    weights = _weights(bits, bit_order)
    return np.where(_checked(ids, bits)[..., None] & weights, np.float32(1), np.float32(-1))


def lfq_reorder(ids: NDArray[Any], bits: int) -> NDArray[Any]:
    """Ids of one bit order to those of the other, in the smallest unsigned dtype; twice is where it began."""
    back: NDArray[Any] = lfq_ids(lfq_codes(ids, bits, "lsb"), "msb")
    return back


def _weights(bits: int, bit_order: BitOrder) -> NDArray[np.int64]:
    if not 1 <= bits <= 32:
        raise ValueError(f"expected 1 to 32 bits, got {bits}")
    if bit_order not in ("lsb", "msb"):
        raise ValueError(f"bit_order must be lsb or msb, got {bit_order!r}")
    rising = np.int64(1) << np.arange(bits, dtype=np.int64)
    return rising if bit_order == "lsb" else rising[::-1]


def _checked(ids: NDArray[Any], bits: int) -> NDArray[np.int64]:
    if ids.dtype.kind not in "ui" or (ids.size and (int(ids.min()) < 0 or int(ids.max()) >= 1 << bits)):
        raise ValueError(f"expected integer ids with 0 <= id < {1 << bits}, got {ids.dtype}")
    return ids.astype(np.int64)
