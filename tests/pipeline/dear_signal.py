"""A signal that notes each sample that it is asked of, beside the images that it is of."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from curate.media.requests import Frames
from curate.schema.fields import Resources
from curate.signals import base
from curate.signals.base import VISUAL, Float, Sample, Signal


class DearOptions(base.Options):
    """Options: `log`, a file that grows by a line a call; `breaks`, a file: while it is there, samples with more than
    200 of red fail."""

    log: str
    breaks: str = ""


class Dear(Signal):
    """The mean of red, as if that were hard to tell."""

    name = "dear"
    needs = (Frames(size=64),)
    after = ("brightness",)
    gives = (Float("redness", "0-255", 0, 255, kinds=VISUAL, about="Mean of red."),)
    cost = Resources(model=True)
    Options = DearOptions
    options: DearOptions

    def made_by(self) -> dict[str, str]:
        return {}

    def one(self, sample: Sample) -> float:
        with Path(self.options.log).open("a") as log:
            log.write(f"{sample.sample_id}\n")
        assert sample.columns["brightness"] is not None
        red = float(np.mean(sample.view[..., 0]))
        if red > 200 and Path(self.options.breaks).is_file():
            raise RuntimeError("too red")
        return red
