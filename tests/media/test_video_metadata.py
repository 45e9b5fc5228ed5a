"""What containers and streams say of a video beside its frames: what is honoured, and what changes nothing.

Cropping has its own file; rotation by the track's matrix, stated colours, pixel shapes of MP4, size changes and covers
are shown in `test_video.py` and `test_media_truth.py`.
"""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import imageio_ffmpeg
import mutate
import numpy as np
import pytest
from boxed import ENTRY, box, element, in_mkv, in_mp4, set_track, set_video
from numpy.typing import NDArray
from PIL import Image
from synth import channels, corner_names, corners, indices, tone, video

from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.probe import probe
from curate.media.requests import Audio, Frames
from curate.schema.errors import MediaError

WHOLE, ALL = Frames(1000, crop=False), Frames(16, fps=25, max_frames=100)
FOUR = [corners((64, 48))] * 5
MP4 = video(range(0, 200, 40), images=FOUR)
MKV = video(range(0, 200, 40), images=FOUR, container="matroska")
LOSSLESS = video(range(0, 200, 40), images=FOUR, container="matroska", codec="ffv1", pix_fmt="yuv444p")
"""FFV1 says nothing of colours in its stream."""


def size(data: bytes) -> tuple[int | None, int | None]:
    found = probe(data)
    return found.width, found.height


def first(data: bytes) -> NDArray[np.generic]:
    return decode(data, "video", [WHOLE]).views[WHOLE][0]


# ---- the shape of pixels ----


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({0x54B0: 128, 0x54BA: 48, 0x54B2: 0}, (128, 48)),
        ({0x54B0: 64, 0x54BA: 96, 0x54B2: 0}, (32, 48)),
        ({0x54B0: 256, 0x54BA: 96, 0x54B2: 1}, (128, 48)),
        ({0x54B0: 256, 0x54BA: 96, 0x54B2: 2}, (128, 48)),
        ({0x54B0: 16, 0x54BA: 9, 0x54B2: 3}, (85, 48)),
        ({0x54B0: 128, 0x54BA: 48, 0x54B2: 4}, (64, 48)),
        ({0x54B0: 6400, 0x54BA: 48, 0x54B2: 0}, (64, 48)),
        ({0x54B0: 0, 0x54BA: 48, 0x54B2: 0}, (64, 48)),
        ({}, (64, 48)),
    ],
    ids=["pixels", "taller", "centimetres", "inches", "ratio", "unknown unit", "absurd", "zero", "not stated"],
)
def test_the_display_size_of_matroska(fields: dict[int, int], expected: tuple[int, int]) -> None:
    """RFC 9559, 5.1.4.1.28.12 to 14. Only its shape counts: the height is that of the frames."""
    assert size(set_video(MKV, fields, without=(0x54B0, 0x54BA, 0x54B2))) == expected


@pytest.mark.parametrize(
    ("codec", "container"),
    [("mpeg2video", "mpeg"), ("mpeg2video", "mpegts"), ("mpeg4", "avi"), ("mjpeg", "avi"), ("wmv2", "asf")],
)
def test_pixel_shapes_of_other_containers(codec: str, container: str) -> None:
    """MPEG-2's aspect codes (here 16:9), MPEG-4's and H.264's own, AVI's `vprp`, ASF's AspectRatioX and -Y."""
    data = video(
        range(5),
        base=Fraction(1, 25),
        codec=codec,
        container=container,
        images=FOUR,
        ratio=Fraction(4, 3),
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
    )
    assert size(data) == (85, 48)


def test_the_pixels_of_h264_where_the_container_says_nothing() -> None:
    data = video(range(5), base=Fraction(1, 25), images=FOUR, container="h264", ratio=Fraction(2))
    assert size(data) == (128, 48)


def test_theora_shows_its_picture_region(tmp_path: Path) -> None:
    """60 x 44 pixels in a frame of 64 x 48 (Theora I, 2.2); the decoder crops."""
    raw = np.stack([corners((60, 44))] * 5)
    out = tmp_path / "out.ogv"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "60x44"]
    command += ["-r", "25", "-i", "-", "-c:v", "libtheora", "-q:v", "10", str(out)]
    subprocess.run(command, check=True, input=raw.tobytes())
    assert size(out.read_bytes()) == (60, 44)
    assert corner_names(first(out.read_bytes())) == "rgbw"


