"""How bright an image is, and how far its tones reach."""

from __future__ import annotations

import numpy as np

from curate.media.requests import Frames
from curate.signals.base import VISUAL, Float, Sample, Signal
from curate.signals.luma import luma


class Brightness(Signal):
    """Mean and standard deviation of Rec. 709 luma, of gamma-encoded sRGB values.

    The standard deviation (RMS contrast, Peli 1990, without normalisation) is taken in each frame and averaged, so
    a flicker between flat frames is not contrast. Its largest value is 127.5: half black, half white.
    """

    name = "brightness"
    needs = (Frames(size=224),)
    gives = (
        Float(
            "brightness",
            "luma 0-255",
            0,
            255,
            kinds=VISUAL,
            about="Mean Rec. 709 luma over all pixels and frames; 0 is black, 255 is white.",
        ),
        Float(
            "contrast",
            "luma 0-127.5",
            0,
            127.5,
            kinds=VISUAL,
            about="Standard deviation of luma in a frame, mean over frames; 0 is one flat tone.",
        ),
    )

    def one(self, sample: Sample) -> tuple[float, float]:
        y = luma(sample.view)
        return float(y.mean(dtype=np.float64)), float(y.std(axis=(1, 2), dtype=np.float64).mean())
