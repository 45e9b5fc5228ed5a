"""Labels of images: a typed field, and numbers of it that rules can use.

A label is one value a sample, as Python and Arrow have it (`TYPES`). Maps are arrays of every frame that the signal
looks at, `(N, H, W)`, packed so that the discrete ones are exact and small; lists are of the middle frame, number
N // 2. Places are shares of width and height in [0, 1] unless said otherwise.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from curate.media.requests import Frames
from curate.schema.fields import SignalField
from curate.signals import base
from curate.signals.base import Batch, Result, Signal, map_samples

Kind = Literal["edges", "classes", "depth", "normals", "boxes", "points", "palette", "metadata", "instances", "bodies"]

IMAGES = ("image", "video")
NOTHING = 255
"""In a map of classes: none of them."""

ARRAY = pa.struct([("shape", pa.list_(pa.int32())), ("dtype", pa.string()), ("data", pa.binary())])
"""An array (`packed`): `data` is zstd of its values by rows, little-endian; of bool eight a byte, the first highest."""

_SHARES = [(name, pa.float32()) for name in ("x0", "y0", "x1", "y1")]

TYPES: dict[Kind, pa.DataType] = {
    # bool (N, H, W): where an edge is
    "edges": ARRAY,
    # uint8 (N, H, W): an index into the signal's `classes`, NOTHING where it is none of them
    "classes": ARRAY,
    # float32 (N, H, W), growing towards the camera (inverse depth, or the negative of a distance), in the model's unit
    "depth": ARRAY,
    # float32 (N, H, W, 3) of unit length: x right, y down, z away from the camera
    "normals": ARRAY,
    # things, the best first, in which frame; scores in [0, 1]
    "boxes": pa.list_(pa.struct([("frame", pa.int32()), *_SHARES, ("name", pa.string()), ("score", pa.float32())])),
    # people, each the points of the signal's `classes` in order
    "points": pa.list_(pa.list_(pa.struct([("name", pa.string()), *((n, pa.float32()) for n in ("x", "y", "score"))]))),
    # sRGB colours, the most frequent first
    "palette": pa.list_(pa.struct([(name, pa.uint8()) for name in ("red", "green", "blue")])),
    # named numbers; one that is not known of a sample is not there
    "metadata": pa.list_(pa.struct([("name", pa.string()), ("value", pa.float64())])),
    # points in whole pixels, each with the masks that contain it: bool (n, H, W), n may be 0
    "instances": pa.list_(pa.struct([("x", pa.int32()), ("y", pa.int32()), ("masks", ARRAY)])),
    # people as SMPL bodies (Loper et al. 2015): rotation matrices by rows, of 23 joints and of the whole body; shape;
    # scale and shift of the camera in the frame of the box
    "bodies": pa.list_(
        pa.struct(
            [
                *_SHARES,
                ("pose", pa.list_(pa.float32(), 207)),
                ("orientation", pa.list_(pa.float32(), 9)),
                ("betas", pa.list_(pa.float32(), 10)),
                ("camera", pa.list_(pa.float32(), 3)),
            ]
        )
    ),
}
"""Arrow type of each kind of label."""

MAPS: tuple[Kind, ...] = ("edges", "classes", "depth", "normals")


class LabelOptions(base.Options):
    """What a label is of, and what it is called.

    Attributes:
        field: name of the signal and of its label's field, with which the names of its numbers begin; for a second
            label of one sort in a recipe. Empty: the signal's own name.
        size, fps, max_frames: frames that it looks at, as `curate.media.requests.Frames` has them.
    """

    field: str = Field("", pattern="^([a-z][a-z0-9_]*)?$")
    size: int = Field(256, gt=0)
    fps: float = Field(1.0, gt=0)
    max_frames: int = Field(8, gt=0)


class MapOptions(LabelOptions):
    """As `LabelOptions`; `crops`: of each image, as the recipe's `tokenize` has it."""

    crops: int = Field(1, ge=1)


