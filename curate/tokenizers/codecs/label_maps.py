"""Maps as ids: as images for any image tokenizer, or as the arrays that 4M's own tokenizers of them take; and back.

Arrays are what ml-4m's transforms make of maps (`MODALITY_TRANSFORMS_DIVAE`); normals are images there too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.signals.labels import NOTHING, unpacked
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.labels import LabelsFile, LabelTokenizer

SPREAD = 3.0
"""Standard deviations of a depth map on either side of its mean that an image holds."""

DOMAINS = {"canny_edge": "edges", "sam_edge": "edges", "depth": "depth", "semseg_coco": "classes", "semseg": "classes"}
"""Kind of map that a tokenizer of this name (`tok_NAME@size`) takes; of other names, whatever fits its arrays."""

Map = NDArray[Any]
"""One frame's: bool, uint8 or float32 `(H, W)`, float32 `(H, W, 3)` of normals (`curate.signals.labels.TYPES`)."""


class MapWriter(Protocol):
    """A map of one kind as what a tokenizer takes, and back as far as that says it."""

    def write(self, value: Map) -> NDArray[Any]: ...

    def read(self, written: NDArray[Any]) -> Map: ...


class LabelMaps(LabelTokenizer):
    """Maps to ids `(N, *grid)`, those of each frame; `decode` gives `(N, H, W)` or, without that axis, `(H, W)`."""

    def __init__(self, card: CodecCard, file: LabelsFile, inner: Tokenizer, part: Tokenizer | None = None) -> None:
        super().__init__(card, file, inner, part)
        if part is not None:
            raise CurateError(f"{file.kind} have no parts", "those of SAM's instances and of bodies have")
        self._writer = _writer(file, inner)

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        return self._inner.encode([np.stack([self._writer.write(one) for one in self._maps(item)]) for item in items])

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        dims, back = len(self.card.grid or ()), self._inner.decode(ids)
        return [
            np.stack([self._writer.read(one) for one in found]) if given.ndim > dims else self._writer.read(found)
            for given, found in zip(ids, back, strict=True)
        ]

    def drawn(self, label: Any) -> NDArray[np.uint8]:
        return self._drawn(self._maps(label))

    def redrawn(self, ids: NDArray[np.generic]) -> NDArray[np.uint8]:
        if self._inner.card.modality == "image":  # what it decodes to is what was drawn, with its own errors
            images: NDArray[np.uint8] = self._inner.decode([ids])[0]
            return images
        return self._drawn(self.decode([ids])[0])

    def _drawn(self, maps: NDArray[Any]) -> NDArray[np.uint8]:
        writer = image_writer(self.file.kind, self.file.classes)
        return np.stack([writer.write(one) for one in maps])

    def _maps(self, label: Any) -> NDArray[Any]:
        try:
            maps = unpacked(label)
        except ValueError as error:
            raise ValueError(f"{self.card.name} expects a label of {self.file.kind}: {error}") from error
        side, dims = self.card.input_size or 0, 4 if self.file.kind == "normals" else 3
        if (
            maps.ndim != dims
            or not len(maps)
            or maps.shape[1:3] != (side, side)
            or maps.dtype != _DTYPES[self.file.kind]
        ):
            raise ValueError(
                f"{self.card.name} expects {self.file.kind}, {_DTYPES[self.file.kind]} of frames of {side} pixels a "
                f"side, got {maps.dtype} {maps.shape}"
            )
        if maps.dtype == np.float32 and not np.isfinite(maps).all():
            raise ValueError(f"{self.card.name} expects finite values")
        return maps


_DTYPES = {"edges": "bool", "classes": "uint8", "depth": "float32", "normals": "float32"}


