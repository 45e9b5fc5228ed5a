"""Text in images: how much of the frame it covers, and what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.models.onnx_session import check_cuda, check_on_cuda
from curate.models.package_files import fingerprint, gpu_share
from curate.models.passes import fitting
from curate.schema.fields import Resources
from curate.signals.base import VISUAL, Float, Sample, Signal, Text

_MODEL = ("rapidocr_onnxruntime", "models/ch_PP-OCRv4_rec_infer.onnx", "rapidocr-onnxruntime")


class Ocr(Signal):
    """PP-OCRv4 through rapidocr-onnxruntime, on at most two frames of 640 px.

    Only lines that were read with a confidence of 0.5 or more count. Latin and Chinese script. Frames pass one by one;
    a batch is of the lines of one frame.
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
    # 6 lines are the package's own, on CPUs too
    cost = Resources(cpus=1, gpus=gpu_share(0.15, "onnxruntime-gpu"), batch=6, model=True)

    def load(self) -> None:
        """Load the three networks.

        Raises:
            CurateError: the device is a GPU that the installed ONNX Runtime cannot use.
        """
        from rapidocr_onnxruntime import RapidOCR

        lines = self.on.batch
        options: dict[str, Any] = {"rec_batch_num": lines, "cls_batch_num": lines}
        if self.on.device != "cpu":
            check_cuda()
            options |= {"det_use_cuda": True, "cls_use_cuda": True, "rec_use_cuda": True}
        threads = int(self.cost.cpus)
        with fitting(self.name, self.on):
            self._engine: Any = RapidOCR(intra_op_num_threads=threads, inter_op_num_threads=1, **options)
        if self.on.device != "cpu":
            for part in (self._engine.text_det.infer, self._engine.text_cls.infer, self._engine.text_rec.session):
                check_on_cuda(part.session)

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