class BoxOptions(LabelOptions):
    """As `LabelOptions`.

    Attributes:
        score: things below it are left out; 0.6 as in 4M.
        whole: True if it sees the whole image, its long side reduced to the size; False: the centre square, which is
            what words of boxes are of.
    """

    score: float = Field(0.6, ge=0, le=1)
    whole: bool = False


class LabelSignal(Signal):
    """A signal whose first field is a label.

    Class attributes:
        kind: of the label; its field is of `TYPES[kind]`.
        whole: True if it sees the whole image, its long side reduced to the size; False: the centre square.
            Detectors have it as an option.
        classes: names of the classes of a segmentation, or of the points of a person; known once it is loaded.
    """

    kind: ClassVar[Kind]
    whole: bool = False
    classes: tuple[str, ...] = ()
    Options: ClassVar[type[base.Options]] = LabelOptions
    options: LabelOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        use = self.options
        whole = use.whole if isinstance(use, BoxOptions) else self.whole
        crops = use.crops if isinstance(use, MapOptions) else 1
        self.view = Frames(use.size, use.fps, use.max_frames, crop=not whole, crops=crops)
        self.needs = (self.view,)
        if use.field:
            own = type(self).name
            self.gives = tuple(_renamed(field, own, use.field) for field in self.gives)
            self.name = use.field

    @abstractmethod
    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        """The label and its numbers, by the names of `gives` as the class has them.

        Args:
            frames: uint8 `(N, H, W, 3)` sRGB, of `view`.
            batch, i: the sample that they are of.
        """

    def __call__(self, batch: Batch) -> list[Result]:
        views = batch.views[self.view]

        def one(i: int) -> dict[str, Any]:
            frames = views[i]
            return self.named(None if frames is None else self.of(cast(NDArray[np.uint8], frames), batch, i))

        return map_samples(f"annotate:{self.name}", batch, one)

    def named(self, found: dict[str, Any] | None) -> dict[str, Any]:
        """What `of` says by the names of this signal's fields; of a sample without the view all are null."""
        if found is None:
            return dict.fromkeys(field.name for field in self.gives)
        own = type(self).name
        return {field.name: found.get(own + field.name[len(self.name) :]) for field in self.gives}


def label_field(name: str, kind: Kind, about: str) -> SignalField:
    """The field of a label."""
    return SignalField(name, TYPES[kind], kinds=IMAGES, about=about)


def number(name: str, unit: str, high: float | None, about: str) -> SignalField:
    """A number of a label, from 0 on; a whole one where it has no fraction: `unit` is `count`."""
    kind = pa.int32() if unit == "count" else pa.float32()
    return SignalField(name, kind, unit, (0, high), IMAGES, about)


def middle(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The frame that lists are of, `(H, W, 3)`."""
    frame: NDArray[np.uint8] = np.ascontiguousarray(frames[len(frames) // 2])
    return frame


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """An array as a cell of ARRAY, exactly."""
    values = np.packbits(array) if array.dtype == np.bool_ else array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {
        "shape": list(array.shape),
        "dtype": array.dtype.name,
        "data": pa.compress(np.ascontiguousarray(values).tobytes(), codec="zstd", asbytes=True),
    }


def unpacked(cell: dict[str, Any]) -> NDArray[Any]:
    """The array of a cell of ARRAY.

    Raises:
        ValueError: it is no such cell.
    """
    try:
        return _unpacked(cell)
    except (OSError, TypeError, LookupError, pa.ArrowException) as error:
        raise ValueError(f"not an array of a label: {error!r}") from error


def _unpacked(cell: dict[str, Any]) -> NDArray[Any]:
    shape, dtype = tuple(cell["shape"]), np.dtype(cell["dtype"])
    count = math.prod(shape)
    size = -(-count // 8) if dtype == np.bool_ else count * dtype.itemsize
    raw = pa.decompress(cell["data"], size, codec="zstd", asbytes=True)
    if dtype == np.bool_:
        return np.unpackbits(np.frombuffer(raw, np.uint8), count=count).astype(np.bool_).reshape(shape)
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)


def _renamed(field: SignalField, own: str, name: str) -> SignalField:
    return replace(field, name=name + field.name.removeprefix(own))
