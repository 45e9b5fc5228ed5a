"""Product quantisation in plain numpy, for the vectors of feature extractors (Jégou, Douze, Schmid 2011).

A vector of d values is cut into `groups` equal parts, first values first; each part is vector-quantised with a codebook
of its own (`vq`). 4M-21 (Bachmann et al. 2024, arXiv 2406.09406) stores a global feature as 16 such ids of 8192 codes;
its Memcodes learn the codebooks with a network around them, `fit_product` finds them by k-means. With one group it is
vector quantisation: dense features, one id a position.

Codebooks are float32 `(groups, codes, d / groups)`.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from curate.models.faiss_threads import one_faiss_thread
from curate.schema.codec import smallest_unsigned
from curate.schema.errors import CurateError
from curate.tokenizers.quantisers.vq import vq_ids, vq_vectors

_TENSOR = "codebooks"


def fit_product(
    features: NDArray[np.float32], groups: int, codes: int, seed: int, rounds: int = 20
) -> NDArray[np.float32]:
    """Codebooks by k-means of each part, float32 `(groups, codes, d / groups)`.

    The same features and seed give the same codebooks: FAISS runs on one thread. Every row is used, so a sample is the
    caller's to draw; some 40 rows a code are enough, and fewer than 10 overfit.

    Args:
        features: finite float32 `(n, d)` with `n >= codes`.
        rounds: of k-means.

    Raises:
        CurateError: fewer rows than codes.
        ValueError: the features are not such, or `d` is not a multiple of `groups`.
    """
    parts = _parts(features, groups)
    if features.ndim != 2:
        raise ValueError(f"expected features (n, d), got {features.shape}")
    if len(features) < codes:
        raise CurateError(
            f"{len(features)} vectors cannot make a codebook of {codes}",
            f"give at least {codes}, better 40 times as many, or ask for fewer codes",
        )
    books = np.empty((groups, codes, parts.shape[-1]), np.float32)
    with one_faiss_thread():
        for group in range(groups):
            kmeans = faiss.Kmeans(
                parts.shape[-1],
                codes,
                niter=rounds,
                seed=(seed + group) % (1 << 31),
                min_points_per_centroid=1,  # the default only prints a warning below 39
                max_points_per_centroid=len(features),  # all of them
            )
            kmeans.train(np.ascontiguousarray(parts[:, group]))
            books[group] = kmeans.centroids
    return books


def product_ids(x: NDArray[np.float32], codebooks: NDArray[np.float32]) -> NDArray[Any]:
    """Vectors, finite float32 `(..., d)`, to ids `(..., groups)` of the smallest unsigned dtype that holds them.

    A vector's ids do not depend on the others'.
    """
    parts = _parts(x, len(codebooks))
    ids = np.empty(parts.shape[:-1], smallest_unsigned(codebooks.shape[1]))
    for group, codebook in enumerate(codebooks):
        ids[..., group] = vq_ids(parts[..., group, :], codebook)
    return ids


def product_vectors(ids: NDArray[Any], codebooks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Ids `(..., groups)` to vectors, float32 `(..., d)`."""
    if ids.ndim == 0 or ids.shape[-1] != len(codebooks):
        raise ValueError(f"expected ids (..., {len(codebooks)}), got {ids.shape}")
    return np.concatenate([vq_vectors(ids[..., group], book) for group, book in enumerate(codebooks)], axis=-1)


def codebooks_to_bytes(codebooks: NDArray[np.float32]) -> bytes:
    """Codebooks as a safetensors file, the same bytes for the same codebooks."""
    return bytes(save({_TENSOR: np.ascontiguousarray(codebooks, np.float32)}))


def codebooks_from_bytes(raw: bytes) -> NDArray[np.float32]:
    """Codebooks of the bytes of such a file, whose digest the caller compared with the card's.

    Raises:
        CurateError: they are not such a file.
    """
    try:
        codebooks: NDArray[Any] = load(raw)[_TENSOR]
    except (SafetensorError, KeyError) as error:
        raise CurateError(f"these are not the codebooks of a product quantiser: {error}") from error
    if codebooks.dtype != np.float32 or codebooks.ndim != 3 or not codebooks.size:
        raise CurateError(f"codebooks are float32 (groups, codes, d), not {codebooks.dtype} {codebooks.shape}")
    return codebooks


def _parts(x: NDArray[np.float32], groups: int) -> NDArray[np.float32]:
    """`(..., d)` as `(..., groups, d / groups)`."""
    if x.dtype != np.float32 or x.ndim == 0 or not np.isfinite(x).all():
        raise ValueError(f"expected finite float32 (..., d), got {x.dtype} {x.shape}")
    if groups < 1 or not x.shape[-1] or x.shape[-1] % groups:
        raise ValueError(f"{x.shape[-1]} values cannot be cut into {groups} equal parts")
    return x.reshape(*x.shape[:-1], groups, x.shape[-1] // groups)
