"""Labels as pictures, for any image tokenizer, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from curate.tokenizers.labels.base import DepthMap, EdgeMap, Label, NormalMap, SegmentationMap

SPREAD = 3.0
"""Standard deviations of a depth map on either side of its mean that a picture holds."""


class PictureWriter(Protocol):
    """A label of one kind as an sRGB picture, uint8 `(H, W, 3)`, and back as far as the picture says it."""

    def write(self, label: Label) -> NDArray[np.uint8]: ...

    def read(self, picture: NDArray[np.uint8]) -> Label: ...


class EdgePicture:
    """White edges on black; back: from a mean of 128 on a pixel is an edge. Exact without a tokenizer between."""

    def write(self, label: Label) -> NDArray[np.uint8]:
        if not isinstance(label, EdgeMap):
            raise ValueError(f"expected an EdgeMap, got {type(label).__name__}")
        return np.repeat(label.edges[..., None], 3, axis=-1)

    def read(self, picture: NDArray[np.uint8]) -> EdgeMap:
        return EdgeMap(np.where(picture.mean(-1) >= 128, 255, 0).astype(np.uint8))


@dataclass(frozen=True)
class ClassPicture:
    """A colour for each class; back: the class of the nearest colour. Exact without a tokenizer between.

    The colours are PASCAL VOC's (devkit 2012): bits 0, 3 and 6 of the index are the highest bits of red, bits 1, 4 and
    7 of green, bits 2 and 5 of blue, the lowest of each first. `NOTHING`, 255, has PASCAL's colour of it too, and comes
    back as a class.
    """

    names: tuple[str, ...]

    def write(self, label: Label) -> NDArray[np.uint8]:
        if not isinstance(label, SegmentationMap) or label.names != self.names:
            raise ValueError(f"expected a SegmentationMap of {len(self.names)} classes, got {type(label).__name__}")
        return class_colours(256)[label.classes]

    def read(self, picture: NDArray[np.uint8]) -> SegmentationMap:
        colours, inverse = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
        apart = (colours[:, None].astype(np.int64) - class_colours(len(self.names)).astype(np.int64)) ** 2
        nearest = apart.sum(-1).argmin(-1).astype(np.uint8)
        return SegmentationMap(nearest[inverse.reshape(picture.shape[:2])], self.names)


def class_colours(count: int) -> NDArray[np.uint8]:
    """Colours `(count, 3)` of classes 0 to count - 1, at most 256; all differ."""
    if not 1 <= count <= 256:
        raise ValueError(f"expected 1 to 256 classes, got {count}")
    index = np.arange(count)
    colours = np.zeros((count, 3), np.int64)
    for bit in range(8):
        colours[:, bit % 3] |= (index >> bit & 1) << (7 - bit // 3)
    return colours.astype(np.uint8)


class DepthPicture:
    """Grey, relative depth: 127.5 is the mean, 0 and 255 lie three standard deviations to either side.

    Mean and deviation are of the middle 80 % of values (4M's truncated standardisation). Scale and offset of the depth
    are lost; it comes back with mean 0 and deviation 1, and 6/255 of a deviation as its step.
    """

    def write(self, label: Label) -> NDArray[np.uint8]:
        if not isinstance(label, DepthMap) or not np.isfinite(label.depth).all():
            raise ValueError("expected a DepthMap with finite values")
        ordered = np.sort(label.depth.astype(np.float64), axis=None)
        middle = ordered[len(ordered) // 10 : len(ordered) - len(ordered) // 10]
        apart = float(middle.std())
        z = (label.depth - middle.mean()) / apart if apart > 0 else np.zeros(label.depth.shape)
        if label.direction == "distance":
            z = -z
        grey = np.rint((np.clip(z, -SPREAD, SPREAD) + SPREAD) * (255 / (2 * SPREAD))).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=-1)

    def read(self, picture: NDArray[np.uint8]) -> DepthMap:
        return DepthMap((picture.mean(-1) * (2 * SPREAD / 255) - SPREAD).astype(np.float32), "inverse")


class NormalPicture:
    """(n + 1) / 2 as red, green and blue, as 4M and Omnidata draw normals; back: of unit length again."""

    def write(self, label: Label) -> NDArray[np.uint8]:
        if not isinstance(label, NormalMap):
            raise ValueError(f"expected a NormalMap, got {type(label).__name__}")
        return np.asarray(np.rint((np.clip(label.normals, -1, 1) + 1) * 127.5), np.uint8)

    def read(self, picture: NDArray[np.uint8]) -> NormalMap:
        # No byte stands for 0, so a length is at least sqrt(3)/255.
        raw = picture.astype(np.float32) / np.float32(127.5) - 1
        return NormalMap(raw / np.linalg.norm(raw, axis=-1, keepdims=True))


def picture_writer(kind: str, names: tuple[str, ...]) -> PictureWriter | None:
    """The writer for a kind of label (its class's name); None where it is no map.

    Args:
        names: of the classes of a segmentation.
    """
    if kind == "SegmentationMap":
        return ClassPicture(names)
    plain: dict[str, PictureWriter] = {
        "EdgeMap": EdgePicture(),
        "DepthMap": DepthPicture(),
        "NormalMap": NormalPicture(),
    }
    return plain.get(kind)
