"""Where the edges of an image are."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from curate.signals.base import Batch
from curate.signals.labels import LabelSignal, MapOptions, label_field, number, packed


class EdgesOptions(MapOptions):
    """Options of `edges`.

    Attributes:
        low, high: hysteresis thresholds on |dx| + |dy| of 3x3 Sobel derivatives: from `high` on a pixel is an edge,
            from `low` on where it touches one.
    """

    low: float = Field(100, ge=0)
    high: float = Field(200, le=2040)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g} and high is {self.high:g}: expected low <= high")
        return self


class Edges(LabelSignal):
    """Canny's edges (IEEE PAMI 8(6), 1986) as OpenCV computes them, of the RGB image: at each pixel the channel with
    the steepest gradient counts. No blur goes before it."""

    name = "edges"
    kind = "edges"
    gives = (
        label_field("edges", "edges", "Canny edges of each frame, bool (N, H, W)."),
        number("edges_share", "fraction", 1, "Share of the pixels of all frames that are on an edge."),
    )
    Options = EdgesOptions
    options: EdgesOptions

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        import cv2

        use = self.options
        found = [
            cv2.Canny(np.ascontiguousarray(f), use.low, use.high, apertureSize=3, L2gradient=False) > 0 for f in frames
        ]
        edges = np.stack(found)
        return {"edges": packed(edges), "edges_share": float(edges.mean())}
