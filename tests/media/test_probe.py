"""What media is, told from its content; and what to say of what is not media."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synth import audio_file, flat, shipped, tone, video

from curate.media.decode import decode
from curate.media.probe import Probe, probe
from curate.media.requests import Audio, Frames
from curate.schema.errors import MediaError

TEXT = b"Not a picture at all.\nJust words, twice as many as needed.\n" * 20


def jpeg() -> bytes:
    out = BytesIO()
    Image.fromarray(flat(9, (40, 30))).save(out, "JPEG")
    return out.getvalue()


def mp4() -> bytes:
    return video(range(0, 2000, 40), audio=tone(2.0))


def test_what_a_probe_says() -> None:
    assert probe(jpeg()) == Probe("image", 40, 30, None, None, False, "jpeg", None)
    found = probe(mp4())
    assert (found.kind, found.width, found.height, found.fps) == ("video", 64, 48, 25.0)
    assert (found.codec, found.has_audio, found.audio_rate) == ("h264", True, 48000)
    assert found.duration == pytest.approx(2.0, abs=1e-3)
    heard = probe(audio_file(tone(1.5, 16000), rate=16000))
    assert heard == Probe("audio", None, None, 1.5, None, True, "pcm_s16le", 16000)


def test_the_content_decides_and_not_the_name() -> None:
    assert probe(jpeg(), "holiday.mp4").kind == "image"
    assert probe(mp4(), "song.mp3").kind == "video"


@pytest.mark.parametrize(
    ("data", "name", "sentence"),
    [
        (b"", "a.jpg", r"^a\.jpg is empty \(0 bytes\)\.$"),
        (TEXT, "a.jpg", r"^a\.jpg is a text file, not media\.$"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "photo.png", r"^photo\.png is an HTML page, not media\.$"),
        (b"%PDF-1.7\n" + bytes(range(256)), "", r"^The file is a PDF document, not media\.$"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"></svg>', "x", "SVG drawing"),
        (bytes(5000), "zeros.mp4", "nothing but zero bytes"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(100), "p.heic", "HEIC image"),
        (jpeg()[:30], "p.jpg", "JPEG image that is damaged or cut off in its header"),
    ],
)
def test_what_is_not_media_is_named(data: bytes, name: str, sentence: str) -> None:
    with pytest.raises(MediaError, match=sentence):
        probe(data, name)


def test_an_mp4_without_its_index() -> None:
    data = mp4()
    with pytest.raises(MediaError, match=r"cut off: its index \(the moov box\) is missing"):
        probe(data[: data.index(b"moov") - 4], "clip.mp4")


def test_photoshop_documents_are_refused() -> None:
    with pytest.raises(MediaError, match="Photoshop"):
        probe(shipped("iscc_samples", "files/image/demo.psd"))


def test_a_playlist_reads_no_other_file(tmp_path: Path) -> None:
    """FFmpeg would follow each of these to the file they name (law 11)."""
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(mp4())
    playlists = [
        f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:2,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
        f"ffconcat version 1.0\nfile 'file:{secret}'\n",
    ]
    for playlist in playlists:
        with pytest.raises(MediaError, match="not media"):
            probe(playlist.encode(), "clip.m3u8")
        with pytest.raises(MediaError):
            decode(playlist.encode(), "video", [Frames(16)])


def test_cover_art_does_not_make_audio_a_video() -> None:
    data = shipped("iscc_samples", "files/audio/withcover.mp3")
    with av.open(BytesIO(data)) as file:
        assert file.streams.video, "the file has no cover: it tests nothing"
    found = probe(data)
    assert (found.kind, found.width, found.codec) == ("audio", None, "mp3")
    assert list(decode(data, "audio", [Frames(16), Audio(16000)]).views) == [Audio(16000)]


def test_a_video_without_frames() -> None:
    """A whole index, and zeros where the frames were."""
    data = bytearray(video(range(0, 2000, 40)))
    begin = data.index(b"mdat") + 4
    end = data.index(b"moov") - 4
    data[begin:end] = bytes(end - begin)
    with pytest.raises(MediaError, match=r"^empty\.mp4 has a video stream of which no frame can be decoded\.$"):
        probe(bytes(data), "empty.mp4")


@pytest.mark.parametrize(
    "name",
    [
        "3g2",
        "3gp",
        "asf",
        "avi",
        "f4v",
        "flv",
        "m1v",
        "m4v",
        "mkv",
        "mov",
        "mp4",
        "mpeg",
        "mpg",
        "rm",
        "vob",
        "webm",
        "wmv",
    ],
)
def test_one_video_in_many_containers(name: str) -> None:
    """60.04 s of 24 frames a second. The bare MPEG-1 stream says 25, and its frames are counted at that."""
    found = probe(shipped("iscc_samples", f"files/video/demo.{name}"))
    assert found.kind == "video"
    assert found.duration == pytest.approx(60.04, abs=0.1)
    assert found.fps == (25 if name == "m1v" else 24)
    assert found.has_audio == (name != "m1v")


@pytest.mark.parametrize("name", ["aac", "ac3", "aif", "mp3", "ogg", "opus", "wav", "wv"])
def test_one_recording_in_many_formats(name: str) -> None:
    found = probe(shipped("iscc_samples", f"files/audio/demo.{name}"))
    assert found.kind == "audio"
    assert found.duration == pytest.approx(15.50, abs=0.05)


def test_a_stream_that_no_longer_decodes() -> None:
    """A Theora file whose header is good and whose frames FFmpeg 8 cannot decode: probed, then a clear failure."""
    data = shipped("iscc_samples", "files/video/demo.ogv")
    assert probe(data).kind == "video"
    with pytest.raises(MediaError, match="damaged"):
        decode(data, "video", [Frames(16)])


def probed(data: bytes) -> Probe | str:
    try:
        return probe(data)
    except MediaError as error:
        return str(error)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_give_a_probe_or_a_media_error(data: bytes) -> None:
    found = probed(data)
    assert isinstance(found, Probe) or found.endswith(".")


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(["mp4", "jpeg", "wav", "mkv"]), st.integers(0, 2**32), st.integers(1, 40))
def test_mutated_media_give_views_or_a_media_error(kind: str, seed: int, flips: int) -> None:
    """Whatever is broken, no other exception comes out, and no view is missing without one."""
    data = bytearray(_ORIGINALS[kind])
    for i in range(flips):
        data[(seed * 2654435761 + i * i * 7919 + i * 104729) % len(data)] = (seed >> (i % 24)) & 255
    views = [Frames(16, fps=5), Audio(8000)]
    found = probed(bytes(data))
    if isinstance(found, Probe):
        try:
            got = decode(bytes(data), found.kind, views, limit_s=20)
        except MediaError:
            return
        assert got.views


_ORIGINALS = {
    "mp4": mp4(),
    "jpeg": jpeg(),
    "wav": audio_file(tone(0.5)),
    "mkv": video(range(0, 1000, 40), container="matroska"),
}
