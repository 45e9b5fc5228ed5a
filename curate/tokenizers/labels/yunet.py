"""Faces by YuNet (Wu, Peng and Yu, Machine Intelligence Research 20, 2023), through ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.models.onnx_session import cpu_session
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.labels.base import Boxes, LabelBox, check_pictures

STRIDES = (8, 16, 32)
_WANTED = [f"{head}_{stride}" for stride in STRIDES for head in ("cls", "obj", "bbox")]


class YuNet:
    """Boxes of faces, best first.

    The network is free of anchors: the cell in row r and column c of a grid of stride s says class and object scores,
    whose geometric mean is the score, and (dx, dy, dw, dh): a box of centre (s(c + dx), s(r + dy)) and sides
    (s exp dw, s exp dh). Pictures are padded with black at the right and the bottom to a multiple of 32.

    Args:
        weights: `yunet_n_dynamic.onnx` of libfacedetection: BGR float (1, 3, H, W) in [0, 255].
        score: faces below it are left out, in [0, 1].
        overlap: of two boxes whose intersection over union is above it, the better one stays.
        called: class name of the boxes; `person`, as the 80 names that `det` is written in have no face.
    """

    name = "yunet"

    def __init__(self, weights: str, score: float = 0.6, overlap: float = 0.3, called: str = "person") -> None:
        path = Path(weights).expanduser()
        if not path.is_file():
            raise CurateError(f"the weights {path} do not exist", "give the path of yunet_n_dynamic.onnx")
        if not (0 < score <= 1 and 0 <= overlap <= 1):
            raise ValueError(f"expected a score and an overlap in [0, 1], got {score} and {overlap}")
        self._net = cpu_session(path)
        given = {out.name for out in self._net.get_outputs()}
        if not given.issuperset(_WANTED):
            raise CurateError(f"{path.name} is no YuNet: it lacks {', '.join(sorted(set(_WANTED) - given))}")
        self._input = self._net.get_inputs()[0].name
        self._score, self._overlap, self._called = score, overlap, called
        self.digest = digest(path.read_bytes())

    def __call__(self, pictures: NDArray[np.uint8]) -> list[Boxes]:
        check_pictures(pictures)
        return [Boxes(self._faces(p)) for p in pictures]

    def _faces(self, picture: NDArray[np.uint8]) -> tuple[LabelBox, ...]:
        height, width = picture.shape[:2]
        high, wide = (-(-side // STRIDES[-1]) * STRIDES[-1] for side in (height, width))
        padded = np.zeros((1, 3, high, wide), np.float32)
        padded[0, :, :height, :width] = picture[..., ::-1].transpose(2, 0, 1)
        out = dict(zip(_WANTED, self._net.run(_WANTED, {self._input: padded}), strict=True))
        boxes, scores = [], []
        for s in STRIDES:
            rows, columns = (axis.reshape(-1) for axis in np.indices((high // s, wide // s)))
            dx, dy, dw, dh = out[f"bbox_{s}"][0].T
            x, y, w, h = s * (columns + dx), s * (rows + dy), s * np.exp(dw), s * np.exp(dh)
            boxes.append(np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1))
            scores.append(np.sqrt(np.clip(out[f"cls_{s}"][0, :, 0], 0, 1) * np.clip(out[f"obj_{s}"][0, :, 0], 0, 1)))
        every, each = np.concatenate(boxes), np.concatenate(scores)
        sure = each >= self._score
        every, each = every[sure], each[sure]
        kept = suppress(every, each, self._overlap)
        shares = np.clip(every[kept] / [width, height, width, height], 0, 1)
        found = zip(shares.tolist(), each[kept].tolist(), strict=True)
        return tuple(LabelBox(x0, y0, x1, y1, self._called, score) for (x0, y0, x1, y1), score in found)


def suppress(boxes: NDArray[np.floating], scores: NDArray[np.floating], overlap: float) -> list[int]:
    """Greedy non-maximum suppression: which boxes `(n, 4)` of x0, y0, x1, y1 stay, best first; ties in given order."""
    kept: list[int] = []
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for i in np.argsort(-scores, kind="stable").tolist():
        rivals = boxes[kept]
        sides = np.minimum(boxes[i, 2:], rivals[:, 2:]) - np.maximum(boxes[i, :2], rivals[:, :2])
        shared = np.clip(sides, 0, None).prod(-1)
        if not (shared > overlap * (area[i] + area[kept] - shared)).any():
            kept.append(i)
    return kept
