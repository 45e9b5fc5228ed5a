"""Labels that are lists as words of 4M's closed vocabulary, and back within each format's precision.

Lists are as their fields have them (`curate.signals.labels.TYPES`). Masks and poses of bodies are tokenized by a
tokenizer of their own before they become words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curate.exports.fourm import det, metadata, palette, poses, sam
from curate.exports.fourm.values import BINS, Reader, bin_word, to_bin
from curate.exports.fourm.values import CODES as VOCABULARY
from curate.exports.fourm.words import split
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.signals.labels import packed, unpacked
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.mask_vq import MASK_SIDE, box_of, cut, resized
from curate.tokenizers.labels import LabelsFile, LabelTokenizer

Label = list[Any]

POSE_VALUES = 207
PARTS = {
    "instances": ((4, 4), 1, f"masks, float32 ({MASK_SIDE}, {MASK_SIDE}, 1) of 0 and 1"),
    "bodies": ((poses.CODES,), POSE_VALUES, f"poses, float32 ({POSE_VALUES},): 23 rotation matrices by rows"),
}
"""By kind of label: grid and channels of the tokenizer of its parts, and what it takes."""


class LabelWords(LabelTokenizer):
    """Lists to ids `(n,)` of words."""

    inner = "curate.exports.fourm.words:WordsTokenizer"

    def __init__(self, card: CodecCard, file: LabelsFile, inner: Tokenizer, part: Tokenizer | None = None) -> None:
        super().__init__(card, file, inner, part)
        if inner.card.modality != "text":
            raise CurateError(
                f"{inner.card.name} cannot write {file.kind}", f"lists become words, which take {self.inner}"
            )
        self._writer = word_writer(file.kind, file.classes, part, card.input_size or 0)

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        return [self._inner.encode([self._written(item)])[0] for item in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        return [self._writer.read(words) for words in self._inner.decode(ids)]

    def lossless(self, label: Any, ids: NDArray[np.generic]) -> bool | None:
        return self.decode([ids])[0] == label if self.file.kind in ("boxes", "metadata", "palette") else None

    def _written(self, item: Any) -> str:
        try:
            return self._writer.write(item)
        except (TypeError, KeyError) as error:
            raise ValueError(f"{self.card.name} expects a label of {self.file.kind}: {error!r}") from error


class WordWriter(Protocol):
    """A label of one kind as words joined by spaces, and back."""

    def write(self, label: Label) -> str: ...

    def read(self, words: str) -> Label: ...


class BoxWords:
    """The stream `det` (`fourm.det`): COCO's names only, scores and frame lost, nearest to the top left first."""

    def write(self, label: Label) -> str:
        return " ".join(det.write([det.Box(b["x0"], b["y0"], b["x1"], b["y1"], b["name"]) for b in label]))

    def read(self, words: str) -> Label:
        return [{"frame": 0, **_bounds(box.bounds), "name": box.name, "score": 1.0} for box in det.parse(split(words))]


class MetadataWords:
    """The stream `metadata` (`fourm.metadata`); back come the middles of the bins."""

    def write(self, label: Label) -> str:
        return " ".join(metadata.write({one["name"]: one["value"] for one in label}))

    def read(self, words: str) -> Label:
        return [{"name": name, "value": found.value} for name, found in metadata.parse(split(words)).items()]


class PaletteWords:
    """The stream `color_palette` (`fourm.palette`): exact."""

    def write(self, label: Label) -> str:
        return " ".join(palette.write([(c["red"], c["green"], c["blue"]) for c in label]))

    def read(self, words: str) -> Label:
        colours = palette.parse(split(words))
        return [{"red": red, "green": green, "blue": blue} for red, green, blue in colours]


@dataclass(frozen=True)
class PointWords:
    """Ours, 4M has no such stream: for each person `human`, and for each point in the order of `classes` either
    `point v0=<x> v1=<y>`, round(999 x) half to even, or `none` where its score is below `score`.

    Back, a score is 1 or 0, and a point that was not there lies at 0, 0.
    """

    classes: tuple[str, ...]
    score: float = 0.2

    def write(self, label: Label) -> str:
        words: list[str] = []
        for person in label:
            if tuple(point["name"] for point in person) != self.classes:
                raise ValueError(f"expected the {len(self.classes)} points {', '.join(self.classes)}")
            words.append("human")
            for point in person:
                at = [bin_word(axis, to_bin(value, BINS - 1, 0)) for axis, value in enumerate((point["x"], point["y"]))]
                words += ["point", *at] if point["score"] >= self.score else ["none"]
        return " ".join(words)

    def read(self, words: str) -> Label:
        left = Reader(split(words))
        people = []
        while not left.done:
            left.keyword("human")
            people.append([self._point(left, name) for name in self.classes])
        return people

    def _point(self, left: Reader, name: str) -> dict[str, Any]:
        if left.is_next("none"):
            left.keyword("none")
            return {"name": name, "x": 0.0, "y": 0.0, "score": 0.0}
        left.keyword("point")
        return {"name": name, "x": left.bin(0) / (BINS - 1), "y": left.bin(1) / (BINS - 1), "score": 1.0}


