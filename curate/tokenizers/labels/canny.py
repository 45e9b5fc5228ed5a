"""Edges after Canny (IEEE PAMI 8(6), 1986), as OpenCV computes them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.schema.ids import key_of
from curate.tokenizers.labels.base import EdgeMap, check_pictures


class Canny:
    """Edges of the RGB picture: at each pixel the channel with the steepest gradient counts.

    Args:
        low, high: hysteresis thresholds on |dx| + |dy| of 3x3 Sobel derivatives, 0 to 2040: from `high` on a pixel is
            an edge, from `low` on where it touches one. 100 and 200 by default. No blur goes before it.
    """

    name = "canny"

    def __init__(self, low: float = 100, high: float = 200) -> None:
        if not 0 <= low <= high <= 2040:
            raise ValueError(f"expected 0 <= low <= high <= 2040, got {low} and {high}")
        self.low, self.high = low, high
        self.digest = key_of(["canny", 1, low, high])

    def __call__(self, pictures: NDArray[np.uint8]) -> list[EdgeMap]:
        check_pictures(pictures)
        return [EdgeMap(self._edges(np.ascontiguousarray(p))) for p in pictures]

    def _edges(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.asarray(cv2.Canny(picture, self.low, self.high, apertureSize=3, L2gradient=False), np.uint8)
