"""How sharp an image is."""

from __future__ import annotations

import numpy as np

from curate.media.requests import Frames
from curate.signals.base import VISUAL, Float, Sample, Signal
from curate.signals.luma import luma


class Sharpness(Signal):
    """Variance of the Laplacian of luma (LAPV in Pech-Pacheco et al., "Diatom autofocusing in brightfield
    microscopy", ICPR 2000), on the centre square scaled to 224 px, mean over frames.

    The operator is the 4-neighbour Laplacian, whose values lie in -1020 to 1020. It measures fine detail, so a plain
    wall in focus scores low and noise scores high. Scores of different view sizes do not compare.
    """

    name = "sharpness"
    needs = (Frames(size=224),)
    gives = (
        Float(
            "sharpness",
            "grey levels^2",
            0,
            1020**2,
            kinds=VISUAL,
            about="Variance of the Laplacian of luma at 224 px, mean over frames; low is blurred or flat.",
        ),
    )

    def one(self, sample: Sample) -> float:
        import cv2

        variances = [float(cv2.Laplacian(y, cv2.CV_32F, ksize=1).var(dtype=np.float64)) for y in luma(sample.view)]
        return sum(variances) / len(variances)
