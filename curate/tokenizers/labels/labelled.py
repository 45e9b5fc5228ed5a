"""A stream of labels: a labeler, and the tokenizer that its labels are written with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from curate.schema.codec import CodecCard, Preprocessing
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.folders import code_version, read_folder, write_folder
from curate.tokenizers.grid import probes
from curate.tokenizers.inputs import PICTURES
from curate.tokenizers.labels.as_arrays import ArrayWriter, array_writer, check_array
from curate.tokenizers.labels.as_pictures import PictureWriter, picture_writer
from curate.tokenizers.labels.as_words import WordWriter, word_writer
from curate.tokenizers.labels.base import Boxes, Label, Labeler, Metadata, Palette, SampleLabeler
from curate.tokenizers.labels.registry import labeler_of

WORDS = "curate.tokenizers.fourm.words:WordsTokenizer"
_FILE = "labels.json"
_SIDE, _SIDE_OF_INSTANCES = 256, 224
_OF_THE_WHOLE = ("Metadata", "Palette")
"""Kinds that say something of the whole picture, as in 4M-21; the others are of the square that is tokenized."""


class LabelsFile(BaseModel):
    """`labels.json`; the card's `weights_digest` is of its bytes.

    Attributes:
        labeler: a name of `curate.tokenizers.labels.registry`, or `package.module:Class`; options: its arguments.
        labeler_digest: its `digest` when the folder was made.
        tokenizer: a name of the zoo, a folder, or `package.module:Class`; tokenizer_digest: its card's weights digest.
        kind: class of the labels; names: of their classes or key-points.
        parts: the tokenizer of what the words hold codes of, masks or poses, named as `tokenizer` is; parts_digest:
            its card's weights digest.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    labeler: str
    options: dict[str, Any] = {}
    labeler_digest: str
    tokenizer: str
    tokenizer_digest: str
    kind: str
    names: tuple[str, ...] = ()
    parts: str | None = None
    parts_digest: str | None = None


