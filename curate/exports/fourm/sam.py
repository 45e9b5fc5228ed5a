"""The stream `sam_instance`: what SAM (Kirillov et al. 2023) finds at some points of the crop.

For each point `point v0=y v1=x` (y first), and then `none`, or for each instance there `polygon`, its box
`v0=xmin v1=ymin v2=xmax v3=ymax`, and 16 codes of its mask (64 x 64, 4 x 4 codes). Pixels are those of the crop as the
encoder sees it (224 x 224), whole numbers: a box's fractions are cut off, so it is within 1 pixel.

As in ml-4m. It draws 7 points anew each time and shuffles points and instances; here the caller gives both in order.
There a point drawn twice is written once; here every point is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.exports.fourm.values import BINS, Reader, bin_word, code_word

CODES = 16
POINTS = 7
"""Points that 4M asks at in an image."""


@dataclass(frozen=True)
class Instance:
    """A mask: its box in pixels, 0 <= min <= max < 1000, and its 16 codes 0 .. 1023.

    Raises:
        ValueError: the box is out of range or order, or the codes are not 16.
    """

    xmin: float
    ymin: float
    xmax: float
    ymax: float
    codes: tuple[int, ...]

    def __post_init__(self) -> None:
        if not (0 <= self.xmin <= self.xmax < BINS and 0 <= self.ymin <= self.ymax < BINS):
            raise ValueError(f"a box in pixels is 0 <= min <= max < {BINS}, not {self.bounds}")
        if len(self.codes) != CODES:
            raise ValueError(f"a mask has {CODES} codes, not {len(self.codes)}")

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        return self.xmin, self.ymin, self.xmax, self.ymax


@dataclass(frozen=True)
class Point:
    """A point in pixels, 0 .. 999, and the instances that it is inside of."""

    x: int
    y: int
    instances: tuple[Instance, ...] = ()


def write(points: Sequence[Point]) -> list[str]:
    """The words of points: 3 for each and `none`, or 3 and 21 for each instance.

    Raises:
        ValueError: a point or a code is out of range.
    """
    words: list[str] = []
    for point in points:
        words += ["point", bin_word(0, point.y), bin_word(1, point.x)]
        for instance in point.instances:
            words += ["polygon", *(bin_word(axis, int(value)) for axis, value in enumerate(instance.bounds))]
            words += [code_word(code) for code in instance.codes]
        if not point.instances:
            words.append("none")
    return words


def parse(words: Sequence[str]) -> list[Point]:
    """The points; ValueError for words that `write` cannot have made."""
    read = Reader(words)
    points = []
    while not read.done:
        read.keyword("point")
        y, x = read.bin(0), read.bin(1)
        instances = []
        while read.is_next("polygon"):
            read.keyword("polygon")
            xmin, ymin, xmax, ymax = (read.bin(axis) for axis in range(4))
            instances.append(Instance(xmin, ymin, xmax, ymax, tuple(read.code() for _ in range(CODES))))
        if not instances:
            read.keyword("none")
        points.append(Point(x, y, tuple(instances)))
    return points
