"""Cropping that the container states: frames, sizes and shots are of what is shown."""

from __future__ import annotations

import struct
import time
from io import BytesIO
from pathlib import Path

import av
import mutate
import numpy as np
import pytest
from boxed import ENTRY, as_ffmpeg_shows, box, clap, in_mp4, pixel_crop, set_video
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synth import corner_names, corners, video

from curate.media.clips import Span
from curate.media.cropping import crops_of
from curate.media.decode import decode
from curate.media.decord_reader import DecordReader
from curate.media.probe import probe
from curate.media.reader import READERS, open_video
from curate.media.requests import Frames
from curate.media.shots import find_shots
from curate.schema.errors import MediaError

WHOLE = Frames(1000, crop=False)


def framed(left: int, top: int, width: int, height: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Four colours in a window; what is around it is black."""
    out = np.zeros((size[1], size[0], 3), np.uint8)
    out[top : top + height, left : left + width] = corners((width, height))
    return out


def film(container: str, window: tuple[int, int, int, int], size: tuple[int, int] = (64, 48), **more: object) -> bytes:
    images = [framed(*window, size)] * 5
    return video(range(0, 200, 40), size=size, images=images, container=container, options={"qp": "1"}, **more)  # type: ignore[arg-type]


def cropped_mp4(aperture: bytes, window: tuple[int, int, int, int], **more: object) -> bytes:
    return in_mp4(film("mp4", window, **more), ENTRY, lambda entry: entry + aperture)


def first(data: bytes) -> NDArray[np.generic]:
    return decode(data, "video", [WHOLE]).views[WHOLE][0]


WINDOW = (24, 8, 32, 24)  # left, top, width, height

CROPPED = {
    "clap in MP4": cropped_mp4(clap(32, 24, 8, -4), WINDOW),
    "clap in MOV": in_mp4(film("mov", WINDOW), ENTRY, lambda entry: entry + clap(32, 24, 8, -4)),
    "clap in fragmented MP4": cropped_mp4(
        clap(32, 24, 8, -4), WINDOW, muxer={"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    ),
    "clap of fractions": cropped_mp4(clap(64, 48, 16, -8, by=2), WINDOW),
    "PixelCrop in Matroska": pixel_crop(film("matroska", WINDOW), left=24, top=8, right=8, bottom=16),
    "PixelCrop, sizes of the display stated": set_video(
        pixel_crop(film("matroska", WINDOW), left=24, top=8, right=8, bottom=16),
        {0x54B0: 32, 0x54BA: 24, 0x54B2: 0},
    ),
}


@pytest.mark.parametrize("name", CROPPED)
def test_what_the_container_crops_off_is_not_shown(name: str, tmp_path: Path) -> None:
    """FFmpeg's command line tool, which crops since version 7.1, shows the same."""
    data = CROPPED[name]
    frame = first(data)
    assert frame.shape == (24, 32, 3)
    assert corner_names(frame) == "rgbw"
    assert frame[:, 0].max(axis=1).min() > 140, "a black column came along"
    assert (probe(data).width, probe(data).height) == (32, 24)
    assert np.median(np.abs(as_ffmpeg_shows(data, tmp_path).astype(int) - frame)) < 3


@pytest.mark.parametrize(
    ("data", "size"),
    [
        (cropped_mp4(clap(32, 24, 8, -4) + box("pasp", 2, 1), WINDOW), (64, 24)),
        (set_video(CROPPED["PixelCrop in Matroska"], {0x54B0: 64, 0x54BA: 24, 0x54B2: 0}), (64, 24)),
        (set_video(CROPPED["PixelCrop in Matroska"], {0x54B0: 4, 0x54BA: 1, 0x54B2: 3}), (96, 24)),
    ],
    ids=["pasp", "DisplayWidth of what is shown", "DisplayUnit 3, a ratio"],
)
def test_pixels_are_made_square_after_cropping(data: bytes, size: tuple[int, int]) -> None:
    assert (probe(data).width, probe(data).height) == size
    assert corner_names(first(data)) == "rgbw"


def test_turned_after_cropping() -> None:
    """The aperture lies on the coded frame, whatever the track's matrix does to it then."""
    data = cropped_mp4(clap(32, 24, 8, -4), WINDOW, rotation=(90, False, False))
    assert (probe(data).width, probe(data).height) == (24, 32)
    assert corner_names(first(data)) == "gwrb"


def test_odd_edges_are_kept_to_the_pixel() -> None:
    data = pixel_crop(film("matroska", (7, 3, 41, 43)), left=7, top=3, right=16, bottom=2)
    assert first(data).shape == (43, 41, 3)


@pytest.mark.parametrize(
    "aperture",
    [
        clap(64, 48),
        clap(32, 24, 40, 0),
        clap(0, 24),
        clap(-32, 24),
        clap(32, 24, by=0),
        clap(32, 24, by=-1),
        clap(65, 48),
        clap(1, 1, 10**9),
        clap(32, 24)[:24],
        box("clap"),
        b"\0\0\0\x07clap" + bytes(32),
        b"\xff\xff\xff\xffclap" + bytes(32),
    ],
)
def test_an_aperture_that_cannot_be_is_ignored(aperture: bytes) -> None:
    assert first(cropped_mp4(aperture, WINDOW)).shape == (48, 64, 3)


@pytest.mark.parametrize("edges", [{"left": 0}, {"right": 0, "bottom": 0}])
def test_a_crop_of_nothing_changes_nothing(edges: dict[str, int]) -> None:
    assert first(pixel_crop(film("matroska", WINDOW), **edges)).shape == (48, 64, 3)


def test_a_matroska_crop_that_leaves_nothing_is_refused() -> None:
    """By FFmpeg, which opens no such file."""
    with pytest.raises(MediaError, match="damaged"):
        probe(pixel_crop(film("matroska", WINDOW), left=40, right=24))


@pytest.mark.parametrize("container", ["mp4", "matroska"])
def test_what_the_decoder_crops_is_not_cropped_twice(container: str) -> None:
    """H.264 codes 48 rows, and its own parameters say that 40 are shown. The container says both as well."""
    data = film(container, (0, 0, 64, 40), (64, 40))
    if container == "mp4":
        stated = in_mp4(data, ENTRY[:-1], lambda entries: entries[:34] + b"\0\x30" + entries[36:])
        data = in_mp4(stated, ENTRY, lambda entry: entry + clap(64, 40, 0, -4))
    else:
        data = set_video(data, {0xBA: 48}, without=(0x54B0, 0x54BA))
        data = pixel_crop(data, bottom=8)
    assert first(data).shape == (40, 64, 3)


def test_the_crop_of_another_track_is_not_taken() -> None:
    """Of two videos the larger is shown; both tracks are given a crop that only the smaller has room for."""
    data = pixel_crop(mutate.two_videos(), right=0)
    assert first(data).shape == (48, 64, 3)
    both = set_video(mutate.two_videos(), {0x54BB: 30})
    assert first(both).shape == (18, 64, 3)


@pytest.mark.parametrize(
    ("track", "width"),
    [((64, 48), 32), ((32, 48), 32), ((48, 48), 48)],
    ids=["whole frame", "aperture", "wider pixels"],
)
def test_the_size_of_the_track_is_the_apertures(track: tuple[int, int], width: int) -> None:
    """Without `pasp`, pixels get the shape that fills the track's width and height (8.3.2, 12.1.4)."""
    data = cropped_mp4(clap(32, 48), (16, 0, 32, 48))
    fixed = struct.pack(">II", track[0] << 16, track[1] << 16)
    data = in_mp4(data, ("moov", "trak", "tkhd"), lambda header: header[:-8] + fixed)
    assert (probe(data).width, probe(data).height) == (width, 48)


def test_shots_are_found_in_what_is_shown() -> None:
    """What flickers is cropped off; the cut that is shown is found."""
    images = []
    for i in range(60):
        image = np.full((48, 64, 3), 255 * (i // 20 % 2), np.uint8)
        image[8:32, 24:56] = 200 if i < 30 else 20
        images.append(image)
    plain = video(range(0, 2400, 40), images=images)
    data = in_mp4(plain, ENTRY, lambda entry: entry + clap(32, 24, 8, -4))
    assert find_shots(data) == [Span(0, 1_200_000), Span(1_200_000, 2_400_000)]
    assert find_shots(plain) == [Span(0, 800_000), Span(800_000, 1_600_000), Span(1_600_000, 2_400_000)]


def test_decord_is_not_used_for_cropped_video() -> None:
    data = CROPPED["clap in MP4"]
    with open_video("decord", data) as reader:
        assert isinstance(reader, DecordReader)
        assert not reader.is_used
    np.testing.assert_array_equal(*(decode(data, "video", [WHOLE], reader=name).views[WHOLE] for name in READERS))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(CROPPED)), st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 255)), max_size=12))
def test_hostile_bytes_around_a_crop_give_frames_or_a_media_error(name: str, flips: list[tuple[int, int]]) -> None:
    data = bytearray(CROPPED[name])
    low, high = (data.index(b"moov"), len(data)) if b"moov" in data else (0, 600)
    for at, value in flips:
        data[low + at % (high - low)] = value
    try:
        frame = first(bytes(data))
    except MediaError:
        return
    assert frame.ndim == 3


def test_many_empty_boxes_take_no_time() -> None:
    """An index behind more boxes than are looked at is not searched for an aperture any more."""
    data = CROPPED["clap in MP4"]
    at = data.index(b"mdat") - 4
    started = time.monotonic()
    with av.open(BytesIO(data)) as file:
        assert crops_of(data, file.streams.video[0])
        assert crops_of(data[:at] + box("free") * 2_000_000 + data[at:], file.streams.video[0]) == {}
    assert time.monotonic() - started < 5
