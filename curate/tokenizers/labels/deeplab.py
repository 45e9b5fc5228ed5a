"""Semantic segmentation by DeepLab v3 (Chen et al. 2017, arXiv 1706.05587) on MobileNet v2, through LiteRT."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.models.litert import LiteRTModel
from curate.tokenizers.labels.base import SegmentationMap, check_pictures

SIDE = 513
PASCAL_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""PASCAL VOC 2012 (Everingham et al.), in its order."""


class DeepLab:
    """The 21 classes of PASCAL VOC, at the size of the picture.

    The picture is resized to 513x513 (bilinear; its shape is not kept), the map back by nearest neighbour.

    Args:
        weights: `deeplabv3_mnv2_pascal_quant.tflite`: uint8 (1, 513, 513, 3) to class indices (1, 513, 513).
    """

    name = "deeplab"

    def __init__(self, weights: str) -> None:
        self._net = LiteRTModel(weights)
        self._net.expect((1, SIDE, SIDE, 3), np.uint8, (1, SIDE, SIDE))
        self.digest = self._net.digest

    def __call__(self, pictures: NDArray[np.uint8]) -> list[SegmentationMap]:
        check_pictures(pictures)
        return [SegmentationMap(self._classes(p), PASCAL_CLASSES) for p in pictures]

    def _classes(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        height, width = picture.shape[:2]
        small = cv2.resize(np.ascontiguousarray(picture), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        found = self._net(small[None])[0].astype(np.uint8)
        back: NDArray[np.uint8] = cv2.resize(found, (width, height), interpolation=cv2.INTER_NEAREST)
        return back
