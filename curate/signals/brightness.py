"""How bright a picture is, and how far its tones reach."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curate.media.requests import Frames
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal, map_samples
from curate.signals.luma import luma


class Brightness(Signal):
    """Mean and standard deviation of Rec. 709 luma, of gamma-encoded sRGB values.

    The standard deviation (RMS contrast, Peli 1990, without normalisation) is taken in each frame and averaged, so
    a flicker between flat frames is not contrast. Its largest value is 127.5: half black, half white.
    """

    name = "brightness"
    needs = (Frames(size=224),)
    gives = (
        SignalField(
            "brightness",
            pa.float32(),
            "luma 0-255",
            (0, 255),
            ("image", "video"),
            "Mean Rec. 709 luma over all pixels and frames; 0 is black, 255 is white.",
        ),
        SignalField(
            "contrast",
            pa.float32(),
            "luma 0-127.5",
            (0, 127.5),
            ("image", "video"),
            "Standard deviation of luma in a frame, mean over frames; 0 is one flat tone.",
        ),
    )
    cost = Resources(cpus=1)

    def __call__(self, batch: Batch) -> list[Result]:
        views = batch.views[self.needs[0]]

        def one(i: int) -> dict[str, float | None]:
            frames = views[i]
            if frames is None:
                return {"brightness": None, "contrast": None}
            y = luma(frames)
            return {
                "brightness": float(y.mean(dtype=np.float64)),
                "contrast": float(y.std(axis=(1, 2), dtype=np.float64).mean()),
            }

        return map_samples("annotate:brightness", batch, one)
