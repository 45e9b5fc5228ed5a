"""Text in pictures: how much of the frame it covers, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.models.package_files import fingerprint
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal, map_samples

_MODEL = ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", "rapidocr-onnxruntime")


class Ocr(Signal):
    """PP-OCRv4 through rapidocr-onnxruntime, on at most two frames of 640 px.

    Only lines that were read with a confidence of 0.5 or more count. Latin and Chinese script.
    """

    name = "ocr"
    needs = (Frames(size=640, fps=0.25, max_frames=2, crop=False),)
    gives = (
        SignalField(
            "text_area",
            pa.float32(),
            "fraction",
            (0, 1),
            ("image", "video"),
            "Share of the frame inside text boxes (PP-OCRv4), the largest over frames.",
        ),
        SignalField(
            "ocr_text",
            pa.string(),
            kinds=("image", "video"),
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

    def __call__(self, batch: Batch) -> list[Result]:
        views = batch.views[self.needs[0]]

        def one(i: int) -> dict[str, Any]:
            frames = views[i]
            if frames is None:
                return {"text_area": None, "ocr_text": None}
            area, lines = 0.0, []
            for frame in frames:
                boxes, texts = self._read(frame)
                area = max(area, union_area(boxes) / (frame.shape[0] * frame.shape[1]))
                lines += texts
            unique = list(dict.fromkeys(" ".join(line.split()) for line in lines))
            return {"text_area": min(area, 1.0), "ocr_text": "\n".join(line for line in unique if line)}

        return map_samples("annotate:ocr", batch, one)

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
