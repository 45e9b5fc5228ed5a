"""Views: what a stage wants to see of media (law 4). One decode feeds all views of all stages of a pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, order=True)
class Frames:
    """Pictures of a sample: uint8 `(N, H, W, 3)` sRGB, display orientation; N = 1 for a picture.

    Attributes:
        size: pixels. With `crop`, the short side is scaled to it and the centre square is taken; without, the long
            side is scaled down to it (never up) and the shape is kept.
        fps: frames per second picked on the sample's clock, in the middles of equal intervals (see `pick_times`).
        max_frames: where more would be picked, as many evenly spaced ones.
        crop: centre square, or whole frame.
    """

    size: int
    fps: float = 1.0
    max_frames: int = 8
    crop: bool = True


@dataclass(frozen=True, order=True)
class Audio:
    """Sound of a sample: int16 `(n,)`, mixed down to mono at `rate` Hz; silence fills holes in the time line."""

    rate: int = 16000


View = Frames | Audio


@dataclass
class Decoded:
    """What one decode gave. A view is absent where the sample has no such modality (a picture has no Audio).

    Attributes:
        views: view to array, shapes as each view says.
        times: for each Frames view the presentation times of its frames, float64 seconds from the sample's start.
    """

    views: dict[View, NDArray[np.generic]] = field(default_factory=dict)
    times: dict[Frames, NDArray[np.float64]] = field(default_factory=dict)


def pick_times(duration: float, fps: float, max_frames: int) -> NDArray[np.float64]:
    """Seconds from the start at which frames are taken: the middles of equal intervals, at least one.

    Args:
        duration: seconds, > 0.
        fps: wanted rate, > 0.
        max_frames: upper limit of the count, > 0.
    """
    n = max(1, min(max_frames, int(duration * fps + 0.5)))
    return (np.arange(n, dtype=np.float64) + 0.5) * (duration / n)
