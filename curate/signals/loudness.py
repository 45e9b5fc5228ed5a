"""How loud a sound is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.views import Audio
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal, each

FLOOR = -70.0
"""LUFS. The absolute gate of BS.1770: nothing below it counts, so nothing below it can be told apart."""

_BLOCK_S, _STEP_S = 0.4, 0.1


class Loudness(Signal):
    """Integrated loudness after ITU-R BS.1770-4 (K-weighting, 400 ms blocks, gates at -70 LUFS and -10 LU).

    Measured on the 16 kHz mono mix-down: against a meter on the original channels, wide stereo reads up to 3 LU
    lower, and what lies above 8 kHz does not count. A full-scale 997 Hz sine in one channel reads -3.01 LUFS
    (BS.1770-4, Annex 1), so a sine of peak amplitude A reads -3.01 + 20 log10(A).
    """

    name = "loudness"
    needs = (Audio(16000),)
    gives = (
        SignalField(
            "loudness",
            pa.float32(),
            "LUFS",
            (FLOOR, 5),
            ("video", "audio"),
            "Integrated loudness (ITU-R BS.1770-4) of the mono mix; -70 is silence, or less than 0.4 s of sound; "
            "null where there is no sound track.",
        ),
    )
    cost = Resources(cpus=1)

    def __call__(self, batch: Batch) -> list[Result]:
        views = batch.views[self.needs[0]]

        def one(i: int) -> dict[str, float | None]:
            pcm = views[i]
            return {"loudness": None if pcm is None else integrated_loudness(pcm, 16000)}

        return each("annotate:loudness", batch, one)


def integrated_loudness(pcm: NDArray[Any], rate: int) -> float:
    """BS.1770-4 integrated loudness in LUFS, not below `FLOOR`.

    Args:
        pcm: int16 `(n,)`.
        rate: Hz.
    """
    import pyloudnorm

    # "Incomplete gating blocks at the end of the measurement interval are not used" (Annex 1): whole steps only.
    whole = pcm[: len(pcm) - len(pcm) % int(rate * _STEP_S)]
    if len(whole) < rate * _BLOCK_S or not whole.any():
        return FLOOR
    samples = whole.astype(np.float64) / 32768
    lufs = float(pyloudnorm.Meter(rate, block_size=_BLOCK_S).integrated_loudness(samples))
    return max(lufs, FLOOR)
