"""Memcodes in plain numpy: a codebook that is attended to (lucidrains' NWT-pytorch; 4M-21, arXiv 2406.09406).

A latent of d values is cut into `heads` equal parts, first values first. Each head has `codes` rows of width d / heads
and two square matrices of that width: rows times `to_k` are its keys, rows times `to_v` its values. The head's id is
the row whose key has the greatest inner product with the part; what stands for the id in the decoder is the row's
value. In training the row is drawn with Gumbel noise; ids are made without.

This is the specification that the net of `curate.tokenizers.codecs.fourm_memcodes` is tested against.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import smallest_unsigned


def memcodes_ids(z: NDArray[np.float32], codes: NDArray[np.float32], to_k: NDArray[np.float32]) -> NDArray[Any]:
    """Latents to ids `(..., heads)` of the smallest unsigned dtype that holds them; ties go to the lowest.

    Args:
        z: finite float32 `(..., heads * width)`.
        codes: float32 `(heads, codes, width)`.
        to_k: float32 `(heads, width, width)`; a row is multiplied from the left.

    Raises:
        ValueError: shapes or dtypes are not these, or a value is not finite.
    """
    heads, count, width = _shape(codes, to_k)
    if z.dtype != np.float32 or z.ndim == 0 or z.shape[-1] != heads * width or not np.isfinite(z).all():
        raise ValueError(f"expected finite float32 (..., {heads * width}), got {z.dtype} {z.shape}")
    # As attention does. It moves no maximum, but it rounds.
    scaled = z.reshape(*z.shape[:-1], heads, width) * np.float32(width**-0.5)
    ids = np.empty(scaled.shape[:-1], smallest_unsigned(count))
    for head, keys in enumerate(codes @ to_k):
        ids[..., head] = (scaled[..., head, :] @ keys.T).argmax(-1)
    return ids


def memcodes_vectors(ids: NDArray[Any], codes: NDArray[np.float32], to_v: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ids `(..., heads)` to what the decoder takes, float32 `(..., heads * width)`.

    Args:
        codes: float32 `(heads, codes, width)`.
        to_v: float32 `(heads, width, width)`.

    Raises:
        ValueError: shapes or dtypes are not these, or an id is out of range.
    """
    heads, count, _ = _shape(codes, to_v)
    if ids.dtype.kind not in "ui" or ids.ndim == 0 or ids.shape[-1] != heads:
        raise ValueError(f"expected ids (..., {heads}), got {ids.dtype} {ids.shape}")
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < count:
        raise ValueError(f"expected 0 <= id < {count}, got {ids.min()} .. {ids.max()}")
    return np.concatenate([values[ids[..., head]] for head, values in enumerate(codes @ to_v)], axis=-1)


def _shape(codes: NDArray[np.float32], matrix: NDArray[np.float32]) -> tuple[int, int, int]:
    """Heads, codes of each, width."""
    right = codes.dtype == matrix.dtype == np.float32 and codes.ndim == 3 and codes.size > 0
    if not right or matrix.shape != (codes.shape[0], codes.shape[2], codes.shape[2]):
        raise ValueError(
            f"expected float32 codes (heads, codes, width) and (heads, width, width), got {codes.dtype} {codes.shape} "
            f"and {matrix.dtype} {matrix.shape}"
        )
    heads, count, width = codes.shape
    return heads, count, width
