"""Text in images: how much of the frame it covers, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.models.package_files import fingerprint
from curate.schema.fields import Resources
from curate.signals.base import VISUAL, Float, Sample, Signal, Text

_MODEL = ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", "rapidocr-onnxruntime")


class Ocr(Signal):
    """PP-OCRv4 through rapidocr-onnxruntime, on at most two frames of 640 px.

    Only lines that were read with a confidence of 0.5 or more count. Latin and Chinese script.
    """

    name = "ocr"
    needs = (Frames(size=640, fps=0.25, max_frames=2, crop=False),)
    gives = (
        Float(
            "text_area",
            "fraction",
            0,
            1,
            kinds=VISUAL,
            about="Share of the frame inside text boxes (PP-OCRv4), the largest over frames.",
        ),
        Text(
            "ocr_text",
            kinds=VISUAL,
            about="The text that was read, in reading order, a line each, no line twice; empty where there is none.",
        ),
    )
    cost = Resources(cpus=1, model=True)

    def load(self) -> None:
        from rapidocr_onnxruntime import RapidOCR

        threads = int(self.cost.cpus)
        self._engine: Any = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1)

    def version(self) -> str:
        return f"1+{fingerprint(*_MODEL)}"

    def one(self, sample: Sample) -> tuple[float, str]:
        area, lines = 0.0, []
        for frame in sample.view:
            boxes, texts = self._read(frame)
            area = max(area, union_area(boxes) / (frame.shape[0] * frame.shape[1]))
            lines += texts
        unique = dict.fromkeys(" ".join(line.split()) for line in lines)
        return min(area, 1.0), "\n".join(line for line in unique if line)

    def _read(self, frame: NDArray[Any]) -> tuple[list[NDArray[np.float64]], list[str]]:
        """Boxes `(4, 2)` of x, y in pixels, and their texts, top to bottom, left to right."""
        found, _ = self._engine(np.ascontiguousarray(frame[..., ::-1]))  # the engine takes BGR
        return [np.asarray(box, np.float64) for box, _, _ in found or []], [str(text) for _, text, _ in found or []]


def union_area(boxes: list[NDArray[np.float64]]) -> float:
    """Area of the union of quadrangles in square pixels; overlaps count once.

    Args:
        boxes: each float `(4, 2)` of x, y.
    """
    from shapely import MultiPoint, union_all

    # The detector's boxes are rotated rectangles, hence convex; the hull also mends corners clipped to the frame.
    return float(union_all([MultiPoint(box).convex_hull for box in boxes]).area)
