"""What a labeler is, and what it says of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelBox:
    """A thing in a picture.

    Attributes:
        x0, y0, x1, y1: left, top, right, bottom as shares of width and height, in [0, 1].
        name: its class. score: the detector's, in [0, 1].
    """

    x0: float
    y0: float
    x1: float
    y1: float
    name: str
    score: float = 1.0


@dataclass(frozen=True)
class Boxes:
    """Things in one picture, in the detector's order; empty where there is none."""

    boxes: tuple[LabelBox, ...]


@dataclass(frozen=True)
class KeyPoints:
    """Body key-points.

    Attributes:
        points: float32 `(people, len(names), 3)`: x and y as shares of width and height, and a score in [0, 1].
        names: of the points, in order.
    """

    points: NDArray[np.float32]
    names: tuple[str, ...]


NOTHING = 255
"""In a `SegmentationMap`: none of its classes."""


@dataclass(frozen=True)
class SegmentationMap:
    """A class of each pixel: uint8 `(H, W)`, an index into `names`; `NOTHING` where it is none of them."""

    classes: NDArray[np.uint8]
    names: tuple[str, ...]


@dataclass(frozen=True)
class EdgeMap:
    """uint8 `(H, W)`: 255 on an edge, 0 elsewhere."""

    edges: NDArray[np.uint8]


@dataclass(frozen=True)
class Palette:
    """One to seven sRGB colours `(r, g, b)` of 0 to 255, the most frequent first."""

    colours: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Metadata:
    """Named numbers; one that is not known of a sample is absent."""

    values: dict[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True)
class DepthMap:
    """float32 `(H, W)`: `distance` grows away from the camera, `inverse` towards it; the unit is the model's own."""

    depth: NDArray[np.float32]
    direction: Literal["distance", "inverse"] = "inverse"


@dataclass(frozen=True)
class NormalMap:
    """Surface normals, float32 `(H, W, 3)` of unit length: x right, y down, z away from the camera."""

    normals: NDArray[np.float32]


@dataclass(frozen=True)
class Instances:
    """What stands at some points of one picture.

    Attributes:
        points: `(x, y)` in pixels.
        masks: for each point the masks that contain it, bool `(H, W)`; none where nothing was found there.
    """

    points: tuple[tuple[int, int], ...]
    masks: tuple[tuple[NDArray[np.bool_], ...], ...]


@dataclass(frozen=True)
class Body:
    """A person as an SMPL body (Loper et al. 2015).

    Attributes:
        bounds: x0, y0, x1, y1 as shares of width and height, in [0, 1].
        pose: rotation matrices of the 23 joints, float32 `(23, 3, 3)`.
        orientation: of the whole body, float32 `(3, 3)`.
        betas: shape, float32 `(10,)`. camera: scale and shift in the frame of the box, float32 `(3,)`.
    """

    bounds: tuple[float, float, float, float]
    pose: NDArray[np.float32]
    orientation: NDArray[np.float32]
    betas: NDArray[np.float32]
    camera: NDArray[np.float32]


@dataclass(frozen=True)
class Bodies:
    """People in one picture; empty where there is none."""

    people: tuple[Body, ...]


Label = Boxes | KeyPoints | SegmentationMap | EdgeMap | Palette | Metadata | DepthMap | NormalMap | Instances | Bodies


@runtime_checkable
class Labeler(Protocol):
    """Says something of pictures.

    Attributes:
        name: what it is called in cards.
        digest: BLAKE3 of its weights; of name, version and parameters where it has none. Two labelers with the same
            digest give the same labels on the same hardware.
    """

    name: str
    digest: str

    def __call__(self, pictures: NDArray[np.uint8]) -> Sequence[Label]:
        """One label for each of sRGB pictures, uint8 `(N, H, W, 3)`, which does not depend on the other pictures."""
        ...


@runtime_checkable
class SampleLabeler(Protocol):
    """A labeler that also reads the sample's caption or the size of the original.

    Attributes:
        needs: which of the two; goes into the card's `needs`.
    """

    name: str
    digest: str
    needs: tuple[Literal["text", "size"], ...]

    def of_sample(self, pictures: NDArray[np.uint8], text: str | None, size: tuple[int, int] | None) -> Sequence[Label]:
        """One label for each picture of one sample.

        Args:
            text: the caption; None where there is none.
            size: width and height of the original in pixels.
        """
        ...


def check_pictures(pictures: NDArray[np.uint8]) -> None:
    """ValueError for what is not uint8 `(N, H, W, 3)` with at least one pixel."""
    if pictures.dtype != np.uint8 or pictures.ndim != 4 or pictures.shape[-1] != 3 or 0 in pictures.shape[1:]:
        raise ValueError(f"expected uint8 (N, H, W, 3), got {pictures.dtype} {pictures.shape}")
