"""The stream `metadata`: figures of the whole image and its caption, `v1=<field> v0=<bin>` for each.

As in ml-4m. The paper writes a brightness of 120 as `v1=10 v0=120`; the code writes the bin, `v1=10 v0=23`, and the
code is followed. Fields are in the order of their numbers; ml-4m shuffles them at training, which is the view's to do:
a field is always the two words of a chunk.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from curate.exports.fourm.values import BINS, Reader, bin_word

CHUNK = 2
"""Words of one field."""
STEPS = 49
"""Of a real field's range: 50 bins, the last for its upper end alone."""
SIZE_STEP = 32
"""Pixels of one bin of a size."""


@dataclass(frozen=True)
class Range:
    """What a bin says of a value.

    Attributes:
        low, high: real fields: low <= value < high, infinite at the ends of the scale; whole numbers:
            low <= value <= high.
        value: to stand for it: the number itself, the middle of the bin, or its finite end.
    """

    low: float
    high: float
    value: float


@dataclass(frozen=True)
class Field:
    """One figure.

    Attributes:
        number: of `v1`.
        kind: `size`: pixels, in steps of 32; `count`: as it is, up to 999; `real`: clipped to [low, high], in 49 steps;
            `edges`: how many of the edges the value is not below.
    """

    name: str
    number: int
    kind: Literal["size", "count", "real", "edges"]
    low: float = 0
    high: float = 0
    edges: tuple[float, ...] = ()

    def bin(self, value: float) -> int:
        """The bin of a value.

        Raises:
            ValueError: the value is not finite; a size or a count is negative or not whole (ml-4m makes 0 of the
                negative).
        """
        if not math.isfinite(value):
            raise ValueError(f"{self.name} is {value}, not a finite number")
        if self.kind in ("size", "count"):
            if value < 0 or value != int(value):
                raise ValueError(f"{self.name} is {value}, not a whole number of 0 or more")
            return min(int(value) // self._step, BINS - 1)
        if self.kind == "edges":
            return sum(value >= edge for edge in self.edges)
        clipped = max(self.low, min(value, self.high))
        return int((clipped - self.low) / (self.high - self.low) * STEPS)

    def range(self, bin: int) -> Range:
        """What a bin says; ValueError for one that the field has not."""
        if not 0 <= bin < self.bins:
            raise ValueError(f"{self.name} has no bin {bin}: it has {self.bins}")
        if self.kind in ("size", "count"):
            first = bin * self._step
            if bin == BINS - 1:
                return Range(first, math.inf, first)
            last = first + self._step - 1
            return Range(first, last, (first + last) // 2)
        if self.kind == "edges":
            ends = (-math.inf, *self.edges, math.inf)
            low, high = ends[bin], ends[bin + 1]
            middle = high - 0.5 if low == -math.inf else low + 0.5 if high == math.inf else (low + high) / 2
            return Range(low, high, middle)
        step = (self.high - self.low) / STEPS
        low, high = self.low + bin * step, self.low + (bin + 1) * step
        if bin == STEPS:
            return Range(self.high, math.inf, self.high)
        return Range(low if bin else -math.inf, high, (low + high) / 2)

    @property
    def bins(self) -> int:
        return {"real": STEPS + 1, "edges": len(self.edges) + 1}.get(self.kind, BINS)

    @property
    def _step(self) -> int:
        return SIZE_STEP if self.kind == "size" else 1


FIELDS = (
    Field("original_width", 0, "size"),
    Field("original_height", 1, "size"),
    Field("caption_n_chars", 2, "count"),
    Field("caption_n_words", 3, "count"),
    Field("caption_n_sentences", 4, "count"),
    Field("n_humans", 5, "count"),
    Field("n_sam_instances", 6, "count"),
    Field("n_coco_instances", 7, "count"),
    Field("coco_instance_diversity", 8, "count"),
    Field("colorfulness", 9, "real", 0, 150),
    Field("brightness", 10, "real", 0, 255),
    Field("contrast", 11, "real", 0, 127),
    Field("saturation", 12, "real", 0, 255),
    Field("entropy", 13, "real", 0, 10),
    Field("walkability", 14, "real", 0, 1),
    Field("objectness", 15, "real", 0, 1),
    Field("semantic_diversity", 16, "count"),
    Field("geometric_complexity", 17, "real", 0, 0.75),
    Field("occlusion_score", 18, "real", 0, 0.25),
    Field("watermark_score", 19, "edges", edges=(0.5,)),
    Field("aesthetic_score", 20, "edges", edges=(4.5, 5.5)),
)

_BY_NAME = {field.name: field for field in FIELDS}


def write(values: Mapping[str, float]) -> list[str]:
    """The words of the figures that there are, two for each, by number.

    Raises:
        ValueError: a name is not a field's, or a value is not one of it (`Field.bin`).
    """
    unknown = sorted(values.keys() - _BY_NAME.keys())
    if unknown:
        raise ValueError(f"no field of the metadata is named {', '.join(map(repr, unknown))}")
    there = (field for field in FIELDS if field.name in values)
    return [word for f in there for word in (bin_word(1, f.number), bin_word(0, f.bin(values[f.name])))]


def parse(words: Sequence[str]) -> dict[str, Range]:
    """What the words say, in any order of fields; ValueError for words that are not fields, or one twice."""
    read = Reader(words)
    found: dict[str, Range] = {}
    while not read.done:
        number = read.bin(1)
        if number >= len(FIELDS) or FIELDS[number].name in found:
            raise ValueError(f"field {number} is there twice, or is not one of the {len(FIELDS)}")
        field = FIELDS[number]
        found[field.name] = field.range(read.bin(0))
    return found
