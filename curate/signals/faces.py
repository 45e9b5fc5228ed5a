"""Faces by YuNet (Wu, Peng and Yu, Machine Intelligence Research 20, 2023), through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.models.onnx_session import session_on
from curate.models.package_files import gpu_share
from curate.models.passes import NotFiniteError, fitting
from curate.schema.errors import CurateError
from curate.schema.fields import Resources
from curate.signals.base import Batch
from curate.signals.boxes import box, box_fields, box_values
from curate.signals.labels import BoxOptions, middle
from curate.signals.model_signals import WeightsSignal

STRIDES = (8, 16, 32)
_WANTED = [f"{head}_{stride}" for stride in STRIDES for head in ("cls", "obj", "bbox")]


class FacesOptions(BoxOptions):
    """Options of `faces`.

    Attributes:
        weights: `yunet_n_dynamic.onnx` of libfacedetection: BGR float (1, 3, H, W) in [0, 255].
        score: faces below it are left out.
        overlap: of two boxes whose intersection over union is above it, the better one stays.
        called: class name of the boxes; `person`, as the 80 names that 4M writes boxes with have no face.
    """

    weights: str
    score: float = Field(0.6, gt=0, le=1)
    overlap: float = Field(0.3, ge=0, le=1)
    called: str = "person"


class Faces(WeightsSignal):
    """YuNet, a network free of anchors: the cell in row r and column c of a grid of stride s says class and object
    scores, whose geometric mean is the score, and (dx, dy, dw, dh): a box of centre (s(c + dx), s(r + dy)) and sides
    (s exp dw, s exp dh). Images are padded with black at the right and the bottom to a multiple of 32, and pass one by
    one."""

    name = "faces"
    kind = "boxes"
    gives = box_fields("faces", "Faces")
    cost = Resources(cpus=1, gpus=gpu_share(0.1, "onnxruntime-gpu"), model=True)
    Options = FacesOptions
    options: FacesOptions

    def load(self) -> None:
        path = Path(self.options.weights).expanduser()
        if not path.is_file():
            raise CurateError(f"the weights {path} do not exist", "give the path of yunet_n_dynamic.onnx")
        with fitting(path.name, self.on):
            self._net = session_on(path, self.on.device)
        if lacking := sorted(set(_WANTED) - {out.name for out in self._net.get_outputs()}):
            raise CurateError(f"{path.name} is no YuNet: it lacks {', '.join(lacking)}")
        self._input = self._net.get_inputs()[0].name

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        return box_values("faces", self._faces(middle(frames), len(frames) // 2))

    def _faces(self, image: NDArray[np.uint8], frame: int) -> list[dict[str, Any]]:
        import cv2

        use = self.options
        height, width = image.shape[:2]
        high, wide = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in (height, width))
        padded = np.zeros((1, 3, high, wide), np.float32)
        padded[0, :, :height, :width] = image[..., ::-1].transpose(2, 0, 1)
        out = dict(zip(_WANTED, self._net.run(_WANTED, {self._input: padded}), strict=True))
        if not all(np.isfinite(one).all() for one in out.values()):
            raise NotFiniteError("float32")
        places, scores = [], []
        for s in STRIDES:
            rows, columns = (axis.reshape(-1) for axis in np.indices((high // s, wide // s)))
            dx, dy, dw, dh = out[f"bbox_{s}"][0].T
            x, y, w, h = s * (columns + dx), s * (rows + dy), s * np.exp(dw), s * np.exp(dh)
            places.append(np.stack([x - w / 2, y - h / 2, w, h], axis=-1))
            scores.append(np.sqrt(np.clip(out[f"cls_{s}"][0, :, 0], 0, 1) * np.clip(out[f"obj_{s}"][0, :, 0], 0, 1)))
        every, each = np.concatenate(places), np.concatenate(scores)
        sure = each >= use.score
        every, each = every[sure], each[sure]
        kept = [int(i) for i in cv2.dnn.NMSBoxes(every.tolist(), each.tolist(), 0.0, use.overlap)]
        every[:, 2:] += every[:, :2]
        shares = np.clip(every / [width, height, width, height], 0, 1)
        return [box(frame, shares[i], use.called, each[i]) for i in kept]
