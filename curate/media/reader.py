"""What a reader of video is: frames in order, each with its exact time. Two exist: PyAV (`video.py`) and decord."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TimedFrame:
    """One frame of a video.

    Attributes:
        start_us: presentation time on the media's clock (first frame: 0), microseconds, rounded to nearest.
        end_us: when the next frame begins; of the last one by its stated duration, else by the average rate.
        display: (width, height) that it is shown at: rotated, pixels made square.
        rgb: makes the pixels, uint8 `(h, w, 3)` sRGB, rotated; pixels may be non-square (`display` tells). Costs a
            colour conversion, so it is called only for frames that are wanted.
    """

    start_us: int
    end_us: int
    display: tuple[int, int]
    rgb: Callable[[], NDArray[np.uint8]]


class VideoReader(Protocol):
    """Reads one video. `close` frees it; a reader is also its own context manager."""

    def duration_us(self) -> int:
        """Where the video ends by its header, else by its packets; microseconds on the media's clock."""
        ...

    def frames(self, start_us: int, end_us: int) -> Iterator[TimedFrame]:
        """Frames on display in `[start_us, end_us)`, in order; the first is the last that begins by start_us (+ 1
        us).

        Ends early where the video does. Raises MediaError where a frame of the span cannot be decoded.
        """
        ...

    def close(self) -> None: ...
