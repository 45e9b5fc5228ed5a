"""Frames of a clip as tokenizers of video want them: 1 + stride * k, exactly 1 / fps apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.media.requests import clip_frames, clip_times, frames_there


@pytest.mark.parametrize(
    ("seconds", "fps", "pad", "frames", "own"),
    [
        (3.0, 8, False, 21, 21),  # 24 frames are there: three are too many
        (3.0, 8, True, 25, 24),  # one repetition
        (9.0, 8, False, 69, 69),  # 72 frames never are ten latent ones
        (0.05, 8, False, 1, 1),
        (0.05, 8, True, 1, 1),  # an image needs no padding
        (0.3, 10, False, 1, 1),
        (0.3, 10, True, 5, 3),
        (0.1, 30, True, 5, 3),  # 0.1 * 30 is a little more than 3 in floats
    ],
)
def test_known_counts(seconds: float, fps: float, pad: bool, frames: int, own: int) -> None:
    assert clip_frames(seconds, fps, 1000, 4, pad) == (frames, own)


@given(
    seconds=st.integers(10_000, 60_000_000).map(lambda us: us / 1e6),
    fps=st.sampled_from([1.0, 8.0, 23.976, 24.0, 29.97, 30.0]),
    most=st.integers(1, 200),
    stride=st.sampled_from([1, 4, 8]),
    pad=st.booleans(),
)
def test_what_always_holds(seconds: float, fps: float, most: int, stride: int, pad: bool) -> None:
    frames, own = clip_frames(seconds, fps, most, stride, pad)
    times = clip_times(seconds, fps, most, stride, pad)
    assert len(times) == frames <= most
    assert (frames - 1) % stride == 0
    assert frames - stride < own <= frames
    assert times[:own].tolist() == [i / fps for i in range(own)]
    assert (times[own:] == times[own - 1]).all()
    assert times[-1] < seconds
    if not pad:
        assert own == frames


@given(
    n=st.integers(1, 100_000),
    start=st.integers(0, 1_000_000),
    fps=st.sampled_from([1.0, 8.0, 12.0, 24.0, 24000 / 1001, 25.0, 30.0, 30000 / 1001, 60.0, 120.0]),
)
def test_a_clip_of_n_frames_has_n_frames_though_its_ends_are_in_microseconds(n: int, start: int, fps: float) -> None:
    ends = [round(i / fps * 1e6) for i in (start, start + n)]
    assert frames_there((ends[1] - ends[0]) / 1e6, fps) == n
