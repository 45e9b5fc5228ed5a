"""Labelers of the transformers library: any model that its Auto classes load, from a local folder or a hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import locate
from curate.schema.errors import CurateError, first_line
from curate.schema.ids import digest
from curate.tokenizers.labels.base import Boxes, DepthMap, LabelBox, SegmentationMap, check_pictures


class _TransformersModel:
    """A model and its image processor; pictures pass one by one, in fp32.

    Args:
        source: local folder or hub id with safetensors weights; no code of the repository is run.

    Raises:
        CurateError: it cannot be loaded as such a model.
    """

    def __init__(self, auto: str, source: str, device: str = "cpu") -> None:
        ensure_torchvision()
        import transformers

        files = locate(source, ["*.safetensors"])
        folder = str(files[0].parent if Path(source).expanduser().is_dir() else source)
        try:
            auto_processor: Any = transformers.AutoImageProcessor
            self.processor: Any = auto_processor.from_pretrained(folder)
            net: Any = getattr(transformers, auto).from_pretrained(folder, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise CurateError(
                f"{source} cannot be loaded as {auto}: {first_line(error)}",
                "give a folder or hub id of such a model, with config.json, preprocessor_config.json and safetensors",
            ) from error
        self.digest = digest("".join(digest(path.read_bytes()) for path in files).encode())
        self.net = net.float().eval().requires_grad_(False).to(device)
        self._device = device

    def classes(self) -> tuple[str, ...]:
        """Names of the model's classes in order of id."""
        told = {int(i): str(name) for i, name in self.net.config.id2label.items()}
        return tuple(told.get(i, f"class {i}") for i in range(max(told) + 1))

    def __call__(self, picture: NDArray[np.uint8]) -> Any:
        given = self.processor(images=picture, return_tensors="pt", input_data_format="channels_last").to(self._device)
        with torch.inference_mode(), torch.autocast(torch.device(self._device).type, enabled=False):
            return self.net(**given)


class TransformersDepth:
    """Depth (`AutoModelForDepthEstimation`: DPT, Depth Anything, ...), at the picture's size.

    Args:
        source: local folder or hub id.
        direction: which way the model's values grow: `inverse` towards the camera (DPT, MiDaS), `distance` for metric
            models.
    """

    name = "transformers-depth"

    def __init__(self, source: str, direction: Literal["distance", "inverse"] = "inverse", device: str = "cpu") -> None:
        if direction not in ("distance", "inverse"):
            raise ValueError(f"direction is distance or inverse, not {direction!r}")
        self._model = _TransformersModel("AutoModelForDepthEstimation", source, device)
        self._direction, self.digest = direction, self._model.digest

    def __call__(self, pictures: NDArray[np.uint8]) -> list[DepthMap]:
        check_pictures(pictures)
        return [self._one(p) for p in pictures]

    def _one(self, picture: NDArray[np.uint8]) -> DepthMap:
        found = self._model(picture).predicted_depth
        sized = torch.nn.functional.interpolate(found[:, None].float(), picture.shape[:2], mode="bicubic")
        return DepthMap(np.asarray(sized[0, 0].cpu().numpy(), np.float32), self._direction)


class TransformersSegmentation:
    """Semantic segmentation (Mask2Former, SegFormer, ...) at the picture's size; 4M's is Mask2Former Swin-B on COCO.

    Args:
        source: local folder or hub id of a model of at most 256 classes.
    """

    name = "transformers-segmentation"

    def __init__(self, source: str, device: str = "cpu") -> None:
        universal = _model_type(source) in ("mask2former", "maskformer", "oneformer", "eomt")
        auto = "AutoModelForUniversalSegmentation" if universal else "AutoModelForSemanticSegmentation"
        self._model = _TransformersModel(auto, source, device)
        self._names, self.digest = self._model.classes(), self._model.digest
        if len(self._names) > 256:
            raise CurateError(f"{source} has {len(self._names)} classes", "a segmentation map holds at most 256")

    def __call__(self, pictures: NDArray[np.uint8]) -> list[SegmentationMap]:
        check_pictures(pictures)
        return [self._one(p) for p in pictures]

    def _one(self, picture: NDArray[np.uint8]) -> SegmentationMap:
        out = self._model(picture)
        (found,) = self._model.processor.post_process_semantic_segmentation(out, target_sizes=[picture.shape[:2]])
        return SegmentationMap(found.cpu().numpy().astype(np.uint8), self._names)


class TransformersBoxes:
    """Object detection (`AutoModelForObjectDetection`: DETR, RT-DETR, YOLOS, ...), best first.

    Args:
        source: local folder or hub id.
        score: things below it are left out; 0.6 as in 4M.
        names: classes that are kept; None: all.
    """

    name = "transformers-boxes"

    def __init__(self, source: str, score: float = 0.6, names: list[str] | None = None, device: str = "cpu") -> None:
        if not 0 <= score <= 1:
            raise ValueError(f"expected a score in [0, 1], got {score}")
        self._model = _TransformersModel("AutoModelForObjectDetection", source, device)
        self._classes, self.digest = self._model.classes(), self._model.digest
        if unknown := sorted(set(names or ()) - set(self._classes)):
            raise ValueError(f"{source} has no classes {', '.join(unknown)}")
        self._score, self._names = score, names

    def __call__(self, pictures: NDArray[np.uint8]) -> list[Boxes]:
        check_pictures(pictures)
        return [Boxes(self._one(p)) for p in pictures]

    def _one(self, picture: NDArray[np.uint8]) -> tuple[LabelBox, ...]:
        out = self._model(picture)
        # A target size of 1 x 1 gives shares of width and height.
        (found,) = self._model.processor.post_process_object_detection(
            out, threshold=self._score, target_sizes=[(1, 1)]
        )
        scores = found["scores"].cpu().numpy()
        boxes = np.clip(found["boxes"].cpu().numpy(), 0, 1).astype(np.float64)
        labels = found["labels"].cpu().numpy()
        rows = []
        for i in np.argsort(-scores, kind="stable"):
            x0, y0, x1, y1 = boxes[i].tolist()
            rows.append(LabelBox(x0, y0, x1, y1, self._classes[int(labels[i])], float(scores[i])))
        return tuple(box for box in rows if self._names is None or box.name in self._names)


def _model_type(source: str) -> str:
    ensure_torchvision()
    import transformers

    try:
        return str(transformers.AutoConfig.from_pretrained(str(Path(source).expanduser())).model_type)
    except (OSError, ValueError) as error:
        raise CurateError(
            f"{source} holds no model that transformers knows: {first_line(error)}",
            "give a local folder or a hub id",
        ) from error
