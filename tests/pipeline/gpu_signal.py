"""A signal that asks for a share of a GPU, and a light one that reads it: what a model on GPUs means for a plan."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from curate.media.requests import Frames
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal


class Redness(Signal):
    """Mean of the red channel, as a model on half a GPU would give it."""

    name = "redness"
    needs = (Frames(size=32),)
    gives = (SignalField("redness", pa.float32(), "0-255", (0, 255), ("image",)),)
    cost = Resources(cpus=1, gpus=0.5, model=True)

    def __call__(self, batch: Batch) -> list[Result]:
        return [{"redness": None if f is None else float(np.mean(f[..., 0]))} for f in batch.views[self.needs[0]]]


class Halved(Signal):
    """Half of the redness: it has no model, and comes after one."""

    name = "halved"
    after = ("redness",)
    gives = (SignalField("halved", pa.float32(), "0-255", (0, 255), ("image",)),)

    def __call__(self, batch: Batch) -> list[Result]:
        return [{"halved": None if r is None else r / 2} for r in batch.columns["redness"]]