# ---- turning ----


def projection(kind: int, roll: float) -> bytes:
    """Matroska's Projection element: its type, 0 rectangular, and degrees."""
    return element(0x7670, element(0x7671, kind) + element(0x7675, struct.pack(">d", roll)))


def test_matroska_turns_by_the_roll_of_a_flat_projection() -> None:
    """RFC 9559, 5.1.4.1.28.46."""
    data = set_video(MKV, {}, projection(0, 90))
    assert size(data) == (48, 64)
    assert corner_names(first(data)) in ("gwrb", "brwg")


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_h264_turns_by_its_own_message(degrees: int) -> None:
    """The display orientation SEI message, counter-clockwise (H.264, D.2.27)."""
    bare = video(range(5), base=Fraction(1, 25), images=FOUR, container="h264")
    with av.open(BytesIO(bare)) as source:
        turn = av.BitStreamFilterContext(
            f"h264_metadata=display_orientation=insert:rotate={degrees}", source.streams.video[0]
        )
        packets = [turned for packet in source.demux(video=0) if packet.size for turned in turn.filter(packet)]
    data = b"".join(bytes(packet) for packet in packets)
    assert size(data) == ((64, 48) if degrees == 180 else (48, 64))
    assert corner_names(first(data)) == {90: "gwrb", 180: "wbgr", 270: "brwg"}[degrees]


# ---- colours ----


@pytest.mark.parametrize(("matrix", "name"), [(1, "BT.709"), (5, "BT.601"), (9, "BT.2020")])
def test_the_matrix_that_only_the_container_states(matrix: int, name: str) -> None:
    """Colour in Matroska (5.1.4.1.28.17) and `colr` in MP4, with a stream that says nothing."""
    colour = (200, 40, 60)
    frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), colour, np.uint8), format="rgb24")
    planes = frame.reformat(format="yuv444p", dst_colorspace=matrix).to_ndarray()
    out = BytesIO()
    with av.open(out, "w", format="matroska") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        bare = av.VideoFrame.from_ndarray(planes, format="yuv444p")
        bare.pts, bare.time_base = 0, Fraction(1, 25)
        file.mux(stream.encode(bare))
        file.mux(stream.encode(None))
    stated = set_video(out.getvalue(), {}, element(0x55B0, element(0x55B1, matrix) + element(0x55B9, 1)))
    assert np.abs(first(stated).reshape(-1, 3).mean(axis=0) - colour).max() <= 2, name


@pytest.mark.parametrize("matrix", [8, 11, 12, 13, 14, 15])
def test_a_matrix_that_is_not_converted_is_refused(matrix: int) -> None:
    """YCgCo, YDzDx, chromaticity-derived, ICtCp, IPT-C2 (ITU-T H.273, Table 4): libswscale would take BT.601's for
    them, and say nothing."""
    data = set_video(LOSSLESS, {}, element(0x55B0, element(0x55B1, matrix)))
    assert size(data) == (64, 48)
    with pytest.raises(MediaError, match=f"coded with matrix {matrix} of H.273"):
        first(data)


@pytest.mark.parametrize(("codec", "pix_fmt"), [("png", "rgb24"), ("qtrle", "rgb24")])
def test_rgb_passes_unchanged(codec: str, pix_fmt: str) -> None:
    data = video(range(0, 200, 40), images=FOUR, container="mov", codec=codec, pix_fmt=pix_fmt)
    assert np.array_equal(first(data), FOUR[0])


# ---- what changes nothing ----


def entry(body: bytes) -> bytes:
    return in_mp4(MP4, ENTRY, lambda old: old + body)


def disabled(header: bytes) -> bytes:
    return header[:3] + b"\0" + header[4:]  # the track_enabled flag of tkhd (14496-12, 8.3.3)


SPHERE = box("prhd", 0, 0, 0, 0) + box("equi", *[0] * 5)
COLOUR_BOX = b"nclx" + struct.pack(">HHHB", 9, 16, 2, 0)  # BT.2020, PQ, no matrix

