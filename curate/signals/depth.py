"""How far away things are."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curate.signals.base import Batch
from curate.signals.labels import MapOptions, label_field, number, packed
from curate.signals.model_signals import TransformersSignal


class DepthOptions(MapOptions):
    """Options of `depth`.

    Attributes:
        source: local folder or hub id.
        direction: which way the model's values grow: `inverse` towards the camera (DPT, MiDaS), `distance` away from it
            (metric models), whose negative is stored.
    """

    source: str
    direction: Literal["distance", "inverse"] = "inverse"


class Depth(TransformersSignal):
    """Depth (`AutoModelForDepthEstimation`: DPT, Depth Anything, ...) by transformers, at the frame's size, in fp32."""

    name = "depth"
    kind = "depth"
    gives = (
        label_field("depth", "depth", "Depth of each frame, float32 (N, H, W), growing towards the camera."),
        number("depth_range", "the model's unit", None, "Largest less smallest depth over all frames."),
    )
    auto = "AutoModelForDepthEstimation"
    Options = DepthOptions
    options: DepthOptions

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        depth = np.stack([self._one(np.ascontiguousarray(frame)) for frame in frames])
        if not np.isfinite(depth).all():
            raise ValueError("the model gave a depth that is not finite")
        if self.options.direction == "distance":
            depth = -depth
        return {"depth": packed(depth), "depth_range": float(np.ptp(depth))}

    def _one(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        found = self._model(frame).predicted_depth
        sized = torch.nn.functional.interpolate(found[:, None].float(), frame.shape[:2], mode="bicubic")
        return np.asarray(sized[0, 0].cpu().numpy(), np.float32)
