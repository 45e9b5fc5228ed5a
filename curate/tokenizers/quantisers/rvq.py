"""RVQ ids in plain numpy: each level quantises what the levels before it left.

Residual vector quantisation (SoundStream, Zeghidour et al. 2021, arXiv 2107.03312, algorithm 1):

    r_0 = z;    id_k = the nearest row of codebook k to r_k, as in `vq`;    r_{k+1} = r_k - c_k[id_k]
    vector = sum over k of c_k[id_k]          the first levels alone give a coarser vector

That is greedy. With `width` above 1 the search keeps so many of the best partial sums at each level instead of one, and
of the last level the best: the ids mean the same, and their vector is nearer. Codebooks are float32
`(levels, codes, d)`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import smallest_unsigned
from curate.tokenizers.quantisers.vq import vq_vectors


def rvq_ids(z: NDArray[np.float32], codebooks: NDArray[np.float32], width: int = 1) -> NDArray[Any]:
    """Latents, finite float32 `(..., d)`, to ids `(..., levels)` of the smallest unsigned dtype that holds them.

    Distances are float64, residuals float32. Of equally near sums the one of the better parent is kept, then the
    lowest id. This is the meaning, not the fast way: `beam.residual_search` is that.

    Args:
        width: partial sums kept; 1 is the greedy search.
    """
    if z.dtype != np.float32 or z.ndim == 0 or not np.isfinite(z).all():
        raise ValueError(f"expected finite float32 (..., d), got {z.dtype} {z.shape}")
    if codebooks.dtype != np.float32 or codebooks.ndim != 3 or codebooks.shape[2] != z.shape[-1] or width < 1:
        raise ValueError(f"latents {z.shape} do not fit codebooks {codebooks.dtype} {codebooks.shape}, width {width}")
    levels, codes, d = codebooks.shape
    out = np.empty((z.size // d, levels), smallest_unsigned(codes))
    for row, latent in enumerate(z.reshape(-1, d)):
        residuals, ids = latent[None], np.zeros((1, 0), np.int64)
        for level, book in enumerate(codebooks):
            left: NDArray[np.float32] = residuals[:, None] - book
            order = np.argsort(np.square(left.astype(np.float64)).sum(-1).ravel(), kind="stable")
            best = order[: 1 if level + 1 == levels else width]
            ids = np.concatenate([ids[best // codes], (best % codes)[:, None]], axis=1)
            residuals = left.reshape(-1, d)[best]
        out[row] = ids[0]
    return out.reshape(*z.shape[:-1], levels)


def rvq_vectors(ids: NDArray[Any], codebooks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ids `(..., k)`, of the first `k` levels, to vectors, float32 `(..., d)`: summed in float32, level 0 first."""
    if ids.ndim == 0 or not 1 <= ids.shape[-1] <= len(codebooks):
        raise ValueError(f"expected ids of 1 to {len(codebooks)} levels, got {ids.shape}")
    total = vq_vectors(ids[..., 0], codebooks[0])
    for level in range(1, ids.shape[-1]):
        total = total + vq_vectors(ids[..., level], codebooks[level])
    return total
