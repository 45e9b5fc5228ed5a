"""Odd media are right, not merely survived. What `test_video.py`, `test_images.py` and `test_audio.py` show already
(VFR, quarter turns, EXIF, edit lists, a size that changes, sound that begins late) is not shown again here."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import mutate
import numpy as np
import pytest
from mutate import AS_IT_IS
from PIL import Image
from synth import corner_names, corners, indices, tone, video

from curate.media import container, images
from curate.media.audio import MAX_SAMPLES, read_audio
from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.probe import probe
from curate.media.requests import Audio, Frames
from curate.media.shots import find_shots
from curate.schema.errors import MediaError

EVEN = range(0, 1000, 40)
ALL = Frames(16, fps=25, max_frames=100)


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        ((0, False, True), "bwrg"),
        ((180, True, False), "bwrg"),
        ((90, True, False), "wgbr"),
        ((90, False, True), "rbgw"),
        ((-90, True, False), "rbgw"),
    ],
)
def test_turned_and_mirrored(rotation: tuple[float, bool, bool], expected: str) -> None:
    """Each of the eight ways to hold a camera before a mirror. The matrix turns counter-clockwise what was mirrored."""
    data = video(range(0, 120, 40), size=(96, 64), images=[corners((96, 64))] * 3, rotation=rotation)
    frames = decode(data, "video", [Frames(96, crop=False)]).views[Frames(96, crop=False)]
    assert corner_names(frames[0]) == expected
    assert frames.shape[1:3] == ((96, 64) if rotation[0] in (90, -90) else (64, 96))


@pytest.mark.parametrize(
    ("codec", "kind", "options"),
    [("ffv1", "matroska", {}), ("libx265", "mp4", {"x265-params": "log-level=none:pools=none:lossless=1"})],
)
def test_ten_bits_have_the_levels_of_eight(codec: str, kind: str, options: dict[str, str]) -> None:
    """Every fifth level from black to white; halving or clipping ten bits would be off by far more than rounding."""
    levels = np.arange(0, 256, 5, dtype=np.uint8)
    images = [np.full((64, 64, 3), level, np.uint8) for level in levels]
    data = video(
        range(len(levels)),
        base=Fraction(1, 25),
        size=(64, 64),
        codec=codec,
        container=kind,
        pix_fmt="yuv420p10le",
        options=options,
        images=images,
    )
    frames = decode(data, "video", [ALL]).views[ALL]
    assert np.abs(frames.astype(int) - levels.astype(int)[:, None, None, None]).max() <= 1


@pytest.mark.parametrize(("pix_fmt", "size"), [("yuv444p", (63, 47)), ("yuv420p", (63, 47)), ("yuv420p", (17, 21))])
def test_the_last_row_and_column_of_odd_sizes(pix_fmt: str, size: tuple[int, int]) -> None:
    """They are white on black: a reader that rounds sizes down to even ones loses them."""
    width, height = size
    image = np.zeros((height, width, 3), np.uint8)
    image[-1], image[:, -1] = 255, 255
    data = video(range(0, 120, 40), size=size, codec="ffv1", container="matroska", pix_fmt=pix_fmt, images=[image] * 3)
    assert (probe(data).width, probe(data).height) == size
    whole = Frames(1000, crop=False)
    frame = decode(data, "video", [whole]).views[whole][0]
    assert frame.shape == (height, width, 3)
    assert frame[-1].min() > 200
    assert frame[:, -1].min() > 200
    assert frame[: height - 3, : width - 2].max() < 60


@pytest.mark.parametrize("kind", ["mpegts", "mp4"])
def test_negative_time_stamps(kind: str) -> None:
    """Frames from -0.4 s on. A transport stream shows them all; an MP4's edit list begins at 0 and hides ten."""
    muxer = AS_IT_IS | ({"use_editlist": "1"} if kind == "mp4" else {})
    data = video(range(-400, 1200, 40), container=kind, options={"bf": "0", "g": "5"}, muxer=muxer)
    first = 10 if kind == "mp4" else 0
    got = decode(data, "video", [ALL], Span(0, 1_000_000))
    assert indices(got.views[ALL]) == list(range(first, first + 25))
    assert np.allclose(got.times[ALL], np.arange(25) * 0.04, atol=1e-6)
    late = decode(data, "video", [ALL], Span(600_000, 1_000_000))
    assert indices(late.views[ALL]) == list(range(first + 15, first + 25))


def test_audio_of_a_video_with_negative_time_stamps() -> None:
    """The clock begins at the first frame, at -0.4 s, and the sound with the container's zero: 0.4 s later."""
    data = video(
        range(-400, 600, 40),
        container="mpegts",
        options={"bf": "0"},
        muxer=AS_IT_IS,
        audio=tone(0.6),
        audio_codec="mp2",
    )
    heard = decode(data, "video", [Audio(48000)], Span(0, 1_000_000)).views[Audio(48000)]
    loud = np.flatnonzero(np.abs(heard.astype(int)) > 1000)
    assert loud[0] / 48000 == pytest.approx(0.4, abs=0.02)
    assert loud[-1] / 48000 == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_audio_that_outlasts_the_video(container: str) -> None:
    """The last frame stays on display, for nothing that decodes is lost; and no longer than the audio is heard."""
    data = video(EVEN, audio=tone(3.0), container=container, options={"g": "5"})
    end = round(probe(data).duration * 1e6)
    assert end == pytest.approx(3_000_000, abs=50_000)
    assert find_shots(data) == [Span(0, end)]
    got = decode(data, "video", [ALL, Audio(16000)], Span(0, end))
    assert indices(got.views[ALL][:25]) == list(range(25))
    assert set(indices(got.views[ALL][25:])) == {24}
    late = decode(data, "video", [ALL, Audio(16000)], Span(2_000_000, 2_800_000))
    assert indices(late.views[ALL]) == [24] * 20
    assert np.abs(late.views[Audio(16000)].astype(int))[:12000].max() > 7000
    with pytest.raises(MediaError, match=r"ended at [23]\.\d+ s"):
        decode(data, "video", [ALL], Span(0, 4_000_000))


