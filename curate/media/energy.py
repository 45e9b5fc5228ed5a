"""Loudness as it is decoded: K-weighted energy over the channels, after ITU-R BS.1770-5, Annexes 1 and 3."""

from __future__ import annotations

from cmath import exp
from fractions import Fraction
from math import pi, tan
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from curate.media.clips import MICRO, Span

if TYPE_CHECKING:
    from av.filter import Graph

STEPS_PER_SECOND = 10
"""Energies are of steps of 100 ms: the gating blocks of BS.1770 are four of them, and begin with each."""

_SURROUND = 1.41
_SIDES = frozenset({"SL", "SR", "WL", "WR", "SDL", "SDR", "SSL", "SSR"})
"""Ear-high loudspeakers at 60 to 120 degrees from the front (BS.1770-5, Table 4): 1.41, as a number that the standard
gives. What is before, behind and above counts 1."""

_BACKS = frozenset({"BL", "BR"})
"""Behind the listener where there are side channels too, else the two surround channels of 5.1 at 110 degrees."""

_SHELF = 1681.974450955533, 3.999843853973347, 0.7071752369554196
_HIGH_PASS = 38.13547087602444, 0.5003270373238773
"""Hz, dB and quality of the two filters whose coefficients at 48 kHz BS.1770-5 prints (Tables 1 and 2); of other rates
it asks for the same response."""

_RATE = 48000

_AT_ONCE = 1 << 14
"""Samples that are filtered at once: most of the time that codecs' small frames take would be spent on calls."""

Biquad = tuple[float, float, float, float, float]
"""b0, b1, b2, a1, a2 of a filter of second order, a0 = 1."""

_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "6.1")
"""FFmpeg's layouts of one to seven channels (see `channels._FEW`); here only their number matters."""


class Meter:
    """Energies of a span, taken while it is decoded.

    The filters start at rest where decoding starts (up to half a second before the span), after each hole in the time
    line, and where the channels change.

    Args:
        span: on the media's clock.
    """

    def __init__(self, span: Span) -> None:
        self._span = span
        self._sums = np.zeros(int(Fraction(span.end_us - span.start_us, MICRO) * STEPS_PER_SECOND))
        self._begin = self._reached_us = Fraction(0)
        self._rate = 0
        self._edges: list[int] = []
        self._reached = 0
        self._filter: _Filter | None = None
        self._names: tuple[str, ...] = ()
        self._parts: list[NDArray[np.float32]] = []
        self._due = 0

    def rebase(self, begin_us: int) -> None:
        """Take the clock of what is heard from now on to begin at `begin_us`; its rate may be another one."""
        self._measure()
        if self._edges:
            self._reached_us = self._begin + Fraction(self._reached * MICRO, self._rate)
        self._begin, self._edges, self._filter = Fraction(begin_us), [], None

    def hear(self, samples: NDArray[np.float32], names: tuple[str, ...], rate: int, at: int) -> None:
        """Take in float32 `(channels, n)`, full scale 1, whose first sample is number `at` on the clock."""
        if not self._edges:
            start, step = self._span.start_us - self._begin, Fraction(MICRO, STEPS_PER_SECOND)
            self._edges = [round((start + i * step) * rate / MICRO) for i in range(self._sums.size + 1)]
            self._reached = max(self._edges[0], round((self._reached_us - self._begin) * rate / MICRO))
            self._rate = rate
        if at != self._due or names != self._names:
            self._measure()
            self._filter = None
        if at < self._edges[-1]:
            self._parts.append(samples)
            self._names, self._due = names, at + samples.shape[1]
            if sum(part.shape[1] for part in self._parts) >= _AT_ONCE:
                self._measure()

    def energies(self) -> NDArray[np.float64]:
        """float64 `(n,)`: of each whole 100 ms of the span the weighted sum of the channels' mean squares."""
        self._measure()
        return self._sums

    def _measure(self) -> None:
        """Add what was heard to its steps."""
        if not self._parts:
            return
        samples = np.concatenate(self._parts, axis=1)
        self._parts.clear()
        if self._filter is None:
            self._filter = _Filter(samples.shape[0], self._rate)
        power = weights(self._names) @ self._filter(samples) ** 2
        at = self._due - samples.shape[1]
        low, high = max(at, self._reached), min(self._due, self._edges[-1])
        if low < high:
            self._reached = high
            first = int(np.searchsorted(self._edges, low, side="right")) - 1
            last = int(np.searchsorted(self._edges, high, side="left"))
            begins = [max(low, edge) - at for edge in self._edges[first:last]]
            lengths = np.diff(self._edges[first : last + 1])
            self._sums[first:last] += np.add.reduceat(power[: high - at], begins) / lengths


