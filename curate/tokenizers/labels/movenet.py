"""Key-points of one body by MoveNet Lightning (Google 2021), quantised, through LiteRT."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.models.litert import LiteRTModel
from curate.tokenizers.labels.base import KeyPoints, check_pictures

SIDE = 192
COCO_POINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
"""The 17 key-points of COCO (Lin et al. 2014), in its order; left is the person's."""


class MoveNet:
    """The 17 key-points of COCO of the most prominent person.

    The picture is padded with black to a square, centred, and resized to 192 (area or bilinear).

    Args:
        weights: `movenet_single_pose_lightning_ptq.tflite`: uint8 (1, 192, 192, 3) to (1, 1, 17, 3) of y, x, score.
        score: a person whose mean score is below it is left out.
    """

    name = "movenet"

    def __init__(self, weights: str, score: float = 0.2) -> None:
        self._net = LiteRTModel(weights)
        self._net.expect((1, SIDE, SIDE, 3), np.uint8, (1, 1, len(COCO_POINTS), 3))
        self.digest, self.score = self._net.digest, score

    def __call__(self, pictures: NDArray[np.uint8]) -> list[KeyPoints]:
        check_pictures(pictures)
        return [KeyPoints(self._people(p), COCO_POINTS) for p in pictures]

    def _people(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        height, width = picture.shape[:2]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + height, left : left + width] = picture
        how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
        y, x, score = self._net(cv2.resize(square, (SIDE, SIDE), interpolation=how)[None])[0, 0].T
        if score.mean() < self.score:
            return np.zeros((0, len(COCO_POINTS), 3), np.float32)
        points = np.stack([(x * side - left) / width, (y * side - top) / height, score], axis=-1)
        return np.asarray(np.clip(points, 0, 1), np.float32)[None]
