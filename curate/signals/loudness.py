"""How loud a sound is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.requests import Energy
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal, map_samples

FLOOR = -70.0
"""LUFS. The absolute gate of BS.1770: nothing below it counts, so nothing below it can be told apart."""

_OFFSET = -0.691
"""dB. Makes a full-scale 997 Hz sine in one channel -3.01 LUFS (BS.1770-5, Annex 1, formula 2)."""

_BLOCK = 4
"""Steps of 100 ms in a gating block: 400 ms, which overlap by 75 %."""

_RELATIVE_LU = -10.0


class Loudness(Signal):
    """Integrated loudness after ITU-R BS.1770-5: K-weighted energy over the channels as they were coded, the LFE left
    out, 400 ms blocks, gates at -70 LUFS and -10 LU.

    A full-scale 997 Hz sine in one channel of stereo reads -3.01 LUFS, in both 0. Mono counts as one channel.
    """

    name = "loudness"
    needs = (Energy(),)
    gives = (
        SignalField(
            "loudness",
            pa.float32(),
            "LUFS",
            (FLOOR, None),
            ("video", "audio"),
            "Integrated loudness over the channels (ITU-R BS.1770-5); -70 is silence, or less than 0.4 s of sound; "
            "null where there is no sound track.",
        ),
    )
    cost = Resources(cpus=1)

    def version(self) -> str:
        return "2"  # 1 measured the 16 kHz mono mix

    def __call__(self, batch: Batch) -> list[Result]:
        views = batch.views[self.needs[0]]

        def one(i: int) -> dict[str, float | None]:
            energies = views[i]
            return {"loudness": None if energies is None else integrated_loudness(energies)}

        return map_samples("annotate:loudness", batch, one)


def integrated_loudness(energies: NDArray[Any]) -> float:
    """LUFS, not below `FLOOR`.

    Args:
        energies: of steps of 100 ms, as the view `Energy` has them. Steps that make no whole block at the end do not
            count (BS.1770-5, Annex 1).
    """
    if len(energies) < _BLOCK:
        return FLOOR
    blocks = np.convolve(energies, np.full(_BLOCK, 1 / _BLOCK), "valid")
    loud = blocks[_lufs(blocks) > FLOOR]
    if not loud.size:
        return FLOOR
    heard = loud[_lufs(loud) > _lufs(loud.mean()) + _RELATIVE_LU]
    return max(FLOOR, float(_lufs(heard.mean())))


def _lufs(energy: NDArray[Any] | np.floating[Any]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(_OFFSET + 10 * np.log10(energy), np.float64)
