"""Labels as the arrays that 4M's own tokenizers of edges, depth and classes take, and back.

What a map becomes is what ml-4m's transforms make of it (`MODALITY_TRANSFORMS_DIVAE`); normals, which are pictures of
three channels there too, are in `as_pictures`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.labels.base import NOTHING, DepthMap, EdgeMap, Label, SegmentationMap

DOMAINS = {
    "canny_edge": "EdgeMap",
    "sam_edge": "EdgeMap",
    "depth": "DepthMap",
    "semseg_coco": "SegmentationMap",
    "semseg": "SegmentationMap",
}
"""Kind of label that a tokenizer of this name (`tok_NAME@size`) takes; of other names, whatever fits its arrays."""


class ArrayWriter(Protocol):
    """A label of one kind as an array, and back as far as the array says it."""

    def write(self, label: Label) -> NDArray[Any]: ...

    def read(self, array: NDArray[Any]) -> Label: ...

    def hardest(self, side: int) -> NDArray[Any]:
        """What `write` gives with the largest value that it can have, of `side` pixels."""
        ...


class EdgeArray:
    """float32 `(H, W, 1)`: 1 on an edge, -1 elsewhere; back: from 0 on."""

    def write(self, label: Label) -> NDArray[np.float32]:
        if not isinstance(label, EdgeMap):
            raise ValueError(f"expected an EdgeMap, got {type(label).__name__}")
        return np.where(label.edges > 0, np.float32(1), np.float32(-1))[..., None]

    def read(self, array: NDArray[Any]) -> EdgeMap:
        return EdgeMap(np.where(array[..., 0] >= 0, 255, 0).astype(np.uint8))

    def hardest(self, side: int) -> NDArray[np.float32]:
        return np.ones((side, side, 1), np.float32)


class DepthArray:
    """float32 `(H, W, 1)`, growing away from the camera as Omnidata's does: mean 0 and deviation 1 of the middle 80 %.

    Back it has that scale and offset. Of an `inverse` map the negative is written: what is near stays low.
    """

    def write(self, label: Label) -> NDArray[np.float32]:
        if not isinstance(label, DepthMap) or not np.isfinite(label.depth).all():
            raise ValueError("expected a DepthMap with finite values")
        away = -label.depth if label.direction == "inverse" else label.depth
        return _standardised(away).astype(np.float32)[..., None]

    def read(self, array: NDArray[Any]) -> DepthMap:
        return DepthMap(np.asarray(array[..., 0], np.float32), "distance")

    def hardest(self, side: int) -> NDArray[np.float32]:
        return np.zeros((side, side, 1), np.float32)


@dataclass(frozen=True)
class ClassArray:
    """uint8 `(H, W)`: the class plus 1, and 0 where there is none. Exact without a tokenizer between."""

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.names) >= NOTHING:
            raise ValueError(f"{len(self.names)} classes; at most {NOTHING - 1} leave room for none of them")

    def write(self, label: Label) -> NDArray[np.uint8]:
        if not isinstance(label, SegmentationMap) or label.names != self.names:
            raise ValueError(f"expected a SegmentationMap of {len(self.names)} classes, got {type(label).__name__}")
        return label.classes + np.uint8(1)  # `NOTHING`, 255, becomes 0

    def read(self, array: NDArray[Any]) -> SegmentationMap:
        classes = array.astype(np.uint8) - np.uint8(1)
        return SegmentationMap(np.where(classes < len(self.names), classes, NOTHING).astype(np.uint8), self.names)

    def hardest(self, side: int) -> NDArray[np.uint8]:
        return np.full((side, side), len(self.names), np.uint8)


def array_writer(kind: str, names: tuple[str, ...]) -> ArrayWriter | None:
    """The writer for a kind of label (its class's name); None where it is no such map.

    Args:
        names: of the classes of a segmentation.
    """
    match kind:
        case "EdgeMap":
            return EdgeArray()
        case "DepthMap":
            return DepthArray()
        case "SegmentationMap":
            return ClassArray(names)
        case _:
            return None


def check_array(tokenizer: Tokenizer, writer: ArrayWriter, kind: str) -> None:
    """Whether a tokenizer takes what is written for it.

    Raises:
        CurateError: it is one of another kind of map, or refuses such arrays.
    """
    card = tokenizer.card
    wanted = DOMAINS.get(_domain(card), kind)
    if wanted != kind:
        raise CurateError(f"{card.name} is a tokenizer of {wanted}s ({card.stream})", f"this labeler gives a {kind}")
    try:
        tokenizer.encode([writer.hardest(card.input_size or 0)])
    except ValueError as error:
        raise CurateError(f"{card.name} cannot carry a {kind}: {error}", f"it takes {card.input}") from error


def _standardised(depth: NDArray[np.float32]) -> NDArray[np.float64]:
    """Depth in deviations from its mean, both of the middle 80 % of its values; 0 everywhere of a flat map.

    4M's truncated standardisation (ml-4m, `DepthTransform`), which adds 1e-6 to the variance and divides it by n - 1.
    """
    ordered = np.sort(depth.astype(np.float64), axis=None)
    middle = ordered[int(0.1 * len(ordered)) : int(0.9 * len(ordered))]
    if len(middle) < 2 or middle[0] == middle[-1]:
        return np.zeros(depth.shape)
    spread = np.sqrt(middle.var(ddof=1) + 1e-6)
    return np.asarray((depth - middle.mean()) / spread, np.float64)


def _domain(card: CodecCard) -> str:
    return card.stream.removeprefix("tok_").partition("@")[0]