@dataclass(frozen=True)
class InstanceWords:
    """The stream `sam_instance` (`fourm.sam`): each mask cut to its box, brought to 64 x 64, and tokenized.

    Back, a mask is what its codes say inside a box of whole pixels, in an image of `side` pixels.
    """

    masks: Tokenizer
    side: int

    def write(self, label: Label) -> str:
        points = [
            sam.Point(point["x"], point["y"], tuple(self._instance(mask) for mask in unpacked(point["masks"])))
            for point in label
        ]
        return " ".join(sam.write(points))

    def read(self, words: str) -> Label:
        points, found = sam.parse(split(words)), []
        side = max([self.side, *(int(max(one.xmax, one.ymax)) + 1 for point in points for one in point.instances)])
        for point in points:
            masks = np.zeros((len(point.instances), side, side), np.bool_)
            for mask, instance in zip(masks, point.instances, strict=True):
                self._draw(mask, instance)
            found.append({"x": point.x, "y": point.y, "masks": packed(masks)})
        return found

    def _instance(self, mask: NDArray[np.bool_]) -> sam.Instance:
        x0, y0, x1, y1 = box_of(mask, BINS)
        (codes,) = self.masks.encode([cut(mask, (x0, y0, x1, y1))])
        return sam.Instance(x0, y0, x1, y1, tuple(int(c) for c in codes.reshape(-1)))

    def _draw(self, mask: NDArray[np.bool_], instance: sam.Instance) -> None:
        x0, y0, x1, y1 = (int(v) for v in instance.bounds)
        (small,) = self.masks.decode([_ids(instance.codes, self.masks.card).reshape(4, 4)])
        mask[y0 : y1 + 1, x0 : x1 + 1] = resized(small[..., 0], x1 + 1 - x0, y1 + 1 - y0)


@dataclass(frozen=True)
class BodyWords:
    """The stream `human_poses` (`fourm.poses`): the pose as 8 codes, the rest as bins."""

    codes: Tokenizer

    def write(self, label: Label) -> str:
        return " ".join(poses.write([self._person(body) for body in label]))

    def read(self, words: str) -> Label:
        return [self._body(person) for person in poses.parse(split(words))]

    def _person(self, body: dict[str, Any]) -> poses.Person:
        if (len(body["pose"]), len(body["orientation"])) != (POSE_VALUES, 9):
            raise ValueError(
                f"expected {POSE_VALUES} and 9 values, got {len(body['pose'])}, {len(body['orientation'])}"
            )
        (ids,) = self.codes.encode([np.asarray(body["pose"], np.float32)])
        orientation, betas, camera = (tuple(body[name]) for name in ("orientation", "betas", "camera"))
        x0, y0, x1, y1 = (body[side] for side in _SIDES)
        return poses.Person((x0, y0, x1, y1), tuple(int(i) for i in ids), orientation, betas, camera)

    def _body(self, person: poses.Person) -> dict[str, Any]:
        (pose,) = self.codes.decode([_ids(person.pose, self.codes.card)])
        rest = {"orientation": list(person.orientation), "betas": list(person.betas), "camera": list(person.camera)}
        return {**_bounds(person.bounds), "pose": pose.reshape(-1).tolist(), **rest}


def word_writer(kind: str, classes: tuple[str, ...], part: Tokenizer | None = None, side: int = 0) -> WordWriter:
    """The writer for a kind of label.

    Args:
        classes: names of key-points.
        part: the tokenizer of masks or of body poses (`PARTS`).
        side: of the images that instances are of, in pixels.

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
        return InstanceWords(part, side) if kind == "instances" else BodyWords(part)
    if kind == "points":
        return PointWords(classes)
    plain: dict[str, WordWriter] = {"boxes": BoxWords(), "metadata": MetadataWords(), "palette": PaletteWords()}
    return plain[kind]


def check_part(kind: str, card: CodecCard) -> None:
    """CurateError for a tokenizer that does not make the codes that 4M's words have room for."""
    grid, channels, what = PARTS[kind]
    fits = card.modality == "array" and card.grid == grid and card.channels == channels
    if not fits or card.vocabulary > VOCABULARY:
        raise CurateError(
            f"{card.name} cannot tokenize {what}: it is of {card.modality}s of {card.channels} channels, with a grid "
            f"{card.grid} of {card.vocabulary} codes",
            f"give one with a grid {grid} and at most {VOCABULARY} codes",
        )


_SIDES = ("x0", "y0", "x1", "y1")


def _bounds(bounds: tuple[float, float, float, float]) -> dict[str, float]:
    return dict(zip(_SIDES, bounds, strict=True))


def _ids(codes: tuple[int, ...], card: CodecCard) -> NDArray[np.generic]:
    """Codes of words as the tokenizer's ids; ValueError for one that is another tokenizer's."""
    if max(codes) >= card.vocabulary:
        raise ValueError(f"code {max(codes)} is not of {card.name}, which has {card.vocabulary}")
    return np.array(codes, card.numpy_dtype)
