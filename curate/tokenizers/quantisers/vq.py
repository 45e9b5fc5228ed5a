"""VQ ids in plain numpy: the nearest row of a codebook (van den Oord et al. 2017, arXiv 1711.00937, equation 1).

    id = argmin over k of the sum over i of (z_i - c_ki)^2        the lowest id of those that are equally near

Latent and codebook are float32; their differences are taken, squared and summed in float64, so that an id depends on
its own latent only: float32 sums come out otherwise in a batch of another size, and on another machine. Networks
compute the distance in float32, as |z|^2 - 2 z.c + |c|^2, and so may choose another code where two are as near as
float32 can tell.

Cosine codebooks (ViT-VQGAN, Yu et al. 2021, arXiv 2110.04627; LlamaGen; 4M) are the same after `unit` of both sides:
between vectors of length 1 the nearest is the one of the largest cosine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import smallest_unsigned

_PAIRS = 1 << 22  # numbers held at once, about


def vq_ids(z: NDArray[np.float32], codebook: NDArray[np.float32], cosine: bool = False) -> NDArray[Any]:
    """Latents, float32 `(..., d)`, to ids `(...)` of the smallest unsigned dtype that holds them.

    Args:
        codebook: float32 `(codes, d)`.
        cosine: scale both to length 1 first.

    Raises:
        ValueError: wrong dtype or shape, or values that are not finite or too large for their squares to be.
    """
    for name, array, ndim in (("latents", z, z.ndim), ("a codebook", codebook, 2)):
        if array.dtype != np.float32 or array.ndim != ndim or array.ndim == 0 or not np.isfinite(array).all():
            raise ValueError(f"expected {name} of finite float32, got {array.dtype} {array.shape}")
    if not len(codebook) or z.shape[-1] != codebook.shape[1]:
        raise ValueError(f"latents {z.shape} do not fit a codebook {codebook.shape}")
    if cosine:
        z, codebook = unit(z), unit(codebook)
    rows = np.ascontiguousarray(z.reshape(-1, z.shape[-1]))
    out = np.empty(len(rows), smallest_unsigned(len(codebook)))
    step = max(1, _PAIRS // len(codebook))
    for start in range(0, len(rows), step):
        out[start : start + step] = _nearest(rows[start : start + step], codebook)
    return out.reshape(z.shape[:-1])


def vq_vectors(ids: NDArray[Any], codebook: NDArray[np.float32], cosine: bool = False) -> NDArray[np.float32]:
    """Ids `(...)` to vectors, float32 `(..., d)`: the rows of the codebook, scaled to length 1 where `cosine`."""
    if ids.dtype.kind not in "ui" or (ids.size and (int(ids.min()) < 0 or int(ids.max()) >= len(codebook))):
        raise ValueError(f"expected integer ids with 0 <= id < {len(codebook)}, got {ids.dtype}")
    vectors: NDArray[np.float32] = (unit(codebook) if cosine else codebook)[ids]
    return vectors


def unit(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors `(..., d)` scaled to length 1, float32; one shorter than 1e-6 is divided by that, and so stays short."""
    wide = x.astype(np.float64)
    length = np.sqrt(np.square(wide).sum(-1, keepdims=True))
    scaled: NDArray[np.float32] = (wide / np.maximum(length, 1e-6)).astype(np.float32)
    return scaled


def _nearest(z: NDArray[np.float32], codebook: NDArray[np.float32]) -> NDArray[np.int64]:
    """A matrix product finds the codes that may be nearest; exact distances decide between those.

    A float32 inner product errs by at most d roundings of |z| |c| (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1), so the nearest code is among those whose product-distance is within twice that of the
    least. Around the codebook's mean the lengths, and with them the doubtful codes, are fewest.
    """
    centre = codebook.mean(0)
    moved, book = z - centre, codebook - centre
    squares = np.square(book).sum(-1)
    near = squares - 2 * (moved @ book.T)
    scale = np.square(moved).sum(-1) + squares.max()
    if not np.isfinite(near).all() or not np.isfinite(scale).all():
        raise ValueError("latents or codebook are too large: their squares are beyond float32")
    slack = 2 * (z.shape[1] + 8) * np.finfo(np.float32).eps * scale
    row, code = np.nonzero(near <= (near.min(-1) + slack)[:, None])
    distance = np.empty(len(row))
    step = max(1, _PAIRS // z.shape[1])
    for start in range(0, len(row), step):
        some = slice(start, start + step)
        distance[some] = np.square(z[row[some]].astype(np.float64) - codebook[code[some]]).sum(-1)
    order = np.lexsort((code, distance, row))  # by row, then distance, then id
    chosen: NDArray[np.int64] = code[order[np.searchsorted(row, np.arange(len(z)))]]
    return chosen
