"""A thumbnail as a vector: finds copies of one picture that were scaled, re-encoded or slightly retouched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.schema.fields import SignalField
from curate.signals.base import Batch, Result, Signal, map_samples

SIDE = 16
VIEW = Frames(size=224, fps=1, max_frames=8)


class TinyImage(Signal):
    """The picture at 16 x 16 in colour, mean taken off, at unit length (after the tiny images of Torralba et al. 2008).

    The cosine of two is the correlation of their thumbnails: above 0.98 for copies, rarely so for different pictures of
    one scene. A network's features are about content, this is about the very picture; a flat picture has none (null).
    """

    name = "tiny_image"
    needs = (VIEW,)
    gives = (
        SignalField(
            "tiny_image",
            pa.list_(pa.float32(), SIDE * SIDE * 3),
            kinds=("image", "video"),
            about="16 x 16 colour thumbnail, mean over frames, zero mean, unit length.",
        ),
    )

    def __call__(self, batch: Batch) -> list[Result]:
        frames = batch.views[VIEW]

        def one(i: int) -> dict[str, Any]:
            stack = frames[i]
            return {"tiny_image": None if stack is None else thumbnail(stack)}

        return map_samples("annotate:tiny_image", batch, one)


def thumbnail(frames: NDArray[Any]) -> NDArray[np.float32] | None:
    """uint8 `(N, 224, 224, 3)` to float32 `(768,)` of unit length; None for a flat picture."""
    n, height, width, channels = frames.shape
    cells = frames.reshape(n, SIDE, height // SIDE, SIDE, width // SIDE, channels)
    small = cells.mean(axis=(0, 2, 4), dtype=np.float64).ravel()
    small -= small.mean()
    length = float(np.linalg.norm(small))
    # a hundredth of a grey level a cell: nothing but rounding is left
    return None if length < 0.01 * small.size**0.5 else (small / length).astype(np.float32)
