"""Faces by YuNet (Wu, Peng and Yu, Machine Intelligence Research 2023), through OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.labels.base import Boxes, LabelBox, check_pictures


class YuNet:
    """Boxes of faces, best first.

    Args:
        weights: the ONNX file with dynamic height and width, of libfacedetection.
        score: faces below it are left out, in [0, 1].
        overlap: of two boxes whose intersection over union is above it, the better one stays.
        called: class name of the boxes; `person` where a closed vocabulary has no face.
    """

    name = "yunet"

    def __init__(self, weights: str, score: float = 0.6, overlap: float = 0.3, called: str = "face") -> None:
        path = Path(weights).expanduser()
        try:
            self.digest = digest(path.read_bytes())
        except OSError as error:
            raise CurateError(f"the weights {path} cannot be read: {error}", "give yunet_n_dynamic.onnx") from error
        try:
            self._net = cv2.FaceDetectorYN.create(str(path), "", (320, 320), score, overlap, 5000)
        except cv2.error as error:
            raise CurateError(f"{path.name} is not a YuNet that OpenCV reads: {error}") from error
        self.called = called

    def __call__(self, pictures: NDArray[np.uint8]) -> list[Boxes]:
        check_pictures(pictures)
        height, width = pictures.shape[1:3]
        self._net.setInputSize((width, height))
        return [Boxes(self._faces(p)) for p in pictures]

    def _faces(self, picture: NDArray[np.uint8]) -> tuple[LabelBox, ...]:
        height, width = picture.shape[:2]
        _, found = self._net.detect(np.ascontiguousarray(picture[..., ::-1]))  # OpenCV's order is BGR
        if found is None:
            return ()
        corners = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)
        shares = np.clip(corners / [width, height, width, height], 0, 1)
        rows = zip(shares.tolist(), found[:, -1].tolist(), strict=True)
        return tuple(LabelBox(*box, name=self.called, score=min(1.0, score)) for box, score in rows)