def test_an_attached_picture_is_not_the_video() -> None:
    """The cover, red and larger, comes first in the file."""
    data = mutate.with_cover()
    found = probe(data)
    assert (found.kind, found.width, found.height, found.codec) == ("video", 64, 48, "h264")
    assert indices(decode(data, "video", [ALL]).views[ALL]) == list(range(25))


@pytest.mark.parametrize(("disposition", "size"), [(None, (64, 48)), (0, (32, 32))], ids=["first", "the default one"])
def test_one_of_two_videos(disposition: int | None, size: tuple[int, int]) -> None:
    """FFmpeg's choice, all through: the one that is marked as the default, else the larger one."""
    data = mutate.two_videos(disposition)
    assert (probe(data).width, probe(data).height) == size
    frames = decode(data, "video", [ALL]).views[ALL]
    if size == (64, 48):
        assert indices(frames) == list(range(25))
    else:
        assert len(frames) == 25
        assert frames.min() > 250


def test_two_frames_far_apart() -> None:
    """The first is on display for all of the five seconds between them."""
    data = video([0, 5000], container="matroska")
    view = Frames(16, fps=2, max_frames=100)
    assert indices(decode(data, "video", [view], Span(0, 5_500_000)).views[view]) == [0] * 10 + [1]


def packets_of(data: bytes) -> list[tuple[int, int]]:
    """(position, size) of the packets of the video, in the file's order."""
    with av.open(BytesIO(data)) as file:
        return [(packet.pos, packet.size) for packet in file.demux(video=0) if packet.size and packet.pos is not None]


def stream_with_b_frames() -> bytes:
    return video(
        range(60),
        base=Fraction(1, 25),
        size=(256, 256),
        container="mpegts",
        images=mutate.moving(60, (256, 256)),
        options={"bf": "2", "g": "10", "keyint_min": "10", "sc_threshold": "0"},
    )


def test_a_packet_that_is_stamped_with_another_day_hides_nothing() -> None:
    """In the middle of a transport stream one time stamp is false. The frames after it came out as one that stands
    still, without a word."""
    whole = stream_with_b_frames()
    pos, _ = packets_of(whole)[24]
    at = whole.index(b"\0\0\1\xe0", pos) + 9  # its PES header; the stamps follow (ISO/IEC 13818-1, 2.4.3.6)
    data = bytearray(whole)
    data[at + 1] ^= 0xFE
    data[at] ^= 0x0E
    if data[at - 2] & 0x40:
        data[at + 5 : at + 10] = bytes([0x10 | data[at] & 0x0F, *data[at + 1 : at + 5]])
    damaged = bytes(data)
    assert len(decode(damaged, "video", [ALL], Span(0, 700_000)).views[ALL])
    with pytest.raises(MediaError, match="damaged"):
        decode(damaged, "video", [ALL], Span(0, 2_360_000))


def test_a_key_frame_that_comes_out_late_does_not_hide_damage_after_it() -> None:
    """With B-frames a decoder gives a key frame when it is handed later packets; the one here is damaged.

    It was forgotten as the key frame came out, and false pixels went by as good ones.
    """
    whole = stream_with_b_frames()
    with av.open(BytesIO(whole)) as file:
        packets = [(p.pos, p.size) for p in file.demux(video=0) if p.size and p.pos is not None]
    pos, size = packets[24]
    damaged = whole[:pos] + bytes(size) + whole[pos + size :]
    with av.open(BytesIO(damaged)) as file:
        assert any(packet.is_corrupt for packet in file.demux(video=0)), (
            "the container noticed nothing: nothing is tested"
        )
    with pytest.raises(MediaError, match="damaged"):
        decode(damaged, "video", [ALL], Span(0, 2_360_000))


def test_a_small_file_takes_no_memory_for_the_audio_that_it_claims() -> None:
    """A few kB, and an hour at 1 MHz: 14 GB as float32."""
    with pytest.raises(MediaError, match=f"more samples than the {MAX_SAMPLES}"):
        read_audio(mutate.far_apart(3599, 1_000_000), Span(0, 3_599_000_000), [16000])
    with pytest.raises(MediaError, match=f"more samples than the {MAX_SAMPLES}"):
        read_audio(mutate.far_apart(3599, 8000), Span(0, 3_599_000_000), [96000])
    heard = read_audio(mutate.far_apart(3599, 8000), Span(0, 3_599_000_000), [1000])
    assert heard is not None
    assert len(heard[1000]) == 3_599_000


def test_frames_that_are_too_large_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hostile files hold real ones, of 144 million pixels."""
    data = video(EVEN)
    monkeypatch.setattr(container, "MAX_FRAME_PIXELS", 64 * 48)
    assert probe(data).width == 64
    monkeypatch.setattr(container, "MAX_FRAME_PIXELS", 64 * 48 - 1)
    with pytest.raises(MediaError, match=r"frames of 64 x 48 pixels, more than the limit of"):
        probe(data)


def test_images_are_converted_strip_by_strip_and_none_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (101, 67, 4), np.uint8)
    data = mutate.saved(Image.fromarray(pixels), "PNG")
    whole = np.asarray(images.decode_image(data))
    monkeypatch.setattr(images, "_STRIP", 1000)
    assert np.array_equal(np.asarray(images.decode_image(data)), whole)
