"""What files say of their sound beside the samples: what is honoured, and what changes nothing."""

from __future__ import annotations

import struct
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from av.stream import Disposition
from numpy.typing import NDArray
from synth import audio_file, channels, tone

from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.requests import Audio, Energy

KHZ48 = Audio(48000)


def heard(data: bytes, span: Span | None = None) -> NDArray[np.float64]:
    return decode(data, "audio", [KHZ48], span).views[KHZ48].astype(np.float64)


def level(samples: NDArray[np.float64]) -> float:
    """Root mean square over that of a tone of level 8000."""
    return float(np.sqrt(np.mean(samples[2000:-2000] ** 2)) / (8000 / 2**0.5))


@pytest.mark.parametrize(("decibels", "expected"), [(0, 1), (-6.0206, 0.5), (6.0206, 2)])
def test_the_output_gain_of_opus_is_part_of_the_audio(decibels: float, expected: float) -> None:
    """RFC 7845, 5.1: a decoder must apply it; FFmpeg does."""
    data = bytearray(audio_file(tone(1.0), codec="libopus", container="matroska"))
    at = data.index(b"OpusHead") + 16
    data[at : at + 2] = struct.pack("<h", round(decibels * 256))
    assert level(heard(bytes(data))) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("codec", "container", "tags"),
    [
        ("flac", "flac", {"REPLAYGAIN_TRACK_GAIN": "-12.00 dB", "REPLAYGAIN_TRACK_PEAK": "0.5"}),
        ("libmp3lame", "mp3", {"REPLAYGAIN_TRACK_GAIN": "-12.00 dB"}),
        ("libopus", "ogg", {"R128_TRACK_GAIN": "-3072"}),
        ("pcm_s16le", "wav", {"title": "a title", "comment": "loud"}),
    ],
)
def test_gains_in_tags_are_ignored(codec: str, container: str, tags: dict[str, str]) -> None:
    """ReplayGain and R128 gains are wishes of a player; samples and loudness are those of the recording."""
    out = BytesIO()
    with av.open(out, "w", format=container) as file:
        file.metadata.update(tags)
        stream = file.add_stream(codec, rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(1.0)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        for part in av.AudioResampler("s16", frame_size=960).resample(frame) if codec != "pcm_s16le" else [frame]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    assert level(heard(out.getvalue())[:40000]) == pytest.approx(1, abs=0.05)


def test_the_number_of_channels_may_change() -> None:
    """AC-3 of 5.1 with speech in the centre, then of stereo: each frame is mixed by its own layout."""
    centre = np.zeros((6, 48000), np.int16)
    centre[2] = tone(1.0)
    first = channels(centre, "5.1(side)", codec="ac3", container="ac3", bit_rate=384_000)
    second = channels(np.stack([tone(1.0)] * 2), "stereo", codec="ac3", container="ac3", bit_rate=192_000)
    data = first + second
    got = decode(data, "audio", [KHZ48, Energy()], Span(0, 1_900_000))
    samples = got.views[KHZ48].astype(np.float64)
    assert level(samples[:45000]) == pytest.approx(0.707, abs=0.03)
    assert level(samples[52000:]) == pytest.approx(1, abs=0.03)
    energies = got.views[Energy()]
    assert energies[12:18].mean() == pytest.approx(2 * energies[2:8].mean(), rel=0.05)


def two_recordings(defaults: tuple[bool, bool]) -> bytes:
    """A Matroska file with a tone of 440 Hz, then one of 3000 Hz."""
    out = BytesIO()
    with av.open(out, "w", format="matroska") as file:
        streams = [file.add_stream("flac", rate=48000, layout="mono") for _ in range(2)]
        for stream, default in zip(streams, defaults, strict=True):
            stream.disposition = Disposition.default if default else Disposition.comment
        for stream, hertz in zip(streams, (440, 3000), strict=True):
            for at in range(0, 48000, 4800):
                part = tone(1.0, hertz=hertz)[np.newaxis, at : at + 4800]
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="s16", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 48000, at, Fraction(1, 48000)
                file.mux(stream.encode(frame))
            file.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize(("defaults", "hertz"), [((True, True), 440), ((True, False), 440), ((False, True), 3000)])
def test_one_of_two_recordings(defaults: tuple[bool, bool], hertz: int) -> None:
    """FFmpeg's choice: the one that is marked as the default, else the first."""
    samples = heard(two_recordings(defaults), span=Span(0, 1_000_000))
    assert np.argmax(np.abs(np.fft.rfft(samples))) == pytest.approx(hertz, abs=2)


@pytest.mark.parametrize(
    "codec", ["pcm_u8", "pcm_s16be", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le", "pcm_mulaw"]
)
def test_full_scale_is_one_whatever_the_samples_are(codec: str) -> None:
    container = "aiff" if codec == "pcm_s16be" else "wav"
    assert level(heard(audio_file(tone(1.0), codec=codec, container=container))) == pytest.approx(1, abs=0.02)
