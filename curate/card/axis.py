"""Axes of charts: where values lie and which of them get a label.

Charts are inline SVG drawn by jinja2 from numbers made here, not by a plotting library: they take their colours from
the page, so they follow light and dark; their text stays text, for screen readers and search; each is about 3 kB where
matplotlib's SVG is about 20; and their bytes do not depend on the version of fonts or of a library (law 6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from curate.card.text import number


@dataclass(frozen=True)
class Axis:
    """A scale from values to pixels.

    Attributes:
        low, high: values at the ends, low < high; above 0 where `log`.
        left, right: pixels at the ends.
    """

    low: float
    high: float
    left: float
    right: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value; values beyond an end land on that end."""
        lo, hi, v = (self._scale(x) for x in (self.low, self.high, min(max(value, self.low), self.high)))
        return self.left + (self.right - self.left) * (v - lo) / (hi - lo)

    def edges(self, bins: int) -> list[float]:
        """Borders of `bins` bins of equal width on the axis; the ends are exactly low and high."""
        lo, hi = self._scale(self.low), self._scale(self.high)
        inner = [lo + (hi - lo) * i / bins for i in range(1, bins)]
        return [self.low, *((10**v if self.log else v) for v in inner), self.high]

    def ticks(self) -> list[tuple[float, str]]:
        """Pixels and labels of round values, about five."""
        values = _decades(self.low, self.high) if self.log else _round_steps(self.low, self.high)
        return [(round(self.at(v), 1), number(v)) for v in values]

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value


def _round_steps(low: float, high: float) -> list[float]:
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _decades(low: float, high: float) -> list[float]:
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    whole = [10.0**e for e in exponents if low <= 10.0**e <= high]
    if len(whole) >= 3:
        return whole[:: (len(whole) + 5) // 6]
    return [m * 10.0**e for e in exponents for m in (1, 2, 5) if low <= m * 10.0**e <= high]
