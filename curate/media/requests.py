"""Views: what a stage wants to see of media (law 4). One decode feeds all views of all stages of a pass."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, order=True)
class Frames:
    """Images of a sample: uint8 `(N, H, W, 3)` sRGB, display orientation; N = `crops` for an image.

    Attributes:
        size: pixels. With `crop`, the short side is scaled to it and the centre square is taken; without, the long
            side is scaled down to it (never up) and the shape is kept.
        fps: frames per second picked on the sample's clock, in the middles of equal intervals (see `pick_times`).
        max_frames: where more would be picked, as many evenly spaced ones.
        crop: centre square, or whole frame.
        stride: above 0, frames stand exactly 1 / fps apart from the sample's start, 1 + stride * k of them, for
            tokenizers of video (see `clip_times`).
        pad: with `stride`: whether the last frame is repeated where 1 + stride * k need more than there are, or the
            frames too many are left out.
        resample: `lanczos`, or `box`, the mean of the pixels that a pixel covers: many times as fast where the image is
            far larger, for views in which only areas count.
        crops: of an image, that many of `crops.crop_settings`: the centre square, then others drawn from the sample's
            id, which are stretched to `size`. Frames of a video have one, the centre square.
    """

    size: int
    fps: float = 1.0
    max_frames: int = 8
    crop: bool = True
    stride: int = 0
    pad: bool = False
    crops: int = 1
    resample: str = "lanczos"


@dataclass(frozen=True, order=True)
class Audio:
    """Audio of a sample: int16 `(n,)`, mixed down to mono at `rate` Hz; silence fills holes in the time line."""

    rate: int = 16000


@dataclass(frozen=True, order=True)
class Energy:
    """How loud a sample's audio is: float64 `(n,)`, of each whole 100 ms of it the K-weighted mean square summed over
    the channels as they were decoded, full scale 1 (ITU-R BS.1770-5, z of a channel times its weight G; see
    `energy.Meter`)."""


@dataclass(frozen=True, order=True)
class Array:
    """Values of a sample that is an array, as they are: of any shape, and of a dtype of `arrays.DTYPES`."""


DecodeRequest = Frames | Audio | Energy | Array


@dataclass
class Decoded:
    """What one decode gave. A view is absent where the sample has no such modality (an image has no Audio).

    Attributes:
        views: view to array, shapes as each view says.
        times: for each Frames view the presentation times of its frames, float64 seconds from the sample's start.
    """

    views: dict[DecodeRequest, NDArray[np.generic]] = field(default_factory=dict)
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


_SLACK = 1.5e-6
"""Seconds. The two ends of a span are rounded to microseconds, so a clip of n frames may be that much too long."""


def frames_there(duration: float | NDArray[np.float64], fps: float) -> NDArray[np.int64]:
    """How many frames stand at i / fps before the end of a clip, or of each of several; at least one.

    Args:
        duration: seconds, > 0, a difference of two times in whole microseconds.
        fps: > 0.
    """
    return np.maximum(1, np.ceil((np.asarray(duration) - _SLACK) * fps)).astype(np.int64)


def clip_frames(duration: float, fps: float, max_frames: int, stride: int, pad: bool) -> tuple[int, int]:
    """How many frames a clip is given to a tokenizer of video as, and how many of them are its own.

    There is one at each i / fps before the end. Of those as many are taken as make 1 + stride * k; with `pad` the last
    one is repeated up to the next such count, where `max_frames` allows it.

    Args:
        duration: seconds, > 0.
        fps: > 0.
        max_frames: upper limit, > 0.
        stride: > 0.
        pad: True if to repeat, rather than to leave out.

    Returns:
        (frames, own): `frames` is 1 + stride * k; those from number `own` on are repetitions of the one before.
    """
    there = int(frames_there(duration, fps))
    most = 1 + (max_frames - 1) // stride * stride
    whole = (there - 1) // stride * stride + 1
    frames = min(most, whole + stride if pad and whole < there else whole)
    return frames, min(there, frames)


def clip_times(duration: float, fps: float, max_frames: int, stride: int, pad: bool) -> NDArray[np.float64]:
    """Seconds from the start at which the frames of `clip_frames` are taken."""
    frames, own = clip_frames(duration, fps, max_frames, stride, pad)
    return np.minimum(np.arange(frames), own - 1) / np.float64(fps)
