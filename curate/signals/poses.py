"""Where the joints of a person are: MoveNet Lightning (Google 2021), quantised, through LiteRT."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.signals.base import Batch
from curate.signals.labels import LabelOptions, label_field, middle, number
from curate.signals.model_signals import WeightsSignal

SIDE = 192
COCO_POINTS = (
    *("nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder"),
    *("left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip"),
    *("left_knee", "right_knee", "left_ankle", "right_ankle"),
)
"""The 17 key-points of COCO (Lin et al. 2014), in its order; left is the person's."""


class PosesOptions(LabelOptions):
    """Options of `poses`.

    Attributes:
        weights: `movenet_single_pose_lightning_ptq.tflite`: uint8 (1, 192, 192, 3) to (1, 1, 17, 3) of y, x, score.
        score: a person whose mean score is below it is left out.
    """

    weights: str
    score: float = Field(0.2, ge=0, le=1)


class Poses(WeightsSignal):
    """The 17 key-points of COCO of the most prominent person.

    The frame is padded with black to a square, centred, and resized to 192 (area or bilinear).
    """

    name = "poses"
    kind = "points"
    classes = COCO_POINTS
    gives = (
        label_field("poses", "points", "Key-points of the person in the middle frame with their scores."),
        number("poses_count", "count", None, "How many people were found."),
        number("poses_score", "score", 1, "Mean score of the person's key-points; null where there is none."),
    )
    Options = PosesOptions
    options: PosesOptions

    def load(self) -> None:
        from curate.models.litert import LiteRTModel

        self._net = LiteRTModel(self.options.weights)
        self._net.expect((1, SIDE, SIDE, 3), np.uint8, (1, 1, len(COCO_POINTS), 3))

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        import cv2

        image = middle(frames)
        height, width = image.shape[:2]
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        square = np.zeros((side, side, 3), np.uint8)
        square[top : top + height, left : left + width] = image
        how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
        y, x, score = self._net(cv2.resize(square, (SIDE, SIDE), interpolation=how)[None])[0, 0].T
        mean = float(np.clip(score, 0, 1).mean())
        if score.mean() < self.options.score:
            return {"poses": [], "poses_count": 0, "poses_score": None}
        points = np.clip(np.stack([(x * side - left) / width, (y * side - top) / height, score], axis=-1), 0, 1)
        person = [
            {"name": name, "x": float(px), "y": float(py), "score": float(s)}
            for name, (px, py, s) in zip(COCO_POINTS, points.astype(np.float32), strict=True)
        ]
        return {"poses": [person], "poses_count": 1, "poses_score": mean}
