"""Which frame is shown when, and what its pixels are."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synth import corner_names, corners, flat, grey, index_of, indices, shipped, video

from curate.media.container import Deadline
from curate.media.decode import Span, decode
from curate.media.probe import probe
from curate.media.requests import Frames, pick_times
from curate.media.video import PyAVReader
from curate.schema.errors import MediaError

EVEN = list(range(0, 2400, 40))  # 60 frames at 25 per second, in ms
UNEVEN = [0, 10, 20, 500, 510, 900, 1000, 1040, 1700, 1701, 2500, 2900, 3000, 3333, 4000, 4020, 4700, 5000, 5100]


def shown_at(stamps_ms: list[int], t_us: int) -> int:
    """The oracle: the last frame that begins by t."""
    return max(i for i, at in enumerate(stamps_ms) if at * 1000 <= t_us + 1)


def wanted(stamps_ms: list[int], span: Span, view: Frames) -> list[int]:
    times = pick_times(span.seconds, view.fps, view.max_frames)
    return [shown_at(stamps_ms, span.start_us + int(t * 1e6)) for t in times]


@pytest.mark.parametrize(
    ("codec", "container", "options"),
    [
        ("libx264", "mp4", {"bf": "3", "g": "12"}),
        ("libx264", "matroska", {"bf": "2", "g": "250", "x264-params": "open-gop=1"}),
        ("libx264", "mpegts", {"bf": "2", "g": "10"}),
        ("libx265", "mp4", {}),
        ("libvpx-vp9", "webm", {"cpu-used": "8", "deadline": "realtime"}),
        ("mpeg4", "avi", {"bf": "2", "g": "12", "qmin": "1", "qmax": "2"}),
        ("mpeg2video", "mpeg", {"bf": "2", "g": "12", "qmin": "1", "qmax": "2"}),
        ("ffv1", "matroska", {}),
    ],
)
def test_constant_rate_picks_the_frame_on_display(codec: str, container: str, options: dict[str, str]) -> None:
    data = video(range(60), base=Fraction(1, 25), codec=codec, container=container, options=options)
    view = Frames(16, fps=10, max_frames=100)
    for span in (Span(0, 2_400_000), Span(1_240_000, 2_200_000), Span(2_000_000, 2_360_000)):
        assert indices(decode(data, "video", [view], span).views[view]) == wanted(EVEN, span, view)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 5_000_000), st.integers(100_000, 3_000_000), st.sampled_from([1.0, 3.7, 25.0]))
def test_variable_rate_picks_the_frame_on_display(start: int, length: int, fps: float) -> None:
    data = uneven()
    span = Span(start, min(start + length, 5_105_000))
    view = Frames(16, fps=fps, max_frames=40)
    got = decode(data, "video", [view], span)
    assert indices(got.views[view]) == wanted(UNEVEN, span, view)
    begins = [UNEVEN[i] / 1000 - span.start_us / 1e6 for i in wanted(UNEVEN, span, view)]
    assert np.allclose(got.times[view], begins, atol=1e-6)


_UNEVEN: list[bytes] = []


def uneven() -> bytes:
    if not _UNEVEN:
        _UNEVEN.append(video(UNEVEN, options={"bf": "2", "g": "6"}))
    return _UNEVEN[0]


def test_a_cut_falls_on_the_very_frame() -> None:
    """A span that starts at a frame's time never shows the frame before, whatever the rounding of its time base."""
    data = video([i * 1001 for i in range(60)], base=Fraction(1, 30000), options={"bf": "2", "g": "15"})
    for i in (1, 7, 31, 44, 58):
        start = round(i * 1001 / 30000 * 1e6)
        view = Frames(16, fps=1000, max_frames=1000)
        got = decode(data, "video", [view], Span(start, start + 20_000))
        assert set(indices(got.views[view])) == {i}


def test_time_zero_is_the_first_frame_shown() -> None:
    """An mp4 whose edit list hides the first ten frames, and a transport stream that starts at 1.4 s."""
    hidden = video(
        range(-400, 1600, 40),
        options={"bf": "0", "g": "5"},
        muxer={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )
    view = Frames(16, fps=25, max_frames=100)
    assert indices(decode(hidden, "video", [view], Span(0, 1_000_000)).views[view]) == list(range(10, 35))
    late = video(range(0, 2000, 40), container="mpegts", options={"bf": "2", "g": "10"})
    assert indices(decode(late, "video", [view], Span(0, 1_000_000)).views[view]) == list(range(25))


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ((0, False, False), "rgbw"),
        ((90, False, False), "gwrb"),
        ((180, False, False), "wbgr"),
        ((-90, False, False), "brwg"),
    ],
)
def test_rotation_is_applied(rotation: tuple[float, bool, bool], expected: str) -> None:
    """Degrees are counter-clockwise: after 90 of them the top right corner is at the top left."""
    data = video(EVEN[:5], size=(96, 64), images=[corners((96, 64))] * 5, rotation=rotation)
    view = Frames(96, crop=False)
    frames = decode(data, "video", [view]).views[view]
    assert corner_names(frames[0]) == expected
    found = probe(data)
    assert (found.width, found.height) == frames.shape[2:0:-1]
    assert (found.width, found.height) == ((96, 64) if rotation[0] in (0, 180) else (64, 96))


