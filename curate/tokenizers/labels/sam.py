"""Instances by SAM: everything that it finds in a picture, looked at from a few points."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from PIL import Image

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import locate
from curate.schema.errors import CurateError, first_line
from curate.schema.ids import digest
from curate.tokenizers.fourm.sam import POINTS
from curate.tokenizers.labels.base import Instances, check_pictures


class TransformersSAM:
    """Segment Anything (Kirillov et al. 2023) by transformers' mask generation: SAM, SAM-HQ, SAM 2; 4M's is ViT-H.

    It is prompted with a grid of points, its masks are filtered and freed of duplicates, and those that contain each of
    `count` points are the label. 4M draws these points anew each time; here they follow from the picture's own pixels,
    so a sample's label is always the same. Masks at a point are in order of size, the largest first.

    Args:
        source: local folder or hub id with safetensors weights; no code of the repository is run.
        grid: points a side of the grid that prompts it; 32 as in 4M.
        count: points to look from; 7 as in 4M.
        iou, stability: masks that SAM rates lower are left out (its own defaults, 0.88 and 0.95).
        smallest: masks whose box has a smaller share of the picture's pixels are left out; 0.0005 as in 4M.
    """

    name = "transformers-sam"

    def __init__(
        self,
        source: str,
        grid: int = 32,
        count: int = POINTS,
        iou: float = 0.88,
        stability: float = 0.95,
        smallest: float = 0.0005,
        device: str = "cpu",
    ) -> None:
        if grid < 1 or count < 1:
            raise ValueError(f"expected at least one point, got a grid of {grid} and {count} points")
        ensure_torchvision()
        import transformers

        files = locate(source, ["*.safetensors"])
        try:
            net: Any = transformers.AutoModelForMaskGeneration.from_pretrained(source, use_safetensors=True)
            auto_processor: Any = transformers.AutoImageProcessor
            processor = auto_processor.from_pretrained(source)
            make: Any = transformers.pipeline
            self._find = make("mask-generation", model=net.float().eval(), image_processor=processor, device=device)
        except (OSError, ValueError, RuntimeError) as error:
            raise CurateError(
                f"{source} cannot be loaded for mask generation: {first_line(error)}",
                "give a folder or hub id of SAM, with config.json, preprocessor_config.json and safetensors",
            ) from error
        self.digest = digest(
            repr([[digest(path.read_bytes()) for path in files], grid, count, iou, stability, smallest]).encode()
        )
        self._count, self._smallest = count, smallest
        self._options = {"points_per_crop": grid, "pred_iou_thresh": iou, "stability_score_thresh": stability}

    def __call__(self, pictures: NDArray[np.uint8]) -> list[Instances]:
        check_pictures(pictures)
        return [self._one(np.ascontiguousarray(p)) for p in pictures]

    def _one(self, picture: NDArray[np.uint8]) -> Instances:
        with torch.inference_mode():
            found = self._find(Image.fromarray(picture), **self._options)["masks"]
        large = [m for m in (np.asarray(m, np.bool_) for m in found) if _share(m) >= self._smallest]
        masks = sorted(large, key=lambda m: (-int(m.sum()), m.tobytes()))
        points = points_of(picture, self._count)
        return Instances(points, tuple(tuple(m for m in masks if m[y, x]) for x, y in points))


def _share(mask: NDArray[np.bool_]) -> float:
    """Area of a mask's box by the picture's, sides from first to last pixel: one that is a line has none, as in 4M."""
    spans = [np.flatnonzero(mask.any(axis)) for axis in (0, 1)]
    return float(np.prod([span[-1] - span[0] if len(span) else 0 for span in spans]) / mask.size)


def points_of(picture: NDArray[np.uint8], count: int) -> tuple[tuple[int, int], ...]:
    """Points `(x, y)` of a picture uint8 `(H, W, 3)`, uniform, always the same for the same pixels."""
    seed = np.frombuffer(blake3(picture.tobytes()).digest(), np.uint32)
    drawn = np.random.default_rng(seed).random((count, 2))
    height, width = picture.shape[:2]
    return tuple((int(x * width), int(y * height)) for x, y in drawn)
