"""What each pixel of an image shows: semantic segmentation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.named import weights_of
from curate.schema.errors import CurateError
from curate.signals.base import Batch
from curate.signals.labels import NOTHING, MapOptions, label_field, number, packed
from curate.signals.model_signals import TransformersSignal

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


class Classes(TransformersSignal):
    """Semantic segmentation at the frame's size, of at most 256 classes, by one of two sorts of model.

    Of transformers (Mask2Former, SegFormer, ...; 4M's is Mask2Former Swin-B on COCO), in fp32. Or DeepLab v3 (Chen et
    al. 2017, arXiv 1706.05587) on MobileNet v2, through LiteRT: uint8 (1, 513, 513, 3) to the 21 classes of PASCAL VOC
    (1, 513, 513); a frame is resized to that (bilinear; its shape is not kept), the map back by nearest neighbour.
    """

    name = "classes"
    kind = "classes"
    gives = (
        label_field("classes", "classes", "Class of each pixel of each frame, uint8 (N, H, W), 255 for none."),
        number("classes_count", "count", 256, "How many classes all frames show."),
    )
    Options = ClassesOptions
    options: ClassesOptions

    def load(self) -> None:
        from curate.models.image_model import model_type
        from curate.models.litert import LiteRTModel

        source = self.options.source
        if self._is_deeplab:
            self._net = LiteRTModel(source)
            self._net.expect((1, SIDE, SIDE, 3), np.uint8, (1, SIDE, SIDE))
            self.classes = PASCAL_CLASSES
            return
        universal = model_type(source) in ("mask2former", "maskformer", "oneformer", "eomt")
        self.auto = f"AutoModelFor{'Universal' if universal else 'Semantic'}Segmentation"
        super().load()
        self.classes = self._model.classes
        if len(self.classes) > NOTHING + 1:
            raise CurateError(f"{source} has {len(self.classes)} classes", "a segmentation map holds at most 256")

    def version(self) -> str:
        return f"1+{weights_of(self.options.source)}" if self._is_deeplab else super().version()

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        one = self._deeplab if self._is_deeplab else self._transformers
        classes = np.stack([one(np.ascontiguousarray(frame)) for frame in frames])
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

    def _transformers(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        (found,) = self._model.processor.post_process_semantic_segmentation(
            self._model(frame), target_sizes=[frame.shape[:2]]
        )
        return np.asarray(found.cpu().numpy().astype(np.uint8))
