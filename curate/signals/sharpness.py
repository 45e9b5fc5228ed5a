"""How sharp a picture is."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curate.media.requests import Frames
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal, map_samples
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
        SignalField(
            "sharpness",
            pa.float32(),
            "grey levels^2",
            (0, 1020**2),
            ("image", "video"),
            "Variance of the Laplacian of luma at 224 px, mean over frames; low is blurred or flat.",
        ),
    )
    cost = Resources(cpus=1)

    def __call__(self, batch: Batch) -> list[Result]:
        import cv2

        views = batch.views[self.needs[0]]

        def one(i: int) -> dict[str, float | None]:
            frames = views[i]
            if frames is None:
                return {"sharpness": None}
            variances = [float(cv2.Laplacian(y, cv2.CV_32F, ksize=1).var(dtype=np.float64)) for y in luma(frames)]
            return {"sharpness": sum(variances) / len(variances)}

        return map_samples("annotate:sharpness", batch, one)
