"""Embeddings at unit length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unit_vector(vector: NDArray[Any]) -> NDArray[np.float32] | None:
    """The vector `(d,)` at unit length, float32, its length taken in float64; None where it has no direction."""
    length = float(np.sqrt((vector.astype(np.float64) ** 2).sum()))
    return (vector / length).astype(np.float32) if 0 < length < np.inf else None