class Labelled:
    """Pictures to ids of their labels (a `Tokenizer`); `decode` gives labels.

    An item is uint8 `(H, W, 3)` or `(N, H, W, 3)`, or, where the card has `needs`, a dict of them: `frames` as such,
    `text` (a caption or None), `size` ([width, height] of the original or None). H and W are the card's `input_size`;
    where its `preprocessing` reduces the `long_side`, no more than that.
    Labels that are maps become pictures for an image tokenizer, or arrays for a tokenizer of such maps (4M's own), with
    its ids for each picture. Labels that are lists become words, one sequence of ids `(n,)` an item: of its middle
    picture (number N // 2).
    """

    def __init__(
        self,
        card: CodecCard,
        file: LabelsFile,
        labeler: Labeler | SampleLabeler,
        inner: Tokenizer,
        part: Tokenizer | None = None,
    ) -> None:
        for which, found, wanted in (
            ("labeler", labeler.digest, file.labeler_digest),
            ("tokenizer", inner.card.weights_digest, file.tokenizer_digest),
            ("tokenizer of parts", None if part is None else part.card.weights_digest, file.parts_digest),
        ):
            if found != wanted:
                raise CurateError(
                    f"the {which} of {card.name} is not the one that it was made with",
                    "its weights or options differ; make the folder again, and tokenise again what was made with the "
                    "other",
                )
        self.card, self._labeler, self._inner = card, labeler, inner
        self._maps, self._words = _writers(file, inner.card, part, card.input_size or 0)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Labelled:
        """Reads `card.json` and `labels.json`; labeler and tokenizer must be those that the folder was made with."""
        card, raw = read_folder(folder, _FILE)
        try:
            file = LabelsFile.model_validate_json(raw)
        except ValueError as error:
            raise CurateError(f"the tokenizer {folder.name} cannot be read: {error}") from error
        labeler, inner = labeler_of(file.labeler, file.options, device), zoo.load(file.tokenizer, device)
        return cls(card, file, labeler, inner, None if file.parts is None else zoo.load(file.parts, device))

    def label(self, item: Any) -> Sequence[Label]:
        """The labels of an item's pictures; of the middle one alone where they are written as words."""
        frames, text, size = self._parts(item)
        if self._words is not None:
            frames = frames[len(frames) // 2 :][:1]
        if isinstance(self._labeler, SampleLabeler):
            return self._labeler.of_sample(frames, text, size)
        return self._labeler(frames)

    @property
    def of_maps(self) -> bool:
        """Whether labels are maps, which can be drawn; else they are words."""
        return self._words is None

    def drawn(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The maps of frames `(N, H, W, 3)` as pictures, uint8 of the same shape; CurateError for words."""
        return self._drawn(self.label(frames))

    def redrawn(self, ids: NDArray[np.generic]) -> NDArray[np.uint8]:
        """The maps that ids `(N, *grid)` say, as pictures, uint8 `(N, H, W, 3)`; CurateError for words."""
        if self._inner.card.modality == "image":  # what it decodes to is what was drawn, with its own errors
            pictures: NDArray[np.uint8] = self._inner.decode([ids])[0]
            return pictures
        return self._drawn(self.decode([ids])[0])

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Items to ids; ValueError for one that breaks the input contract, or a label that cannot be written."""
        return [self._encode(item) for item in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to a label, or a list of labels for a stack of maps."""
        back = self._inner.decode(ids)
        if self._words is not None:
            return [self._words.read(words) for words in back]
        writer, dims = cast(PictureWriter | ArrayWriter, self._maps), len(self.card.grid or ())
        stacks = [one.ndim > dims for one in ids]
        return [
            [writer.read(one) for one in p] if many else writer.read(p) for p, many in zip(back, stacks, strict=True)
        ]

    def lossless(self, item: Any, ids: NDArray[np.generic]) -> bool | None:
        """Whether the words of an item's ids say its label exactly; None of maps and of labels that hold arrays."""
        if self._words is None:
            return None
        (label,) = self.label(item)
        return self.decode([ids])[0] == label if isinstance(label, Boxes | Metadata | Palette) else None

    def _encode(self, item: Any) -> NDArray[np.generic]:
        labels = self.label(item)
        if self._words is not None:
            return self._inner.encode([self._words.write(labels[0])])[0]
        written = self._written(labels)
        frames = item["frames"] if isinstance(item, Mapping) else item
        return self._inner.encode([written[0] if frames.ndim == 3 else written])[0]

    def _written(self, labels: Sequence[Label]) -> NDArray[Any]:
        writer = cast(PictureWriter | ArrayWriter, self._maps)
        return np.stack([writer.write(label) for label in labels])

    def _drawn(self, labels: Sequence[Label]) -> NDArray[np.uint8]:
        kind = type(labels[0]).__name__
        writer = picture_writer(kind, tuple(getattr(labels[0], "names", ())))
        if writer is None:
            raise CurateError(f"{self.card.name} writes {kind} in words", "words are not drawn")
        return np.stack([writer.write(label) for label in labels])

    def _parts(self, item: Any) -> tuple[NDArray[np.uint8], str | None, tuple[int, int] | None]:
        given = item if isinstance(item, Mapping) else {"frames": item}
        if absent := [name for name in self.card.needs if name not in given]:
            raise ValueError(f"{self.card.name} expects {', '.join(self.card.needs)}; the item lacks {absent[0]}")
        frames, size = given["frames"], given.get("size")
        if not isinstance(frames, np.ndarray) or not self._takes(frames):
            side, how = self.card.input_size, "at most " if self._whole else ""
            got = f"{frames.dtype} {frames.shape}" if isinstance(frames, np.ndarray) else type(frames).__name__
            raise ValueError(f"{self.card.name} expects uint8 (H, W, 3) or (N, H, W, 3), sides {how}{side}, got {got}")
        stack: NDArray[np.uint8] = frames.reshape(-1, *frames.shape[-3:])
        return stack, given.get("text"), None if size is None else (size[0], size[1])

    @property
    def _whole(self) -> bool:
        return self.card.preprocessing is not None and self.card.preprocessing.resize == "long_side"

    def _takes(self, frames: NDArray[Any]) -> bool:
        if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or frames.shape[-1] != 3 or 0 in frames.shape:
            return False
        side, sides = self.card.input_size or 0, frames.shape[-3:-1]
        return max(sides) <= side if self._whole else sides == (side, side)


def make_labelled(
    folder: Path,
    labeler: str,
    options: Mapping[str, Any],
    stream: str,
    tokenizer: str = WORDS,
    size: int | None = None,
    parts: str | None = None,
    licence: str = "that of the labeler's weights, as their publisher states",
    trained_on: str = "see the labeler and the tokenizer",
) -> CodecCard:
    """Writes `card.json` and `labels.json`, whose folder's name becomes the tokenizer's.

    Args:
        labeler, options: as `labeler_of` takes them. Paths among the options are kept as they are given.
        stream: e.g. `tok_canny_edge@256`, `metadata`, `color_palette`, `det`.
        tokenizer: of the zoo, a folder, or a class: an image tokenizer for maps, or 4M's own of edges, depth or
            classes; the closed vocabulary for lists.
        size: side of the pictures for lists, 224 for instances as in 4M and 256 for others; the long one for metadata
            and palettes, which are of the whole picture. For maps it is the image tokenizer's.
        parts: a tokenizer of masks for instances, of poses for bodies.

    Raises:
        CurateError: there is no such labeler or tokenizer, or the one cannot write the other's labels.
    """
    made, inner = labeler_of(labeler, options), zoo.load(tokenizer)
    part = None if parts is None else zoo.load(parts)
    blank = np.zeros((1, _SIDE, _SIDE, 3), np.uint8)
    probe = made.of_sample(blank, "", (_SIDE, _SIDE)) if isinstance(made, SampleLabeler) else made(blank)
    kind = type(probe[0]).__name__
    side = inner.card.input_size or size or (_SIDE_OF_INSTANCES if kind == "Instances" else _SIDE)
    file = LabelsFile(
        labeler=labeler,
        options=dict(options),
        labeler_digest=made.digest,
        tokenizer=tokenizer,
        tokenizer_digest=inner.card.weights_digest,
        kind=kind,
        names=tuple(getattr(probe[0], "names", ())),
        parts=parts,
        parts_digest=None if part is None else part.card.weights_digest,
    )
    maps, words = _writers(file, inner.card, part, side)
    if inner.card.modality == "array":
        check_array(inner, cast(ArrayWriter, maps), kind)
    more: tuple[Literal["text", "size"], ...] = made.needs if isinstance(made, SampleLabeler) else ()
    whole = file.kind in _OF_THE_WHOLE
    pixels = f"({side}, {side}, 3)" if not whole else f"(H, W, 3), the whole picture, long side at most {side},"
    of = inner.card.model_dump()
    raw = (json.dumps(file.model_dump(mode="json", exclude_none=True), indent=2, sort_keys=True) + "\n").encode()
    changed = {
        "name": folder.name,
        "version": 1,
        "architecture": "labelled",
        "stream": stream,
        "input_size": side,
        "channels": 3,
        "modality": "text" if words is not None else "image",
        # A sequence of words is text; the pictures that it is written from must then be asked for.
        "needs": ["frames", *more] if words is not None or more else [],
        "input": (
            f"uint8 sRGB {pixels} or a stack of them; {made.name} labels them ({file.kind}), "
            f"{inner.card.name} writes the labels{PICTURES}"
        ),
        "preprocessing": inner.card.preprocessing or _pictures_of(whole),
        "chunking": "the middle picture of a stack, number N // 2" if words is not None else "each picture alone",
        "padding": "none",
        "valid_length": "all ids are valid",
        "weights_digest": digest(raw),
        "code_version": code_version("numpy", "opencv-python-headless"),
        "trained_on": trained_on,
        "licence": licence,
        "quality": [],
        "batch_invariance": None,  # measured below
        "bf16_difference": None,  # that of the inner card is of photographs
    }
    try:
        card = CodecCard.model_validate(of | changed)
    except ValidationError as error:
        raise CurateError(f"{tokenizer} cannot carry labels of {labeler}: {error}") from error
    card = card.model_copy(
        update={"batch_invariance": _batch_difference(Labelled(card, file, made, inner, part), side)}
    )
    write_folder(folder, card, {_FILE: raw})
    return card


def _pictures_of(whole: bool) -> Preprocessing:
    """How pictures come to a labeler whose labels no tokenizer of pictures writes."""
    return Preprocessing(
        resize="long_side" if whole else "short_side", resample="lanczos", crop=None if whole else "centre"
    )


def _writers(
    file: LabelsFile, card: CodecCard, part: Tokenizer | None, side: int
) -> tuple[PictureWriter | ArrayWriter | None, WordWriter | None]:
    """The one writer of a kind for a tokenizer of pictures, arrays or words; CurateError where there is none."""
    maps: PictureWriter | ArrayWriter | None = None
    if card.modality == "image":
        maps = picture_writer(file.kind, file.names)
    elif card.modality == "array":
        maps = array_writer(file.kind, file.names)
    words = word_writer(file.kind, file.names, part, side) if card.modality == "text" else None
    if maps is None and words is None:
        raise CurateError(
            f"{card.name} cannot write {file.kind}",
            "maps (edges, classes, depth, normals) take an image tokenizer, or 4M's own for such maps; lists (boxes, "
            f"points, metadata, palette, instances, bodies) take {WORDS}",
        )
    return maps, words


def _batch_difference(tokenizer: Labelled, side: int) -> float | None:
    """The share of ids that differ when three synthetic pictures are encoded alone and together; None without ids."""
    frames = [*probes(2, side), np.zeros((1, side, side, 3), np.uint8)]
    items = [{"frames": f, "text": "a red ball", "size": [side, side]} for f in frames]
    together, alone = tokenizer.encode(items), [tokenizer.encode([item])[0] for item in items]
    differing = sum(a.size if a.shape != b.shape else int((a != b).sum()) for a, b in zip(alone, together, strict=True))
    total = sum(a.size for a in alone)
    return differing / total if total else None