class EdgeImage:
    """White edges on black; back: from a mean of 128 on a pixel is an edge. Exact without a tokenizer between."""

    def write(self, value: Map) -> NDArray[np.uint8]:
        return np.repeat((value * np.uint8(255))[..., None], 3, axis=-1)

    def read(self, written: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(written.mean(-1) >= 128)


@dataclass(frozen=True)
class ClassImage:
    """A colour for each class; back: the class of the nearest colour. Exact without a tokenizer between.

    The colours are PASCAL VOC's (devkit 2012): bits 0, 3 and 6 of the index are the highest bits of red, bits 1, 4 and
    7 of green, bits 2 and 5 of blue, the lowest of each first. `NOTHING`, 255, has PASCAL's colour of it too, and comes
    back as a class.
    """

    classes: tuple[str, ...]

    def write(self, value: Map) -> NDArray[np.uint8]:
        return class_colours(256)[value]

    def read(self, written: NDArray[Any]) -> NDArray[np.uint8]:
        colours, inverse = np.unique(written.reshape(-1, 3), axis=0, return_inverse=True)
        apart = (colours[:, None].astype(np.int64) - class_colours(len(self.classes)).astype(np.int64)) ** 2
        nearest: NDArray[np.uint8] = apart.sum(-1).argmin(-1).astype(np.uint8)
        return nearest[inverse.reshape(written.shape[:2])]


def class_colours(count: int) -> NDArray[np.uint8]:
    """Colours `(count, 3)` of classes 0 to count - 1, at most 256; all differ."""
    if not 1 <= count <= 256:
        raise ValueError(f"expected 1 to 256 classes, got {count}")
    index = np.arange(count)
    colours = np.zeros((count, 3), np.int64)
    for bit in range(8):
        colours[:, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return colours.astype(np.uint8)


class DepthImage:
    """Grey, near is bright: 127.5 is the mean, 0 and 255 lie three standard deviations to either side.

    Mean and deviation are of the middle 80 % of values (4M's truncated standardisation). Scale and offset of the depth
    are lost; it comes back with mean 0 and deviation 1, and 6/255 of a deviation as its step.
    """

    def write(self, value: Map) -> NDArray[np.uint8]:
        ordered = np.sort(value.astype(np.float64), axis=None)
        inside = ordered[len(ordered) // 10 : len(ordered) - len(ordered) // 10]
        apart = float(inside.std())
        z = (value - inside.mean()) / apart if apart > 0 else np.zeros(value.shape)
        grey = np.rint((np.clip(z, -SPREAD, SPREAD) + SPREAD) * (255 / (2 * SPREAD))).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)

    def read(self, written: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(written.mean(-1) * (2 * SPREAD / 255) - SPREAD, np.float32)


class NormalImage:
    """(n + 1) / 2 as red, green and blue, as 4M and Omnidata draw normals; back: of unit length again."""

    def write(self, value: Map) -> NDArray[np.uint8]:
        return np.asarray(np.rint((np.clip(value, -1, 1) + 1) * 127.5), np.uint8)

    def read(self, written: NDArray[Any]) -> NDArray[np.float32]:
        # No byte stands for 0, so a length is at least sqrt(3)/255.
        raw = written.astype(np.float32) / np.float32(127.5) - 1
        return np.asarray(raw / np.linalg.norm(raw, axis=-1, keepdims=True))


class EdgeArray:
    """float32 `(H, W, 1)`: 1 on an edge, -1 elsewhere; back: from 0 on."""

    def write(self, value: Map) -> NDArray[np.float32]:
        return np.where(value, np.float32(1), np.float32(-1))[..., None]

    def read(self, written: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(written[..., 0] >= 0)


class DepthArray:
    """float32 `(H, W, 1)`, growing away from the camera as Omnidata's does: mean 0 and deviation 1 of the middle 80 %.

    Back it has that scale and offset. It is 4M's truncated standardisation (ml-4m, `DepthTransform`), which adds 1e-6
    to the variance and divides it by n - 1; 0 everywhere of a flat map.
    """

    def write(self, value: Map) -> NDArray[np.float32]:
        away = -value
        ordered = np.sort(away.astype(np.float64), axis=None)
        inside = ordered[int(0.1 * len(ordered)) : int(0.9 * len(ordered))]
        if len(inside) < 2 or inside[0] == inside[-1]:
            return np.zeros((*value.shape, 1), np.float32)
        spread = np.sqrt(inside.var(ddof=1) + 1e-6)
        return np.asarray((away - inside.mean()) / spread, np.float64).astype(np.float32)[..., None]

    def read(self, written: NDArray[Any]) -> NDArray[np.float32]:
        return np.asarray(-written[..., 0], np.float32)


@dataclass(frozen=True)
class ClassArray:
    """uint8 `(H, W)`: the class plus 1, and 0 where there is none. Exact without a tokenizer between."""

    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.classes) >= NOTHING:
            raise ValueError(f"{len(self.classes)} classes; at most {NOTHING - 1} leave room for none of them")

    def write(self, value: Map) -> NDArray[np.uint8]:
        return value.astype(np.uint8) + np.uint8(1)  # `NOTHING`, 255, becomes 0

    def read(self, written: NDArray[Any]) -> NDArray[np.uint8]:
        classes = written.astype(np.uint8) - np.uint8(1)
        return np.where(classes < len(self.classes), classes, NOTHING).astype(np.uint8)


def image_writer(kind: str, classes: tuple[str, ...]) -> MapWriter:
    """Writes maps of a kind as images, uint8 `(H, W, 3)` sRGB."""
    if kind == "classes":
        return ClassImage(classes)
    plain: dict[str, MapWriter] = {"edges": EdgeImage(), "depth": DepthImage(), "normals": NormalImage()}
    return plain[kind]


def array_writer(kind: str, classes: tuple[str, ...]) -> MapWriter | None:
    """Writes maps of a kind as arrays; None of normals, which 4M tokenizes as images."""
    match kind:
        case "edges":
            return EdgeArray()
        case "depth":
            return DepthArray()
        case "classes":
            return ClassArray(classes)
        case _:
            return None


def _writer(file: LabelsFile, inner: Tokenizer) -> MapWriter:
    """The writer of a kind for a tokenizer of images or arrays.

    Raises:
        CurateError: there is none, or the tokenizer is one of another kind of map, or refuses its arrays.
    """
    card, kind = inner.card, file.kind
    if card.modality == "image":
        return image_writer(kind, file.classes)
    writer = array_writer(kind, file.classes) if card.modality == "array" else None
    if writer is None:
        raise CurateError(f"{card.name} cannot write {kind}", "maps take an image tokenizer, or 4M's own for such maps")
    wanted = DOMAINS.get(card.stream.removeprefix("tok_").partition("@")[0], kind)
    if wanted != kind:
        raise CurateError(f"{card.name} is a tokenizer of {wanted} ({card.stream})", f"this signal gives {kind}")
    side = (card.input_size or 0,) * 2
    hardest: dict[str, Map] = {
        "edges": np.ones(side, np.bool_),
        "depth": np.zeros(side, np.float32),
        "classes": np.full(side, max(len(file.classes), 1) - 1, np.uint8),
    }
    try:
        inner.encode([writer.write(hardest[kind])])
    except ValueError as error:
        raise CurateError(f"{card.name} cannot carry {kind}: {error}", f"it takes {card.input}") from error
    return writer