def weights(names: tuple[str, ...]) -> NDArray[np.float64]:
    """What each channel counts (BS.1770-5, Tables 3 and 4); one that is in no known place counts 1.

    Of ambisonics the omnidirectional channel counts, of which the standard says nothing.
    """
    sides = _SIDES if set(names) & _SIDES else _SIDES | _BACKS
    if {"FLC", "TC", "LFE2"} <= set(names):
        sides |= {"FL", "FR"}  # 22.2, whose front pair stands at 60 degrees (ITU-R BS.2051, system H)
    silent = {"LFE", "LFE2"} if set(names) - {"LFE", "LFE2"} else set()
    silent |= {name for name in names if name.startswith("AMBI") and name != "AMBI0"}
    return np.array([0.0 if n in silent else _SURROUND if n in sides else 1.0 for n in names])


def k_weighting(rate: int) -> list[Biquad]:
    """The two filters at `rate` Hz; the shelf is left out where its corner is above half the rate.

    The bilinear transform of the analogue filters that make the standard's coefficients at 48 kHz. At other rates the
    gain at 997 Hz, where the standard is calibrated, is made the same: at 8 kHz the transform alone is 0.2 dB off.
    """
    shelf, high_pass = _biquads(rate)
    gain = _gain(_biquads(_RATE), _RATE, rate) / _gain((shelf, high_pass), rate, rate)
    b0, b1, b2, a1, a2 = high_pass
    return [*([shelf] if rate > 2 * _SHELF[0] else []), (b0 * gain, b1 * gain, b2 * gain, a1, a2)]


def _biquads(rate: int) -> tuple[Biquad, Biquad]:
    hertz, decibels, quality = _SHELF
    if rate > 2 * hertz:
        k, high = tan(pi * hertz / rate), 10 ** (decibels / 20)
        middle, a0 = high**0.4996667741545416, 1 + k / quality + k * k
        b0, b2 = high + middle * k / quality + k * k, high - middle * k / quality + k * k
        shelf = b0 / a0, 2 * (k * k - high) / a0, b2 / a0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0
    else:
        shelf = 1.0, 0.0, 0.0, 0.0, 0.0
    hertz, quality = _HIGH_PASS
    k = tan(pi * hertz / rate)
    a0 = 1 + k / quality + k * k
    return shelf, (1.0, -2.0, 1.0, 2 * (k * k - 1) / a0, (1 - k / quality + k * k) / a0)


def _gain(biquads: tuple[Biquad, ...], rate: int, lowest: int) -> float:
    """Of the filters at `rate`, at 997 Hz, or at an eighth of `lowest` where that is less."""
    z = exp(-2j * pi * min(997, lowest / 8) / rate)
    gains = [abs((b0 + b1 * z + b2 * z * z) / (1 + a1 * z + a2 * z * z)) for b0, b1, b2, a1, a2 in biquads]
    return float(np.prod(gains))


class _Filter:
    """K-weighting of consecutive samples by FFmpeg's `biquad` filter, in float64."""

    def __init__(self, channels: int, rate: int) -> None:
        self._rate = rate
        most = len(_LAYOUTS)
        self._groups = [range(i, min(i + most, channels)) for i in range(0, channels, most)]
        self._graphs = [_graph(len(group), rate) for group in self._groups]

    def __call__(self, samples: NDArray[np.float32]) -> NDArray[np.float64]:
        from av import AudioFrame

        out = []
        for group, graph in zip(self._groups, self._graphs, strict=True):
            part = np.ascontiguousarray(samples[group.start : group.stop], np.float64)
            frame = AudioFrame.from_ndarray(part, format="dblp", layout=_LAYOUTS[len(group) - 1])
            frame.sample_rate = self._rate
            graph.push(frame)
            out.append(graph.pull().to_ndarray())
        return np.concatenate(out)


def _graph(channels: int, rate: int) -> Graph:
    from av.filter import Graph

    graph = Graph()
    graph.threads = 1
    layout = _LAYOUTS[channels - 1]
    nodes = [graph.add_abuffer(sample_rate=rate, format="dblp", layout=layout, time_base=Fraction(1, rate))]
    for b0, b1, b2, a1, a2 in k_weighting(rate):
        nodes.append(graph.add("biquad", f"b0={b0!r}:b1={b1!r}:b2={b2!r}:a0=1:a1={a1!r}:a2={a2!r}"))
    graph.link_nodes(*nodes, graph.add("abuffersink")).configure()
    return graph