SAME_MP4 = {
    "colr: BT.2020 and PQ": entry(box("colr", body=COLOUR_BOX)),
    "colr: P3 and HLG": entry(box("colr", body=b"nclx" + struct.pack(">HHHB", 12, 18, 2, 0))),
    "mdcv and clli": entry(box("mdcv", *[0] * 4, 10_000_000, 50) + box("clli", 1000 << 16 | 400)),
    "fiel: two fields": entry(box("fiel", body=b"\2\6")),
    "st3d: side by side": entry(box("st3d", 0, body=b"\2")),
    "sv3d: a sphere": entry(
        box(
            "sv3d", body=box("svhd", 0, body=b"x\0") + box("proj", body=box("prhd", 0, 0, 0, 0) + box("equi", *[0] * 5))
        )
    ),
    "the only track disabled": in_mp4(MP4, ("moov", "trak", "tkhd"), disabled),
    "tapt: track apertures": in_mp4(
        MP4, ("moov", "trak"), lambda old: old + box("tapt", body=box("clef", 0, 32 << 16, 24 << 16))
    ),
    "an unknown box": entry(box("zzzz", 1, 2, 3)),
}

COLOUR = 0x55B0
SAME_MKV = {
    "FlagInterlaced and FieldOrder": set_video(MKV, {0x9A: 1, 0x9D: 1}),
    "StereoMode: side by side": set_video(MKV, {0x53B8: 1}),
    "AlphaMode": set_video(MKV, {0x53C0: 1}),
    "Projection: a sphere": set_video(MKV, {}, projection(1, 0)),
    "primaries and transfer: BT.2020, PQ": set_video(
        MKV, {}, element(COLOUR, element(0x55BB, 9) + element(0x55BA, 16))
    ),
    "primaries and transfer: P3, HLG": set_video(MKV, {}, element(COLOUR, element(0x55BB, 12) + element(0x55BA, 18))),
    "MaxCLL": set_video(MKV, {}, element(COLOUR, element(0x55BC, 1000) + element(0x55BD, 400))),
    "chroma siting": set_video(MKV, {}, element(COLOUR, element(0x55B7, 2) + element(0x55B8, 2))),
    "FlagEnabled 0": set_track(MKV, {0xB9: 0}),
    "FlagDefault 0": set_track(MKV, {0x88: 0}),
    "FlagForced and hearing impaired": set_track(MKV, {0x55AA: 1, 0x55AB: 1}),
}


@pytest.mark.parametrize("name", [*SAME_MP4, *SAME_MKV])
def test_metadata_that_is_ignored_changes_nothing(name: str) -> None:
    plain, data = (MP4, SAME_MP4[name]) if name in SAME_MP4 else (MKV, SAME_MKV[name])
    assert data != plain
    assert probe(data) == probe(plain)
    assert np.array_equal(first(data), first(plain))


@pytest.mark.parametrize(("codec", "pix_fmt"), [("qtrle", "argb"), ("png", "rgba"), ("prores_ks", "yuva444p10le")])
def test_alpha_is_ignored(codec: str, pix_fmt: str) -> None:
    """What is transparent keeps the colour that is coded."""
    out = BytesIO()
    with av.open(out, "w", format="mov") as file:
        stream = file.add_stream(codec, rate=25, options={"profile": "4444"} if codec == "prores_ks" else {})
        stream.width, stream.height, stream.pix_fmt = 64, 48, pix_fmt
        clear = np.dstack([corners((64, 48)), np.zeros((48, 64), np.uint8)])
        frame = av.VideoFrame.from_ndarray(clear, format="rgba").reformat(format=pix_fmt)
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    assert corner_names(first(out.getvalue())) == "rgbw"


def test_interlaced_frames_are_not_split() -> None:
    """Each frame holds two fields, with every other line of another time; it comes out as it is, and the rate too."""
    woven = np.full((48, 64, 3), 30, np.uint8)
    woven[::2] = 220
    data = video(
        range(25),
        base=Fraction(1, 25),
        codec="mpeg2video",
        container="mpegts",
        images=[woven] * 25,
        options={"flags": "+ildct+ilme", "qmin": "1", "qmax": "1", "g": "1"},
    )
    found = probe(data)
    assert found.fps == 25
    frame = first(data).mean(axis=(1, 2))
    assert frame[::2].min() > 190
    assert frame[1::2].max() < 60


