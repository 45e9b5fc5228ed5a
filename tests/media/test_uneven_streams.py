"""Audio and frames of unequal length: what is missing of one is silence or a held frame, and takes no clip along."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from synth import audio_file, indices, noise, tone, video

from curate.media.clips import Span, cut_spans
from curate.media.decode import decode
from curate.media.probe import probe
from curate.media.requests import Audio, Frames
from curate.media.shots import find_shots
from curate.schema.errors import MediaError

ALL = Frames(16, fps=25, max_frames=1000)
KHZ16 = Audio(16000)
CODECS = {
    "mp4": ("libx264", "aac"),
    "matroska": ("libx264", "flac"),
    "webm": ("libvpx-vp9", "libopus"),
    "mpegts": ("libx264", "mp2"),
    "avi": ("mpeg4", "pcm_s16le"),
    "flv": ("libx264", "aac"),
}
FAST = {
    "libx264": {"g": "10", "preset": "ultrafast"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
    "mpeg4": {"g": "10", "qmin": "1", "qmax": "2"},
}


def film(container: str, frames: int, seconds: float, at: float = 0) -> bytes:
    """Frames of 40 ms, and noise that begins at `at`."""
    codec, audio_codec = CODECS[container]
    return video(
        range(frames),
        base=Fraction(1, 25),
        container=container,
        codec=codec,
        options=FAST[codec],
        audio=noise(seconds),
        audio_at=Fraction(str(at)),
        audio_codec=audio_codec,
    )


def level(samples: np.ndarray) -> int:  # type: ignore[type-arg]
    return int(np.abs(samples.astype(int)).max())


@pytest.mark.parametrize("container", CODECS)
def test_clips_after_the_end_of_the_audio_are_silent(container: str) -> None:
    """4 s of frames, 1 s of audio. Clips that begin 0.5 s or more after the end of the audio failed."""
    data = film(container, 100, 1.0)
    assert probe(data).duration == pytest.approx(4.0, abs=0.01)
    for start in (0, 1_000_000, 1_600_000, 3_000_000):
        got = decode(data, "video", [ALL, KHZ16], Span(start, start + 1_000_000))
        first = start // 40_000
        assert indices(got.views[ALL]) == [i % 64 for i in range(first, first + 25)]
        assert len(got.views[KHZ16]) == 16000
        assert (level(got.views[KHZ16][2400:]) > 1000) == (start == 0)


@pytest.mark.parametrize("container", [name for name in CODECS if name != "avi"])  # AVI knows no such time
def test_clips_before_the_beginning_of_the_audio_are_silent(container: str) -> None:
    data = film(container, 100, 1.0, at=2.8)
    silent = decode(data, "video", [ALL, KHZ16], Span(1_000_000, 2_000_000))
    assert indices(silent.views[ALL]) == list(range(25, 50))
    assert level(silent.views[KHZ16]) == 0
    assert level(decode(data, "video", [KHZ16], Span(3_000_000, 3_500_000)).views[KHZ16]) > 1000


@pytest.mark.parametrize("container", CODECS)
def test_clips_after_the_last_frame_hold_it(container: str) -> None:
    """1 s of frames, 3 s of audio."""
    data = film(container, 25, 3.0)
    assert probe(data).duration == pytest.approx(3.0, abs=0.1)
    last = cut_spans(find_shots(data), 1.0)[-1]
    assert last.end_us == pytest.approx(3_000_000, abs=100_000)
    got = decode(data, "video", [Frames(16, fps=5), KHZ16], last)
    assert set(indices(got.views[Frames(16, fps=5)])) == {24}
    assert level(got.views[KHZ16]) > 1000


@pytest.mark.parametrize("container", CODECS)
def test_one_still_image_with_a_song(container: str) -> None:
    """It was a clip of 0.04 s without the song, or failed."""
    data = film(container, 1, 4.0)
    assert probe(data).duration == pytest.approx(4.0, abs=0.1)
    clips = cut_spans(find_shots(data), 2.1)
    assert [round(span.seconds) for span in clips] == [2, 2]
    for span in clips:
        got = decode(data, "video", [Frames(16, fps=2), KHZ16], span)
        assert set(indices(got.views[Frames(16, fps=2)])) == {0}
        assert level(got.views[KHZ16]) > 1000


def test_damage_at_the_end_of_the_frames_is_not_covered_by_a_held_one() -> None:
    """The last two seconds of frames are spoilt, the audio is not: they fail, and nothing is shown in their place."""
    rng = np.random.default_rng(0)
    noisy = list(rng.integers(0, 255, (100, 64, 64, 3), np.uint8))
    data = bytearray(
        video(range(100), base=Fraction(1, 25), size=(64, 64), container="mp4", options={"g": "5", "bf": "0"},
              images=noisy, audio=tone(4.0))
    )  # fmt: skip
    begin = data.index(b"mdat") + 4
    half = begin + (len(data) - begin) // 2
    with av.open(BytesIO(bytes(data))) as file:
        for packet in file.demux(video=0):
            if packet.size and packet.pos is not None and packet.pos > half:
                data[packet.pos + 8 : packet.pos + packet.size] = bytes(packet.size - 8)
    spans = cut_spans(find_shots(bytes(data)), 10)
    assert spans[-1].end_us == pytest.approx(4_000_000, abs=50_000)
    with pytest.raises(MediaError, match=r"damaged|ended"):
        decode(bytes(data), "video", [Frames(16)], Span(3_000_000, 3_900_000))


def test_audio_alone_is_not_made_longer() -> None:
    """The law of silence is a video's: of audio alone a clip that lies behind its end is an error."""
    with pytest.raises(MediaError, match="ended"):
        decode(audio_file(tone(1.0)), "audio", [KHZ16], Span(2_000_000, 3_000_000))
