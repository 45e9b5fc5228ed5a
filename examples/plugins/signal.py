"""A signal: how colourful an image is, as people rate it (Hasler and Süsstrunk, SPIE 2003, M^3)."""

import numpy as np

from curate.media.requests import Frames
from curate.signals import VISUAL, Float, Sample, Signal


class Colourfulness(Signal):
    """M^3 = s + 0.3 m over the opponent axes rg = R - G and yb = (R + G) / 2 - B: s is the length of their deviations,
    m that of their means. Mean over frames. About 0 is grey, 33 moderate, 59 quite colourful, above 109 extreme."""

    name = "colourfulness"
    needs = (Frames(size=224),)
    gives = (Float("colourfulness", "M3", 0, 300, kinds=VISUAL, about="Colourfulness by Hasler and Süsstrunk's M3."),)

    def one(self, sample: Sample) -> float:
        red, green, blue = np.moveaxis(sample.view.astype(np.float64), -1, 0)
        axes = np.stack([red - green, (red + green) / 2 - blue])
        spread = np.hypot(*axes.std(axis=(2, 3)))
        return float((spread + 0.3 * np.hypot(*axes.mean(axis=(2, 3)))).mean())
