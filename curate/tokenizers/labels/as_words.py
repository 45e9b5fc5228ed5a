"""Labels as words of 4M's closed vocabulary, and back within each format's precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.fourm import det, metadata, palette
from curate.tokenizers.fourm.values import BINS, Reader, bin_word, to_bin
from curate.tokenizers.fourm.words import split
from curate.tokenizers.labels.base import Boxes, KeyPoints, Label, LabelBox, Metadata, Palette
from curate.tokenizers.labels.parts import PARTS, BodyWords, InstanceWords, check_part


class WordWriter(Protocol):
    """A label of one kind as words joined by spaces, and back."""

    def write(self, label: Label) -> str: ...

    def read(self, words: str) -> Label: ...


class BoxWords:
    """The stream `det` (`fourm.det`): COCO's names only, scores lost, nearest to the top left first."""

    def write(self, label: Label) -> str:
        if not isinstance(label, Boxes):
            raise ValueError(f"expected Boxes, got {type(label).__name__}")
        return " ".join(det.write([det.Box(b.x0, b.y0, b.x1, b.y1, b.name) for b in label.boxes]))

    def read(self, words: str) -> Boxes:
        return Boxes(tuple(LabelBox(*box.bounds, box.name) for box in det.parse(split(words))))


class MetadataWords:
    """The stream `metadata` (`fourm.metadata`); back come the middles of the bins."""

    def write(self, label: Label) -> str:
        if not isinstance(label, Metadata):
            raise ValueError(f"expected Metadata, got {type(label).__name__}")
        return " ".join(metadata.write(label.values))

    def read(self, words: str) -> Metadata:
        return Metadata({name: found.value for name, found in metadata.parse(split(words)).items()})


class PaletteWords:
    """The stream `color_palette` (`fourm.palette`): exact."""

    def write(self, label: Label) -> str:
        if not isinstance(label, Palette):
            raise ValueError(f"expected a Palette, got {type(label).__name__}")
        return " ".join(palette.write(label.colours))

    def read(self, words: str) -> Palette:
        return Palette(tuple(palette.parse(split(words))))


@dataclass(frozen=True)
class KeyPointWords:
    """Ours, 4M has no such stream: for each person `human`, and for each point in the order of `names` either
    `point v0=<x> v1=<y>`, round(999 x) half to even, or `none` where its score is below `score`.

    Back, a score is 1 or 0, and a point that was not there lies at 0, 0.
    """

    names: tuple[str, ...]
    score: float = 0.2

    def write(self, label: Label) -> str:
        if not isinstance(label, KeyPoints) or label.names != self.names:
            raise ValueError(f"expected KeyPoints of {len(self.names)} names, got {type(label).__name__}")
        words: list[str] = []
        for person in label.points.tolist():
            words.append("human")
            for x, y, score in person:
                there = score >= self.score
                at = [bin_word(axis, to_bin(value, BINS - 1, 0)) for axis, value in enumerate((x, y))]
                words += ["point", *at] if there else ["none"]
        return " ".join(words)

    def read(self, words: str) -> KeyPoints:
        left = Reader(split(words))
        people: list[list[tuple[float, float, float]]] = []
        while not left.done:
            left.keyword("human")
            person = []
            for _ in self.names:
                if left.is_next("none"):
                    left.keyword("none")
                    person.append((0.0, 0.0, 0.0))
                else:
                    left.keyword("point")
                    person.append((left.bin(0) / (BINS - 1), left.bin(1) / (BINS - 1), 1.0))
            people.append(person)
        return KeyPoints(np.asarray(people, np.float32).reshape(-1, len(self.names), 3), self.names)


def word_writer(kind: str, names: tuple[str, ...], part: Tokenizer | None = None, side: int = 0) -> WordWriter | None:
    """The writer for a kind of label (its class's name); None where it has no words.

    Args:
        names: of key-points.
        part: the tokenizer of masks or of body poses (`parts.PARTS`).
        side: of the pictures that instances are of, in pixels.

    Raises:
        CurateError: the kind has such parts and `part` is missing or does not fit, or has none and it is given.
    """
    if (kind in PARTS) != (part is not None):
        said = "needs a tokenizer of its" if part is None else "has no"
        raise CurateError(
            f"{kind} {said} parts", f"those with parts: {', '.join(f'{k}: {v[2]}' for k, v in PARTS.items())}"
        )
    if part is not None:
        check_part(kind, part.card)
        return InstanceWords(part, side) if kind == "Instances" else BodyWords(part)
    match kind:
        case "Boxes":
            return BoxWords()
        case "KeyPoints":
            return KeyPointWords(names)
        case "Metadata":
            return MetadataWords()
        case "Palette":
            return PaletteWords()
        case _:
            return None
