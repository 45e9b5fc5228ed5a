"""Channels of audio: what they are called, how they are mixed down to mono, and which of them cancel each other."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import MediaError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

_HALF, _CENTRE, _SIDE = 1 / 2, 1 / 2**0.5, 1 / 8**0.5

_SHARES = {
    **dict.fromkeys(("FL", "FR", "FLC", "FRC", "WL", "WR", "DL", "DR", "BIL", "BIR"), _HALF),
    "FC": _CENTRE,
    **dict.fromkeys(("BL", "BR", "SL", "SR", "SDL", "SDR", "SSL", "SSR", "TTL", "TTR"), _SIDE),
    **dict.fromkeys(("TFL", "TFR", "TBL", "TBR", "TSL", "TSR", "BFL", "BFR"), _SIDE),
    **dict.fromkeys(("BC", "TC", "TFC", "TBC", "BFC"), _HALF),
    "AMBI0": 1.0,
    **{f"AMBI{i}": 0.0 for i in range(1, 256)},
    **dict.fromkeys(("LFE", "LFE2"), 0.0),
}
"""How much of each channel is in the mono mix, by FFmpeg's names of channels.

The mean of the stereo mix Lo = L + 0.7071 C + 0.7071 Ls, Ro = R + 0.7071 C + 0.7071 Rs of ITU-R BS.775-3, Annex 4, with
the LFE left out; a single back or high centre counts as the two beside it at -3 dB each. Of ambisonics (AMBI, ACN) the
omnidirectional first channel is the mono mix.
"""

_LFE = ("LFE", "LFE2")

_ANTIPHASE = 0.01
"""Energy of a pair's sum over that of its difference, below which the sum is taken for a wiring fault."""

_FEW = 8
"""PyAV (18) looks for the planes of so many channels behind the end of their list, which kills the process."""

_FULL_SCALE = {"u8": 1 << 7, "s16": 1 << 15, "s32": 1 << 31, "s64": 1 << 63}


def planar(frame: AudioFrame) -> NDArray[np.float32]:
    """One frame as float32 `(channels, samples)`, full scale 1. Raises MediaError for NaN and infinite samples."""
    if frame.format.is_planar and frame.layout.nb_channels >= _FEW:
        frame = _packed(frame)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    if np.issubdtype(samples.dtype, np.floating):
        with np.errstate(over="ignore"):
            scaled: NDArray[np.float32] = samples.astype(np.float32)
        if not np.isfinite(scaled).all():
            raise MediaError("The audio holds samples that are not finite numbers.")
        return scaled
    kind = frame.format.packed.name
    offset = 128 if kind == "u8" else 0
    return ((samples.astype(np.float64) - offset) / _FULL_SCALE[kind]).astype(np.float32)


def _packed(frame: AudioFrame) -> AudioFrame:
    from av import AudioResampler

    [packed] = AudioResampler(frame.format.packed, frame.layout, frame.sample_rate).resample(frame)
    return packed


def names_of(frame: AudioFrame) -> tuple[str, ...]:
    """FFmpeg's names of a frame's channels; two without names are left and right."""
    names = tuple(channel.name for channel in frame.layout.channels)
    return ("FL", "FR") if len(names) == 2 and not set(names) & set(_SHARES) else names


def mix(samples: NDArray[np.float32], names: tuple[str, ...], inverted: Collection[str] = ()) -> NDArray[np.float32]:
    """The mono mix of float32 `(channels, n)`: `(n,)`, full scale 1.

    The sum by `_SHARES`; of stereo that is the mean. A channel that is alone beside LFEs passes unchanged, and where a
    channel has no known place, all but the LFEs count the same (the mean). The sum may pass full scale, with 5.1 by 7.7
    dB where all channels are loud at once and in phase; it is clipped where it becomes integers.

    Args:
        names: of the channels.
        inverted: names of channels that count with the other sign (see `Polarity`).
    """
    out = np.zeros(samples.shape[1], np.float32)
    for channel, name, share in zip(samples, names, _shares(names), strict=True):
        if share:
            out += channel * np.float32(-share if name in inverted else share)
    return out


@cache
def _shares(names: tuple[str, ...]) -> tuple[float, ...]:
    heard = [name for name in names if name not in _LFE] or list(names)
    if len(heard) == 1 or any(name not in _SHARES for name in heard):
        return tuple(1 / len(heard) if name in heard else 0.0 for name in names)
    return tuple(_SHARES[name] for name in names)


class Polarity:
    """Finds pairs of a left and a right channel one of which is wired with the wrong sign: their sum is silence.

    Of each pair the energies of sum and difference over the whole span are compared. Where the sum has less than 1 % of
    the difference, `mix` is to take the difference, so that the audio is not lost.
    """

    def __init__(self) -> None:
        self._energies: dict[str, tuple[float, float]] = {}

    def hear(self, samples: NDArray[np.float32], names: tuple[str, ...]) -> None:
        """Take in float32 `(channels, n)`."""
        for left, right in _pairs(names):
            a, b = samples[left].astype(np.float64), samples[right].astype(np.float64)
            both, product = float(a @ a + b @ b), 2 * float(a @ b)
            total, difference = self._energies.get(names[right], (0.0, 0.0))
            self._energies[names[right]] = total + both + product, difference + both - product

    def inverted(self) -> frozenset[str]:
        """Names of the right channels to be taken with the other sign."""
        pairs = self._energies.items()
        return frozenset(name for name, (total, difference) in pairs if total < _ANTIPHASE * difference)


@cache
def _pairs(names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """(left, right) of the channels that lie opposite each other."""
    lefts = [name for name in names if "L" in name and name in _SHARES and name not in _LFE]
    opposite = ((name, name.replace("L", "R")) for name in lefts)
    return tuple((names.index(a), names.index(b)) for a, b in opposite if b in names)
