"""Luma of sRGB images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_RED, _GREEN, _BLUE = np.float32(0.2126), np.float32(0.7152), np.float32(0.0722)


def luma(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Rec. ITU-R BT.709 luma Y' = 0.2126 R' + 0.7152 G' + 0.0722 B' of gamma-encoded values.

    Args:
        frames: uint8 `(..., 3)`.

    Returns:
        float32 `(...)`, 0 to 255. A sum of products, not a matrix product: BLAS may differ with its threads.
    """
    y: NDArray[np.float32] = frames[..., 0].astype(np.float32)
    y *= _RED
    for channel, weight in ((1, _GREEN), (2, _BLUE)):
        plane = frames[..., channel].astype(np.float32)
        plane *= weight
        y += plane
    return np.minimum(y, np.float32(255), out=y)
