"""What each pixel of an image shows: semantic segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.named import weights_of
from curate.models.passes import Passes
from curate.schema.errors import CurateError
from curate.schema.fields import Resources, RunsOn
from curate.signals import base
from curate.signals.labels import NOTHING, MapOptions, label_field, number, packed
from curate.signals.model_signals import SeenSignal

SIDE = 513
PASCAL_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""PASCAL VOC 2012 (Everingham et al.), in its order."""


class ClassesOptions(MapOptions):
    """Options of `classes`.

    Attributes:
        source: local folder or hub id of a transformers model, or the file `deeplabv3_mnv2_pascal_quant.tflite`.
    """

    source: str


class Classes(SeenSignal):
    """Semantic segmentation at the frame's size, of at most 256 classes, by one of two sorts of model.

    Of transformers (Mask2Former, SegFormer, ...; 4M's is Mask2Former Swin-B on COCO). Or DeepLab v3 (Chen et al. 2017,
    arXiv 1706.05587) on MobileNet v2, through LiteRT, on the CPU: uint8 (1, 513, 513, 3) to the 21 classes of PASCAL
    VOC (1, 513, 513); a frame is resized to that (bilinear; its shape is not kept), the map back by nearest neighbour.
    """

    name = "classes"
    kind = "classes"
    gives = (
        label_field("classes", "classes", "Class of each pixel of each frame, uint8 (N, H, W), 255 for none."),
        number("classes_count", "count", 256, "How many classes all frames show."),
    )
    Options = ClassesOptions
    options: ClassesOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        if self._is_deeplab:
            self.cost = Resources(cpus=1, model=True)
            self.on = RunsOn()

    def load(self) -> None:
        from curate.models.image_model import model_type
        from curate.models.litert import LiteRTModel

        source = self.options.source
        if self._is_deeplab:
            self._net = LiteRTModel(source)
            self._net.expect((1, SIDE, SIDE, 3), np.uint8, (1, SIDE, SIDE))
            self.classes = PASCAL_CLASSES
            self._passes = Passes(self.name, self.on)
            return
        universal = model_type(source) in ("mask2former", "maskformer", "oneformer", "eomt")
        self.auto = f"AutoModelFor{'Universal' if universal else 'Semantic'}Segmentation"
        self._reads = ("class_queries_logits", "masks_queries_logits") if universal else ("logits",)
        super().load()
        self.classes = self._model.classes
        if len(self.classes) > NOTHING + 1:
            raise CurateError(f"{source} has {len(self.classes)} classes", "a segmentation map holds at most 256")

    def version(self) -> str:
        return f"1+{weights_of(self.options.source)}" if self._is_deeplab else super().version()

    def label(self, frames: NDArray[np.uint8], found: Sequence[Any]) -> dict[str, Any]:
        classes = np.stack(found)
        # 255 is a class of a model that has 256
        count = len(set(np.unique(classes).tolist()) & set(range(len(self.classes))))
        return {"classes": packed(classes), "classes_count": count}

    @property
    def _is_deeplab(self) -> bool:
        return self.options.source.endswith(".tflite")

    def _deeplab(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        import cv2

        height, width = frame.shape[:2]
        small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        found = self._net(small[None])[0].astype(np.uint8)
        return np.asarray(cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)

    def seen(self, images: Sequence[NDArray[np.uint8]]) -> Sequence[Any]:
        if self._is_deeplab:
            return [self._deeplab(image) for image in images]
        said, errors = self._model(images, self._reads)
        sizes = [image.shape[:2] for image in images]
        maps = self._model.processor.post_process_semantic_segmentation(said, target_sizes=sizes)
        return [error or found.cpu().numpy().astype(np.uint8) for found, error in zip(maps, errors, strict=True)]
