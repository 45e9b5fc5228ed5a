"""The best k codes of a position with their probabilities, instead of the best one alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import smallest_unsigned


def topk(scores: NDArray[np.floating], k: int, temperature: float = 1.0) -> tuple[NDArray[Any], NDArray[np.float16]]:
    """The k most probable of n codes under softmax(scores / temperature), as Ovis's visual tokens are mixtures of
    embeddings (Lu et al. 2024, arXiv 2405.20797, section 3.1).

    The softmax runs over all codes, in fp64, so probabilities of the k sum to 1 or less, never renormalised.

    Args:
        scores: finite, `(..., n)`: logits, similarities, or negative distances.

    Returns:
        ids `(..., k)` of the smallest unsigned dtype for n, most probable first, ties to the lower id; float16
        probabilities `(..., k)`.
    """
    if scores.ndim == 0 or not 1 <= k <= scores.shape[-1] or temperature <= 0 or not np.isfinite(scores).all():
        raise ValueError(f"expected finite scores (..., n), 1 <= k <= n and temperature > 0, got {scores.shape}, k {k}")
    raised = scores.astype(np.float64) / temperature
    odds = np.exp(raised - raised.max(-1, keepdims=True))
    odds /= odds.sum(-1, keepdims=True)
    # Ordered by score, not by probability: small probabilities can underflow to equal ones.
    ids = np.argsort(-scores.astype(np.float64), axis=-1, kind="stable")[..., :k]
    chosen = np.take_along_axis(odds, ids, -1).astype(np.float16)
    return ids.astype(smallest_unsigned(scores.shape[-1])), chosen
