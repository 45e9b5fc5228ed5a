"""The stream `det`: boxes of objects, `v0=x0 v1=y0 v2=x1 v3=y1 name` for each, nearest to the top left corner first.

As in ml-4m: coordinates of the crop in [0, 1], `round(999 x)` half to even; ordered by the distance of (x0, y0) from
the origin, on coordinates before they are rounded. Precision: 0.5 / 999 of a side. The detector's score is not
written (4M keeps boxes from 0.6 on). Names are COCO's 80, each one word; ml-4m would take any name apart into
word-pieces, where it could spell what is no name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from curate.exports.fourm.crops import Bounds, bounds_in_crop
from curate.exports.fourm.values import BINS, Reader, bin_word, to_bin
from curate.exports.fourm.words import OBJECTS

PRECISION = 0.5 / (BINS - 1)

_NAMES = frozenset(OBJECTS)


@dataclass(frozen=True)
class Box:
    """A box in [0, 1] of the width and the height, x0 <= x1 and y0 <= y1, and the name of what is in it.

    Raises:
        ValueError: a coordinate is out of range or order, or the name is not one of `words.OBJECTS`.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    name: str

    def __post_init__(self) -> None:
        check_bounds(self.bounds)
        if self.name not in _NAMES:
            raise ValueError(f"{self.name!r} is not one of the {len(_NAMES)} object names")

    @property
    def bounds(self) -> Bounds:
        return self.x0, self.y0, self.x1, self.y1


def write(boxes: Sequence[Box]) -> list[str]:
    """The words of boxes, five for each; none for no box."""
    ordered = sorted(boxes, key=lambda box: box.x0**2 + box.y0**2)
    return [word for box in ordered for word in (*bounds_words(box.bounds), box.name)]


def parse(words: Sequence[str]) -> list[Box]:
    """The boxes in the order of the words, within `PRECISION`; ValueError for words that `write` cannot have made."""
    read = Reader(words)
    boxes = []
    while not read.done:
        boxes.append(Box(*read_bounds(read), read.word("a name")))
    return boxes


def crop(boxes: Sequence[Box], width: int, height: int, row: Sequence[int]) -> list[Box]:
    """Boxes of an image of `width` x `height` pixels in the frame of a crop; those with no area left are not there.

    Args:
        row: of `crops.crop_settings`; flipped crops mirror the boxes.
    """
    found = ((bounds_in_crop(box.bounds, width, height, row), box.name) for box in boxes)
    return [Box(*bounds, name) for bounds, name in found if bounds]


def check_bounds(bounds: Bounds) -> None:
    """ValueError unless 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1."""
    x0, y0, x1, y1 = bounds
    if not (0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1):
        raise ValueError(f"a box is 0 <= x0 <= x1 <= 1 and 0 <= y0 <= y1 <= 1, not {bounds}")


def bounds_words(bounds: Bounds) -> list[str]:
    """The four words of a box."""
    return [bin_word(axis, to_bin(value, BINS - 1, 0)) for axis, value in enumerate(bounds)]


def read_bounds(read: Reader) -> Bounds:
    """The box of the next four words."""
    x0, y0, x1, y1 = (read.bin(axis) / (BINS - 1) for axis in range(4))
    return x0, y0, x1, y1
