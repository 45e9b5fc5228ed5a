"""How loud audio is."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Energy
from curate.signals.base import AUDIBLE, Float, Sample, Signal

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
        Float(
            "loudness",
            "LUFS",
            FLOOR,
            kinds=AUDIBLE,
            about="Integrated loudness over the channels (ITU-R BS.1770-5); -70 is silence, or less than 0.4 s of it; "
            "null where there is no audio track.",
        ),
    )

    def version(self) -> str:
        return "2"  # 1 measured the 16 kHz mono mix

    def one(self, sample: Sample) -> float:
        return integrated_loudness(sample.view)


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
