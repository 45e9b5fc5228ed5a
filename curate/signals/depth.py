"""How far away things are."""

from __future__ import annotations

from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from curate.models.named import weights_of
from curate.models.package_files import package_version
from curate.schema.fields import Resources
from curate.signals.base import Batch
from curate.signals.labels import LabelSignal, MapOptions, label_field, number, packed


class DepthOptions(MapOptions):
    """Options of `depth`.

    Attributes:
        source: local folder or hub id.
        direction: which way the model's values grow: `inverse` towards the camera (DPT, MiDaS), `distance` away from it
            (metric models), whose negative is stored.
    """

    source: str
    direction: Literal["distance", "inverse"] = "inverse"


class Depth(LabelSignal):
    """Depth (`AutoModelForDepthEstimation`: DPT, Depth Anything, ...) by transformers, at the frame's size, in fp32."""

    name = "depth"
    kind = "depth"
    gives = (
        label_field("depth", "depth", "Depth of each frame, float32 (N, H, W), growing towards the camera."),
        number("depth_range", "the model's unit", None, "Largest less smallest depth over all frames."),
    )
    cost = Resources(cpus=1, gpus=0.25, model=True)
    Options = DepthOptions

    def load(self) -> None:
        from curate.models.image_model import ImageModel

        self._model = ImageModel("AutoModelForDepthEstimation", cast(DepthOptions, self.options).source)

    def version(self) -> str:
        return f"1+transformers-{package_version('transformers')}+{weights_of(cast(DepthOptions, self.options).source)}"

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        depth = np.stack([self._one(np.ascontiguousarray(frame)) for frame in frames])
        if not np.isfinite(depth).all():
            raise ValueError("the model gave a depth that is not finite")
        if cast(DepthOptions, self.options).direction == "distance":
            depth = -depth
        return {"depth": packed(depth), "depth_range": float(np.ptp(depth))}

    def _one(self, frame: NDArray[np.uint8]) -> NDArray[np.float32]:
        import torch

        found = self._model(frame).predicted_depth
        sized = torch.nn.functional.interpolate(found[:, None].float(), frame.shape[:2], mode="bicubic")
        return np.asarray(sized[0, 0].cpu().numpy(), np.float32)
