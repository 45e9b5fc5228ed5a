"""A thumbnail as a vector: finds copies of one image that were scaled, re-encoded or slightly retouched."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Frames
from curate.signals.base import VISUAL, Sample, Signal, Vector

SIDE = 16
VIEW = Frames(size=64, fps=1, max_frames=8, resample="box")
"""Four times as fine as the thumbnail: what is rounded to 8 bits is no part of it."""


class TinyImage(Signal):
    """The image at 16 x 16 in colour, mean taken off, at unit length (after the tiny images of Torralba et al. 2008).

    The cosine of two is the correlation of their thumbnails: above 0.98 for copies, rarely so for different images of
    one scene. A network's features are about content, this is about the very image; a flat image has none (null).
    """

    name = "tiny_image"
    needs = (VIEW,)
    gives = (
        Vector(
            "tiny_image",
            SIDE * SIDE * 3,
            kinds=VISUAL,
            about="16 x 16 colour thumbnail, mean over frames, zero mean, unit length.",
        ),
    )

    def version(self) -> str:
        return "2"

    def one(self, sample: Sample) -> NDArray[np.float32] | None:
        return thumbnail(sample.view)


def thumbnail(frames: NDArray[Any]) -> NDArray[np.float32] | None:
    """uint8 `(N, H, W, 3)`, multiples of 16 px, to float32 `(768,)` of unit length; None for a flat image."""
    n, height, width, channels = frames.shape
    high, wide = height // SIDE, width // SIDE
    # sums of whole numbers, so exact in any order: first down the lines, which lie in memory one behind the other
    bands = frames.reshape(n, SIDE, high, width * channels).sum(axis=2, dtype=np.uint32).sum(axis=0)
    small = bands.reshape(SIDE, SIDE, wide, channels).sum(axis=2).ravel() / (n * high * wide)
    small -= small.mean()
    length = float(np.linalg.norm(small))
    # a hundredth of a grey level a cell: nothing but rounding is left
    return None if length < 0.01 * small.size**0.5 else (small / length).astype(np.float32)