def test_a_mirrored_video_is_mirrored_back() -> None:
    data = video(EVEN[:5], size=(64, 64), images=[corners((64, 64))] * 5, rotation=(0, True, False))
    view = Frames(64)
    assert corner_names(decode(data, "video", [view]).views[view][0]) == "grwb"


def test_pixels_that_are_not_square_are_made_so() -> None:
    data = video(EVEN[:5], size=(64, 64), images=[corners((64, 64))] * 5, ratio=Fraction(2))
    assert (probe(data).width, probe(data).height) == (128, 64)
    whole, square = Frames(100, crop=False), Frames(32)
    got = decode(data, "video", [whole, square])
    assert got.views[whole].shape == (1, 50, 100, 3)
    assert got.views[square].shape == (1, 32, 32, 3)
    assert corner_names(got.views[square][0]) == "rgbw"


@pytest.mark.parametrize("size", [(63, 47), (17, 90)])
def test_odd_sizes(size: tuple[int, int]) -> None:
    data = video(EVEN[:10], size=size, codec="ffv1", container="matroska", pix_fmt="yuv444p")
    view = Frames(1000, fps=25, crop=False, max_frames=10)
    frames = decode(data, "video", [view]).views[view]
    assert frames.shape == (10, size[1], size[0], 3)
    assert indices(frames) == list(range(10))


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p"])
def test_ten_bits(pix_fmt: str) -> None:
    data = video(EVEN[:10], codec="ffv1", container="matroska", pix_fmt=pix_fmt)
    view = Frames(16, fps=25, max_frames=10)
    assert indices(decode(data, "video", [view]).views[view]) == list(range(10))


@pytest.mark.parametrize("matrix", [1, 5], ids=["bt709", "bt601"])
@pytest.mark.parametrize("full_range", [1, 2], ids=["limited", "full"])
def test_the_stated_matrix_and_range_are_used(matrix: int, full_range: int) -> None:
    colours = [(200, 40, 60), (40, 180, 70), (30, 60, 210), (255, 255, 255), (0, 0, 0)]
    images = [np.full((48, 64, 3), colour, np.uint8) for colour in colours]
    data = video(EVEN[:5], codec="libx264", options={"qp": "0"}, images=images, colour=(matrix, full_range))
    view = Frames(8, fps=25)
    got = decode(data, "video", [view]).views[view].mean(axis=(1, 2))
    assert np.abs(got - np.array(colours)).max() <= 3


def test_unstated_colours_are_bt601_when_small_and_bt709_when_hd() -> None:
    colour = (200, 40, 60)
    for size, matrix in (((320, 240), 5), ((1280, 720), 1)):
        stated = [np.full((size[1], size[0], 3), colour, np.uint8)] * 2
        frames = []
        for image in stated:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frames.append(frame.reformat(format="yuv420p", dst_colorspace=matrix).to_ndarray(format="yuv420p"))
        data = _untagged(frames, size)
        view = Frames(8)
        got = decode(data, "video", [view]).views[view].mean(axis=(0, 1, 2))
        assert np.abs(got - colour).max() <= 3


def _untagged(planes: list[np.ndarray], size: tuple[int, int]) -> bytes:  # type: ignore[type-arg]
    out = BytesIO()
    with av.open(out, "w", format="matroska") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = size[0], size[1], "yuv420p"
        for i, plane in enumerate(planes):
            frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize(("codec", "container"), [("libx264", "h264"), ("libx265", "hevc")])
def test_a_bare_stream_goes_by_its_frame_rate(codec: str, container: str) -> None:
    """It has no time stamps at all: frames are counted, at 25 a second where nothing else is said."""
    data = video(range(60), base=Fraction(1, 25), codec=codec, container=container)
    assert probe(data).duration == pytest.approx(2.4)
    view = Frames(16, fps=10, max_frames=100)
    for span in (Span(0, 2_400_000), Span(1_240_000, 2_200_000)):
        assert indices(decode(data, "video", [view], span).views[view]) == wanted(EVEN, span, view)


