"""Instances by SAM: everything that it finds in an image, looked at from a few points."""

from __future__ import annotations

from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray
from pydantic import Field

from curate.models.named import LIBRARIES
from curate.models.passes import NotFiniteError
from curate.schema.fields import Resources
from curate.signals.base import Batch
from curate.signals.labels import LabelOptions, label_field, middle, number, packed
from curate.signals.model_signals import TransformersSignal


class MasksOptions(LabelOptions):
    """Options of `masks`.

    Attributes:
        source: local folder or hub id with safetensors weights; no code of the repository is run.
        grid: points a side of the grid that prompts it; 32 as in 4M.
        count: points to look from; 7 as in 4M.
        iou, stability: masks that SAM rates lower are left out (its own defaults, 0.88 and 0.95).
        smallest: masks whose box has a smaller share of the image's pixels are left out; 0.0005 as in 4M.
    """

    source: str
    size: int = Field(224, gt=0)
    grid: int = Field(32, ge=1)
    count: int = Field(7, ge=1)
    iou: float = 0.88
    stability: float = 0.95
    smallest: float = 0.0005


class Masks(TransformersSignal):
    """Segment Anything (Kirillov et al. 2023) by transformers' mask generation: SAM, SAM-HQ, SAM 2; 4M's is ViT-H.

    It is prompted with a grid of points, its masks are filtered and freed of duplicates, and those that contain each of
    `count` points are the label. 4M draws these points anew each time; here they follow from the frame's own pixels, so
    a sample's label is always the same. Masks at a point are in order of size, the largest first.

    Images pass one by one; a batch, on a CPU too, is of points that prompt the decoder.
    """

    name = "masks"
    kind = "instances"
    gives = (
        label_field("masks", "instances", "Some points of the middle frame, each with the masks that contain it."),
        number("masks_count", "count", None, "How many masks there are in the middle frame, at those points or not."),
    )
    auto = "AutoModelForMaskGeneration"
    cost = Resources(
        cpus=1, gpus=0.5, memory=LIBRARIES, batch=64, dtypes=("float32", "bfloat16", "float16"), model=True
    )
    Options = MasksOptions
    options: MasksOptions

    def load(self) -> None:
        super().load()
        import transformers

        make: Any = transformers.pipeline
        model = self._model
        self._find = make("mask-generation", model=model.net, image_processor=model.processor, device=self.on.device)
        model.net.register_forward_hook(self._check)

    def _check(self, net: Any, given: Any, said: Any) -> None:
        """Raises NotFiniteError for scores that are not finite, which would pass for images without masks."""
        if not bool(said.iou_scores.isfinite().all()):
            raise NotFiniteError(self.on.dtype)

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        import torch
        from PIL import Image

        from curate.models.batches import exact

        use, frame = self.options, middle(frames)
        options: dict[str, Any] = {
            "points_per_crop": use.grid,
            "points_per_batch": self.on.batch,
            "pred_iou_thresh": use.iou,
            "stability_score_thresh": use.stability,
        }
        with exact(torch.device(self.on.device), self.on.dtype):
            found = self._find(Image.fromarray(frame), **options)["masks"]
        large = [m for m in (np.asarray(m, np.bool_) for m in found) if box_share(m) >= use.smallest]
        masks = sorted(large, key=lambda m: (-int(m.sum()), m.tobytes()))
        nothing = np.zeros((0, *frame.shape[:2]), np.bool_)
        points = [
            {"x": x, "y": y, "masks": packed(np.stack(inside) if inside else nothing)}
            for x, y in points_of(frame, use.count)
            for inside in ([m for m in masks if m[y, x]],)
        ]
        return {"masks": points, "masks_count": len(masks)}


def box_share(mask: NDArray[np.bool_]) -> float:
    """Area of a mask's box by the image's, sides from first to last pixel: one that is a line has none, as in 4M."""
    spans = [np.flatnonzero(mask.any(axis)) for axis in (0, 1)]
    return float(np.prod([span[-1] - span[0] if len(span) else 0 for span in spans]) / mask.size)


def points_of(image: NDArray[np.uint8], count: int) -> tuple[tuple[int, int], ...]:
    """Points `(x, y)` of an image uint8 `(H, W, 3)`, uniform, always the same for the same pixels."""
    seed = np.frombuffer(blake3(image.tobytes()).digest(), np.uint32)
    drawn = np.random.default_rng(seed).random((count, 2))
    height, width = image.shape[:2]
    return tuple((int(x * width), int(y * height)) for x, y in drawn)