def test_the_pan_scan_size_of_mpeg_2_is_ignored() -> None:
    """A sequence display extension of 32 x 24 (ISO/IEC 13818-2, 6.2.2.4): neither frames nor their shape change."""
    plain = video(range(5), base=Fraction(1, 25), codec="mpeg2video", container="mpeg2video", images=FOUR)
    bits = f"{2:04b}{5:03b}0{32:014b}1{24:014b}000"
    at = plain.index(b"\0\0\1\xb5") + 10
    data = plain[:at] + b"\0\0\1\xb5" + int(bits, 2).to_bytes(5, "big") + plain[at:]
    assert probe(data) == probe(plain)
    assert np.array_equal(first(data), first(plain))


# ---- which track ----


def two_tracks(first_enabled: bool) -> bytes:
    """An MP4 of a grey 64 x 48 and a white 32 x 32 track, of which the second is enabled, and maybe the first."""
    out = BytesIO()
    with av.open(BytesIO(mutate.two_videos())) as source, av.open(out, "w", format="mp4") as file:
        streams = [file.add_stream_from_template(stream) for stream in source.streams.video]
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                file.mux(packet)
    flags = iter([first_enabled, True])
    return in_mp4(
        out.getvalue(),
        ("moov", "trak", "tkhd"),
        lambda header: header[:3] + (b"\3" if next(flags) else b"\2") + header[4:],
    )


@pytest.mark.parametrize(("enabled", "expected"), [(True, (64, 48)), (False, (32, 32))])
def test_a_disabled_track_gives_way_to_an_enabled_one(enabled: bool, expected: tuple[int, int]) -> None:
    assert size(two_tracks(enabled)) == expected


def test_chapter_thumbnails_are_not_the_video() -> None:
    """A track of images to which another one refers as its chapters (QuickTime's `chap`), larger and enabled."""
    plain = two_tracks(True)
    refers = iter([b"", box("tref", body=box("chap", 1))])
    data = in_mp4(plain, ("moov", "trak"), lambda track: track + next(refers))
    assert size(plain) == (64, 48)
    assert size(data) == (32, 32)


def test_an_attached_picture_of_matroska_is_not_the_video() -> None:
    cover = BytesIO()
    Image.new("RGB", (200, 200), (255, 0, 0)).save(cover, "PNG")
    out = BytesIO()
    with av.open(BytesIO(MKV)) as source, av.open(out, "w", format="matroska") as file:
        file.add_attachment("cover.png", "image/png", cover.getvalue())
        stream = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                file.mux(packet)
    assert size(out.getvalue()) == (64, 48)
    assert corner_names(first(out.getvalue())) == "rgbw"


def test_audio_is_of_the_program_that_the_video_is_of(tmp_path: Path) -> None:
    """A transport stream with two programs, of which the other has sound of six channels and a higher bit rate."""
    film = video(range(0, 2000, 40), audio=tone(2.0, hertz=440))
    other = channels(np.repeat(tone(2.0, hertz=3000)[np.newaxis], 6, 0), "5.1", codec="ac3", container="ac3")
    (tmp_path / "film.mp4").write_bytes(film)
    (tmp_path / "other.ac3").write_bytes(other)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", "film.mp4", "-i", "other.ac3"]
    command += ["-map", "0:v", "-map", "0:a", "-map", "1:a", "-map", "0:v", "-c", "copy"]
    command += ["-program", "st=0:st=1", "-program", "st=2:st=3", "out.ts"]
    subprocess.run(command, check=True, cwd=tmp_path, stdin=subprocess.DEVNULL)
    data = (tmp_path / "out.ts").read_bytes()
    with av.open(BytesIO(data)) as file:
        assert file.streams.best("audio") == file.streams.audio[1], "nothing is tested"
    heard = decode(data, "video", [Audio(16000)], Span(0, 1_000_000)).views[Audio(16000)].astype(float)
    assert np.argmax(np.abs(np.fft.rfft(heard))) == pytest.approx(440, abs=3)
    assert probe(data).audio_rate == 48000


@pytest.mark.parametrize("change", [lambda data: data, lambda data: in_mkv(data, (0x1F43B675,), lambda body: body)])
def test_files_that_these_tests_rewrite_decode_as_before(change: Callable[[bytes], bytes]) -> None:
    data = video(range(0, 1000, 40), container="matroska")
    assert indices(decode(change(data), "video", [ALL]).views[ALL]) == list(range(25))