def test_a_resolution_that_changes_midway() -> None:
    """Two raw streams, one after the other: the second is taller, and is fitted into the first one's shape."""
    first = video(EVEN[:25], size=(64, 48), container="h264", options={"bf": "0"})
    second = video(EVEN[:25], size=(48, 64), container="h264", options={"bf": "0"}, images=[corners((48, 64))] * 25)
    view = Frames(64, fps=2, crop=False)
    frames = decode(first + second, "video", [view], Span(0, 1_900_000)).views[view]
    assert frames.shape == (4, 48, 64, 3)
    assert index_of(frames[0]) == 5  # shown at 0.2375 s
    assert (frames[3][:, :13] == 0).all()
    assert (frames[3][:, 51:] == 0).all()
    assert corner_names(frames[3][:, 14:50]) == "rgbw"


def test_views_share_one_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    data = video(EVEN)
    runs: list[int] = []
    start = PyAVReader.frames_from

    def counted(self: PyAVReader, start_us: int):  # type: ignore[no-untyped-def]
        runs.append(start_us)
        return start(self, start_us)

    monkeypatch.setattr(PyAVReader, "frames_from", counted)
    views = [Frames(16, fps=25, max_frames=60), Frames(32, fps=1), Frames(24, fps=5, crop=False)]
    got = decode(data, "video", views, Span(1_200_000, 2_400_000))
    assert runs == [1_200_000]
    assert [len(got.views[v]) for v in views] == [30, 1, 6]
    assert got.views[views[2]].shape[1:] == (18, 24, 3)


@pytest.mark.parametrize(
    "path",
    ["video/demo.mkv", "video/demo.wmv", "video/demo.mpg", "video/demo.webm", "video/demo.avi", "video/demo.3gp"],
)
def test_seeks_in_real_containers_find_the_same_frames(path: str) -> None:
    data = shipped("iscc_samples", f"files/{path}")
    with PyAVReader(data) as reader:
        all_frames = [(p.start_us, p.rgb().tobytes()) for p in reader.frames(0, 4_000_000)]
    for start in (1_200_000, 2_503_337, 3_333_333):
        with PyAVReader(data) as reader:
            got = [(p.start_us, p.rgb().tobytes()) for p in reader.frames(start, start + 300_000)]
        first = max(i for i, frame in enumerate(all_frames) if frame[0] <= start + 1)
        assert got == [frame for frame in all_frames[first:] if frame[0] < start + 300_000]


def test_a_truncated_tail_is_named() -> None:
    data = video(EVEN, container="matroska", options={"g": "5", "bf": "0"}, size=(256, 256), images=noisy(60))
    cut = data[: len(data) * 6 // 10]
    view = Frames(16)
    assert decode(cut, "video", [view], Span(0, 1_000_000)).views[view].shape[0] == 1
    with pytest.raises(MediaError, match=r"The video ended at 1\.\d+ s, before the end of its span at 2\.400 s"):
        decode(cut, "video", [view], Span(400_000, 2_400_000))
    with pytest.raises(MediaError, match="ended at"):
        decode(cut, "video", [view])


def noisy(n: int, side: int = 256) -> list[np.ndarray]:  # type: ignore[type-arg]
    """Images of a texture that moves, so that every frame costs bytes."""
    base = np.random.default_rng(7).integers(0, 255, (side // 8, side // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.roll(base, 5 * i, 1) for i in range(n)]


def test_damage_fails_its_clip_and_no_other() -> None:
    """Bytes of frames around 1.0 s are overwritten; key frames come every 0.4 s."""
    options = {"g": "10", "keyint_min": "10", "bf": "2", "sc_threshold": "0"}
    data = bytearray(video(EVEN, size=(256, 256), images=noisy(60), options=options))
    with av.open(BytesIO(bytes(data))) as file:
        packet = next(p for p in file.demux(video=0) if p.pts is not None and p.pts * p.time_base >= 1)
        assert packet.pos is not None
        data[packet.pos + 40 : packet.pos + packet.size] = bytes(packet.size - 40)
    damaged = bytes(data)
    view = Frames(16, fps=25, max_frames=100)
    for start, end in ((0, 700_000), (1_600_000, 2_400_000)):
        assert len(decode(damaged, "video", [view], Span(start, end)).views[view])
    for start, end in ((900_000, 1_100_000), (0, 2_400_000)):
        with pytest.raises(MediaError, match="damaged at"):
            decode(damaged, "video", [view], Span(start, end))


def test_the_time_limit() -> None:
    with pytest.raises(MediaError, match="longer than the limit of 0 s"):
        decode(video(EVEN), "video", [Frames(16)], limit_s=0)
    Deadline(60).check()


def test_an_unknown_kind_and_an_empty_span_are_refused() -> None:
    with pytest.raises(ValueError, match="kind must be one of"):
        decode(b"", "text", [])
    with pytest.raises(ValueError, match="is empty"):
        decode(b"", "video", [], Span(5, 5))


def test_the_test_media_can_be_told_apart() -> None:
    assert [index_of(flat(i, (4, 4))) for i in range(64)] == list(range(64))
    with pytest.raises(AssertionError):
        index_of(np.full((2, 2, 3), grey(3) + 1.5))
