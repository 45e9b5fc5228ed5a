"""How much moves in a video."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.media.requests import Frames, pick_times
from curate.signals.base import Float, Sample, Signal

VIEW = Frames(size=96, fps=4, max_frames=24, crop=False)


class Motion(Signal):
    """Mean magnitude of dense optical flow (Farneback, SCIA 2003) between consecutive frames of a 96 px view.

    Magnitudes are divided by the frame's diagonal and by the time between the two frames, so the number does not
    depend on resolution or frame rate: 0.1 means that the average point crosses a tenth of the diagonal in a second.
    Camera motion counts as motion. Flow is an average over the frame, so a small fast thing scores like a large slow
    one. Steps longer than about a tenth of the diagonal are underestimated; clips longer than 6 s are sampled more
    thinly than 4 frames a second, which lowers that limit.
    """

    name = "motion"
    needs = (VIEW,)
    gives = (
        Float(
            "motion",
            "frame diagonals/s",
            0,
            kinds=("video",),
            about="Mean optical-flow speed over the frame; null where a clip is too short for two frames at 4 a "
            "second.",
        ),
    )

    def load(self) -> None:
        import cv2

        cv2.setNumThreads(int(self.cost.cpus))

    def one(self, sample: Sample) -> float | None:
        if sample.kind != "video":
            return None
        seconds = float(sample.columns["duration"])
        times = pick_times(seconds, VIEW.fps, VIEW.max_frames)
        if len(times) != len(sample.view):
            raise ValueError(f"{len(sample.view)} frames for a clip of {seconds:g} s, {len(times)} expected")
        return flow_speed(sample.view, times) if len(times) > 1 else None


def flow_speed(frames: NDArray[Any], times: NDArray[np.float64]) -> float:
    """Mean Farneback flow over pixels and pairs of neighbouring frames, in frame diagonals per second.

    Args:
        frames: uint8 `(N, H, W, 3)`, N > 1.
        times: seconds `(N,)`, rising.
    """
    import cv2

    grey = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames]
    diagonal = math.hypot(*grey[0].shape)
    out = np.zeros((*grey[0].shape, 2), np.float32)
    speeds = []
    for a, b, step in zip(grey, grey[1:], np.diff(times), strict=False):
        flow = cv2.calcOpticalFlowFarneback(a, b, out.copy(), 0.5, 3, 15, 3, 5, 1.2, 0)  # OpenCV's documented values
        length = np.hypot(flow[..., 0], flow[..., 1]).mean(dtype=np.float64)
        speeds.append(float(length) / diagonal / float(step))
    return sum(speeds) / len(speeds)
