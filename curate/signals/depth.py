"""How far away things are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from curate.signals.labels import MapOptions, label_field, number, packed
from curate.signals.model_signals import SeenSignal


class DepthOptions(MapOptions):
    """Options of `depth`.

    Attributes:
        source: local folder or hub id.
        direction: which way the model's values grow: `inverse` towards the camera (DPT, MiDaS), `distance` away from it
            (metric models), whose negative is stored.
    """

    source: str
    direction: Literal["distance", "inverse"] = "inverse"


class Depth(SeenSignal):
    """Depth (`AutoModelForDepthEstimation`: DPT, Depth Anything, ...) by transformers, at the frame's size."""

    name = "depth"
    kind = "depth"
    gives = (
        label_field("depth", "depth", "Depth of each frame, float32 (N, H, W), growing towards the camera."),
        number("depth_range", "the model's unit", None, "Largest less smallest depth over all frames."),
    )
    auto = "AutoModelForDepthEstimation"
    Options = DepthOptions
    options: DepthOptions

    def label(self, frames: NDArray[np.uint8], found: Sequence[Any]) -> dict[str, Any]:
        depth = np.stack(found)
        if self.options.direction == "distance":
            depth = -depth
        return {"depth": packed(depth), "depth_range": float(np.ptp(depth))}

    def seen(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        import torch

        said, errors = self._model(images, ["predicted_depth"])
        found = said.predicted_depth[:, None]
        sized = torch.nn.functional.interpolate(found, images[0].shape[:2], mode="bicubic")[:, 0].cpu().numpy()
        return [error or np.asarray(depth, np.float32) for depth, error in zip(sized, errors, strict=True)]
