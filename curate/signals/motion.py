"""How much moves in a video."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.requests import Frames, pick_times
from curate.schema.fields import Resources, SignalField
from curate.signals.base import Batch, Result, Signal, map_samples


class Motion(Signal):
    """Mean magnitude of dense optical flow (Farneback, SCIA 2003) between consecutive frames of a 96 px view.

    Magnitudes are divided by the frame's diagonal and by the time between the two frames, so the number does not
    depend on resolution or frame rate: 0.1 means that the average point crosses a tenth of the diagonal in a second.
    Camera motion counts as motion. Flow is an average over the frame, so a small fast thing scores like a large slow
    one. Steps longer than about a tenth of the diagonal are underestimated; clips longer than 6 s are sampled more
    thinly than 4 frames a second, which lowers that limit.
    """

    name = "motion"
    needs = (Frames(size=96, fps=4, max_frames=24, crop=False),)
    gives = (
        SignalField(
            "motion",
            pa.float32(),
            "frame diagonals/s",
            (0, None),
            ("video",),
            "Mean optical-flow speed over the frame; null where a clip is too short for two frames at 4 a second.",
        ),
    )
    cost = Resources(cpus=1)

    def load(self) -> None:
        import cv2

        cv2.setNumThreads(int(self.cost.cpus))

    def __call__(self, batch: Batch) -> list[Result]:
        view = self.needs[0]
        assert isinstance(view, Frames)
        frames, durations = batch.views[view], batch.columns["duration"]

        def one(i: int) -> dict[str, float | None]:
            shown = frames[i]
            if batch.kind[i] != "video" or shown is None:
                return {"motion": None}
            times = pick_times(float(durations[i]), view.fps, view.max_frames)
            if len(times) != len(shown):
                raise ValueError(f"{len(shown)} frames for a clip of {durations[i]:g} s, {len(times)} expected")
            return {"motion": flow_speed(shown, times) if len(times) > 1 else None}

        return map_samples("annotate:motion", batch, one)


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
