"""Sound: on the same clock as the images, to the sample, and never quietly wrong."""

from __future__ import annotations

from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from synth import audio_file, flat, index_of, noise, shipped, tone, video, with_a_hole

from curate.media.audio import MAX_SPAN_SECONDS, read_audio, resample
from curate.media.decode import Span, decode
from curate.media.probe import probe
from curate.media.requests import Audio, Frames
from curate.schema.errors import MediaError

KHZ16, KHZ48 = Audio(16000), Audio(48000)
EVEN = range(0, 2000, 40)


def click(seconds: float, at: float, rate: int = 48000) -> NDArray[np.int16]:
    """Silence with a burst of 2 ms that begins at `at`."""
    out = np.zeros(int(seconds * rate), np.int16)
    begin = round(at * rate)
    out[begin : begin + rate // 500] = 24000
    return out


def onset(samples: NDArray[np.generic], rate: int) -> float:
    """Seconds to the first sample above a quarter of full scale."""
    loud = np.abs(samples.astype(np.int32)) > 8000
    assert loud.any()
    return int(np.argmax(loud)) / rate


@pytest.mark.parametrize(
    ("container", "codec", "audio_codec"),
    [
        ("mp4", "libx264", "aac"),
        ("matroska", "libx264", "flac"),
        ("webm", "libvpx-vp9", "libopus"),
        ("mpegts", "libx264", "libmp3lame"),
    ],
)
@pytest.mark.parametrize("shift", [0, 700], ids=["together", "sound begins later"])
def test_a_flash_and_its_click_stay_together(container: str, codec: str, audio_codec: str, shift: int) -> None:
    """Frame 50 of 80 is white, and a click sounds at its time. Any span that holds both shows them at the same time."""
    images = [np.full((48, 64, 3), 255 if i == 50 else 30, np.uint8) for i in range(80)]
    options = {"deadline": "realtime", "cpu-used": "8"} if codec == "libvpx-vp9" else {"g": "20"}
    data = video(
        range(80),
        base=Fraction(1, 25),
        codec=codec,
        container=container,
        images=images,
        options=options,
        audio=click(3.2 - shift / 1000, 2.0 - shift / 1000),
        audio_at=Fraction(shift, 1000),
        audio_codec=audio_codec,
    )
    frames = Frames(16, fps=25, max_frames=100)
    for start, end in ((0, 3_000_000), (1_337_000, 2_600_000), (1_960_000, 2_160_000)):
        got = decode(data, "video", [frames, KHZ16, KHZ48], Span(start, end))
        white = int(np.argmax(got.views[frames].mean(axis=(1, 2, 3)) > 150))
        assert got.times[frames][white] + start / 1e6 == pytest.approx(2.0, abs=1e-3)
        for view in (KHZ16, KHZ48):
            assert len(got.views[view]) == round((end - start) / 1e6 * view.rate)
            heard = onset(got.views[view], view.rate) + start / 1e6
            assert heard == pytest.approx(2.0, abs=0.004 if audio_codec != "flac" else 0.001)


def test_audio_that_leads_begins_the_clock_and_what_is_missing_is_silence() -> None:
    """Frames begin at 1 s, audio at 0 and ends at 1.5 s: nothing is lost, the first frame is on display from 0 on."""
    data = video(range(1000, 3000, 40), container="matroska", audio=tone(1.5), audio_codec="flac")
    assert probe(data).duration == pytest.approx(3.0, abs=0.002)
    got = decode(data, "video", [KHZ48, Frames(16, fps=2)], Span(0, 3_000_000))
    heard = got.views[KHZ48]
    assert len(heard) == 144000
    assert np.abs(heard[100:71000]).max() > 7000
    assert np.abs(heard[72500:]).max() == 0
    assert [index_of(frame) for frame in got.views[Frames(16, fps=2)]] == [0, 0, 6, 18, 31, 43]


def test_audio_that_leads_by_less_than_a_syllable_is_cut() -> None:
    """The clock begins with the frames, at 0.2 s; what lies before the first and after the last sample is silence."""
    data = video(range(200, 2200, 40), container="matroska", audio=tone(0.7), audio_codec="flac")
    heard = decode(data, "video", [KHZ48], Span(0, 2_000_000)).views[KHZ48]
    assert np.abs(heard[100:23000]).max() > 7000
    assert np.abs(heard[24500:]).max() == 0
    late = video(EVEN, container="matroska", audio=tone(1.0), audio_at=Fraction(1), audio_codec="flac")
    heard = decode(late, "video", [KHZ48], Span(0, 2_000_000)).views[KHZ48]
    assert np.abs(heard[:47900]).max() == 0
    assert np.abs(heard[48100:]).max() > 7000


def test_a_hole_in_the_time_line_is_silence() -> None:
    heard = decode(with_a_hole(), "audio", [KHZ48], Span(0, 3_000_000)).views[KHZ48]
    assert np.abs(heard[:47000]).max() > 7000
    assert np.abs(heard[48100:95900]).max() == 0
    assert np.abs(heard[97000:]).max() > 7000


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 3_900_000), st.integers(1, 2_000_000), st.sampled_from([8000, 16000, 22050, 44100, 48000]))
def test_a_segment_is_a_stretch_of_the_whole(start: int, length: int, rate: int) -> None:
    """Exactly round(seconds * rate) samples, the very ones that the whole has there."""
    span = Span(start, min(start + length, 4_000_000))
    view = Audio(rate)
    got = decode(_WAV, "audio", [view], span).views[view]
    assert got.dtype == np.int16
    assert len(got) == round(Fraction(span.end_us - span.start_us, 1_000_000) * rate)
    first = round(Fraction(span.start_us, 1_000_000) * rate)
    whole = _whole(rate)
    assert np.array_equal(got[: len(whole) - first], whole[first : first + len(got)])


_WAV = audio_file(noise(4.0, 44100), rate=44100)
_WHOLE: dict[int, NDArray[np.generic]] = {}


def _whole(rate: int) -> NDArray[np.generic]:
    if rate not in _WHOLE:
        _WHOLE[rate] = decode(_WAV, "audio", [Audio(rate)]).views[Audio(rate)]
    return _WHOLE[rate]


@pytest.mark.parametrize(
    ("path", "kind"), [("audio/demo.mp3", "audio"), ("audio/demo.opus", "audio"), ("video/demo.mp4", "video")]
)
def test_a_segment_of_real_coded_audio_is_a_stretch_of_the_whole(path: str, kind: str) -> None:
    """Bit reservoirs, overlaps and pre-skips included."""
    data = shipped("iscc_samples", f"files/{path}")
    whole = decode(data, kind, [KHZ16], Span(0, 12_000_000)).views[KHZ16]
    for start in (1_000_000, 3_337_000, 9_999_000):
        part = decode(data, kind, [KHZ16], Span(start, start + 1_000_000)).views[KHZ16]
        first = start * 16 // 1000
        assert np.array_equal(part, whole[first : first + 16000])


def test_sixteen_bits_at_their_own_rate_pass_unchanged() -> None:
    samples = noise(0.5)
    assert np.array_equal(decode(audio_file(samples), "audio", [KHZ48]).views[KHZ48], samples)


def test_resampling_keeps_time_zero() -> None:
    for rate, wanted in ((48000, 16000), (44100, 16000), (8000, 16000), (22050, 48000)):
        source = np.zeros(rate, np.float32)
        source[rate // 2] = 1
        out = resample(source, rate, wanted).astype(np.float64)
        assert abs(int(np.argmax(np.abs(out))) / wanted - 0.5) <= 1 / min(rate, wanted)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(bad: float) -> None:
    samples = np.zeros((1, 4096), np.float32)
    samples[0, 2000] = bad
    out = BytesIO()
    with av.open(out, "w", format="wav") as file:
        stream = file.add_stream("pcm_f32le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
        file.mux(stream.encode(frame))
    with pytest.raises(MediaError, match="not finite"):
        decode(out.getvalue(), "audio", [KHZ16])


def test_audio_that_breaks_off_is_an_error_not_silence() -> None:
    whole = audio_file(noise(4.0), codec="flac", container="flac")
    cut = whole[: len(whole) // 2]
    assert len(decode(cut, "audio", [KHZ16], Span(0, 1_000_000)).views[KHZ16]) == 16000
    with pytest.raises(MediaError, match=r"The audio ended at [12]\.\d+ s, before its span does at 4\.000 s"):
        decode(cut, "audio", [KHZ16], Span(0, 4_000_000))


def test_damage_inside_audio_is_an_error() -> None:
    """A FLAC frame whose checksum no longer holds, in the middle."""
    data = bytearray(audio_file(noise(4.0), codec="flac", container="flac"))
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    with pytest.raises(MediaError, match=r"The audio is damaged at [12]\.\d+ s"):
        decode(bytes(data), "audio", [KHZ16])
    assert len(decode(bytes(data), "audio", [KHZ16], Span(0, 1_000_000)).views[KHZ16]) == 16000


def test_a_length_that_the_header_guesses_is_counted() -> None:
    """Of bare AAC FFmpeg guesses 14.5 s from the bit rate; the same recording as FLAC or WAV lasts 15.50 s."""
    data = shipped("iscc_samples", "files/audio/demo.aac")
    with av.open(BytesIO(data)) as file:
        assert file.duration is not None
        assert file.duration / 1e6 < 15
    assert probe(data).duration == pytest.approx(15.50, abs=0.05)


def test_a_sample_rate_that_cannot_be_true() -> None:
    data = bytearray(audio_file(tone(0.1)))
    data[24:28] = (1_593_883_520).to_bytes(4, "little")
    with pytest.raises(MediaError, match="1593883520 Hz cannot be true"):
        probe(bytes(data))
    with pytest.raises(MediaError, match="cannot be true"):
        decode(bytes(data), "audio", [KHZ16], Span(0, 1000))


def test_a_video_without_audio_has_no_audio_view() -> None:
    got = decode(video(EVEN), "video", [KHZ16, Frames(16)])
    assert KHZ16 not in got.views
    assert index_of(got.views[Frames(16)][0]) > 0


def test_audio_has_no_frames_and_images_have_no_audio() -> None:
    assert decode(audio_file(tone(0.5)), "audio", [Frames(16)]).views == {}
    out = BytesIO()
    from PIL import Image

    Image.fromarray(flat(3, (8, 8))).save(out, "PNG")
    assert list(decode(out.getvalue(), "image", [Frames(16), KHZ16]).views) == [Frames(16)]


def test_a_span_that_is_too_long_for_memory_is_refused() -> None:
    with pytest.raises(MediaError, match="more than the 3600 s"):
        read_audio(audio_file(tone(0.1)), Span(0, (MAX_SPAN_SECONDS + 1) * 1_000_000), [16000])
