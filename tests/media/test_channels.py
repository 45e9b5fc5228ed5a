"""The mono mix of every layout of channels, and pairs of channels that cancel each other."""

from __future__ import annotations

from io import BytesIO

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from synth import audio_file, channels, noise, shipped, tone

from curate.media.channels import mix, names_of, planar
from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.requests import Audio
from curate.schema.errors import MediaError

KHZ16, KHZ48 = Audio(16000), Audio(48000)

HALF, CENTRE, SIDE = 0.5, 0.70711, 0.35355  # 0 dB, -3 dB and -3 dB in Lo and Ro (BS.775-3, Annex 4), of which the mean

SHARES = {
    "mono": [1],
    "stereo": [HALF, HALF],
    "downmix": [HALF, HALF],
    "binaural": [HALF, HALF],
    "2.1": [HALF, HALF, 0],
    "3.0": [HALF, HALF, CENTRE],
    "3.0(back)": [HALF, HALF, HALF],
    "3.1": [HALF, HALF, CENTRE, 0],
    "4.0": [HALF, HALF, CENTRE, HALF],
    "quad": [HALF, HALF, SIDE, SIDE],
    "quad(side)": [HALF, HALF, SIDE, SIDE],
    "5.0": [HALF, HALF, CENTRE, SIDE, SIDE],
    "5.0(side)": [HALF, HALF, CENTRE, SIDE, SIDE],
    "4.1": [HALF, HALF, CENTRE, 0, HALF],
    "5.1": [HALF, HALF, CENTRE, 0, SIDE, SIDE],
    "5.1(side)": [HALF, HALF, CENTRE, 0, SIDE, SIDE],
    "6.0": [HALF, HALF, CENTRE, HALF, SIDE, SIDE],
    "6.1": [HALF, HALF, CENTRE, 0, HALF, SIDE, SIDE],
    "6.1(front)": [HALF, HALF, 0, HALF, HALF, SIDE, SIDE],
    "7.0": [HALF, HALF, CENTRE, SIDE, SIDE, SIDE, SIDE],
    "7.1": [HALF, HALF, CENTRE, 0, SIDE, SIDE, SIDE, SIDE],
    "7.1(wide)": [HALF, HALF, CENTRE, 0, SIDE, SIDE, HALF, HALF],
    "7.1(wide-side)": [HALF, HALF, CENTRE, 0, HALF, HALF, SIDE, SIDE],
    "cube": [HALF, HALF, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE],
    "5.1.4": [HALF, HALF, CENTRE, 0, SIDE, SIDE, SIDE, SIDE, SIDE, SIDE],
    "7.1.4": [HALF, HALF, CENTRE, 0] + [SIDE] * 8,
    "FC+LFE": [1, 0],
    "FL+LFE": [1, 0],
    "3 channels": [1 / 3, 1 / 3, 1 / 3],
    "6 channels": [1 / 6] * 6,
    "ambisonic 1": [1, 0, 0, 0],
}


def test_every_layout_is_mixed_by_what_its_channels_are() -> None:
    for layout, shares in SHARES.items():
        names = tuple(channel.name for channel in av.AudioLayout(layout).channels)
        assert mix(np.eye(len(shares), dtype=np.float32), names) == pytest.approx(shares, abs=1e-4), layout


@pytest.mark.parametrize("layout", ["22.2", "hexadecagonal", "9.1.6", "octagonal", "7.2.3", "3.1.2"])
def test_no_channel_but_the_lfe_is_lost(layout: str) -> None:
    names = tuple(channel.name for channel in av.AudioLayout(layout).channels)
    shares = mix(np.eye(len(names), dtype=np.float32), names)
    assert [bool(share) for share in shares] == [not name.startswith("LFE") for name in names]
    lefts = [share for name, share in zip(names, shares, strict=True) if "L" in name]
    rights = [share for name, share in zip(names, shares, strict=True) if "R" in name]
    assert sorted(x for x in lefts if x) == sorted(rights)


def test_a_frame_is_what_its_format_says() -> None:
    stereo = av.AudioFrame.from_ndarray(np.array([[16384, -8192], [0, 8192]], np.int16), format="s16p", layout="stereo")
    assert mix(planar(stereo), names_of(stereo)).tolist() == [0.25, 0.0]
    packed = av.AudioFrame.from_ndarray(np.array([[16384, 0, -8192, 8192]], np.int16), format="s16", layout="stereo")
    assert mix(planar(packed), names_of(packed)).tolist() == [0.25, 0.0]
    bytes8 = av.AudioFrame.from_ndarray(np.array([[128, 0, 255]], np.uint8), format="u8", layout="mono")
    assert mix(planar(bytes8), names_of(bytes8)).tolist() == [0, -1, 127 / 128]


def level(data: bytes, kind: str = "audio", span: Span | None = None) -> float:
    """Root mean square of the mono mix, without its ends, over that of a tone of level 8000."""
    heard = decode(data, kind, [KHZ48], span).views[KHZ48].astype(np.float64)
    return float(np.sqrt(np.mean(heard[2000:-2000] ** 2)) / (8000 / 2**0.5))


@pytest.mark.parametrize(
    ("codec", "container", "layout"),
    [
        ("pcm_s16le", "wav", "5.1"),
        ("flac", "flac", "5.1"),
        ("ac3", "ac3", "5.1(side)"),
        ("aac", "mp4", "5.1"),
        ("libopus", "matroska", "5.1"),
    ],
)
def test_speech_in_the_centre_of_a_film(codec: str, container: str, layout: str) -> None:
    """It was a fifth of its level, 14 dB too low."""
    samples = np.zeros((6, 48000), np.int16)
    samples[2] = tone(1.0)
    data = channels(samples, layout, codec=codec, container=container, bit_rate=384_000)
    assert level(data) == pytest.approx(CENTRE, abs=0.02)


@pytest.mark.parametrize(
    ("codec", "container"), [("libopus", "matroska"), ("aac", "mp4"), ("wavpack", "wv"), ("pcm_s16le", "wav")]
)
def test_eight_channels(codec: str, container: str) -> None:
    """PyAV looks for the planes of a ninth, which killed the process, with every film in 7.1 that was not packed."""
    samples = np.zeros((8, 48000), np.int16)
    samples[6] = tone(1.0)
    data = channels(samples, "7.1", codec=codec, container=container, bit_rate=512_000)
    assert level(data) == pytest.approx(SIDE, abs=0.01)


def test_the_bass_channel_is_left_out() -> None:
    samples = np.zeros((6, 48000), np.int16)
    samples[3] = tone(1.0)
    assert level(channels(samples, "5.1")) == 0


def test_loud_channels_in_phase_are_clipped() -> None:
    """At the ends of int16, not wrapped."""
    loud = np.repeat(tone(0.2, level=32767)[np.newaxis], 6, axis=0)
    heard = decode(channels(loud, "5.1"), "audio", [KHZ48]).views[KHZ48]
    assert (heard.max(), heard.min()) == (32767, -32768)
    assert np.abs(np.diff(heard.astype(int))).max() < 32767


# ---- channels that cancel each other ----


def pair(left: NDArray[np.int16], right: NDArray[np.floating] | NDArray[np.int16]) -> NDArray[np.int16]:
    return np.stack([left, np.asarray(right, np.int16)])


@pytest.mark.parametrize(
    ("codec", "container"),
    [
        ("pcm_s16le", "wav"),
        ("flac", "flac"),
        ("libmp3lame", "mp3"),
        ("aac", "adts"),
        ("aac", "mp4"),
        ("libopus", "ogg"),
        ("libopus", "webm"),
    ],
)
def test_one_channel_wired_the_wrong_way_round_is_heard(codec: str, container: str) -> None:
    data = channels(pair(tone(1.0), -tone(1.0)), "stereo", codec=codec, container=container, bit_rate=192_000)
    assert level(data) == pytest.approx(1, abs=0.05)
    assert level(data, span=Span(300_000, 700_000)) == pytest.approx(1, abs=0.05)


def test_what_is_heard_of_antiphase_is_the_left_channel() -> None:
    samples = noise(1.0)
    data = channels(pair(samples, -samples.clip(-32767)), "stereo")
    assert np.abs(decode(data, "audio", [KHZ48]).views[KHZ48].astype(int) - samples).max() <= 1


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(-0.9, 0.95), (-0.7, 0.15), (0.0, 0.5), (0.7, 0.85), (1.0, 1.0)],
    ids=["nearly", "not quite", "one side", "wide", "mono"],
)
def test_other_stereo_is_the_mean(gain: float, expected: float) -> None:
    """-0.9 leaves 0.3 % of the energy to the sum, and counts as wired the wrong way round; -0.7 leaves 3 %."""
    data = channels(pair(tone(1.0), gain * tone(1.0)), "stereo")
    assert level(data) == pytest.approx(expected, abs=0.01)


def test_surrounds_that_cancel_each_other_are_heard_under_a_good_front() -> None:
    samples = np.zeros((6, 48000), np.int16)
    samples[4], samples[5] = tone(1.0), -tone(1.0)
    assert level(channels(samples, "5.1")) == pytest.approx(2 * SIDE, abs=0.01)


def test_two_channels_without_names_are_left_and_right() -> None:
    frame = av.AudioFrame.from_ndarray(np.array([[1, 2]], np.int16), format="s16", layout="2 channels")
    assert names_of(frame) == ("FL", "FR")


def test_a_stretch_that_cancels_is_judged_by_itself() -> None:
    """Two seconds in phase, one not: over all of it the mean holds; the third second alone is heard."""
    left, right = tone(3.0), tone(3.0)
    right[96000:] *= -1
    data = channels(pair(left, right), "stereo")
    whole = decode(data, "audio", [KHZ48]).views[KHZ48]
    assert np.abs(whole[97000:-1000]).max() <= 1
    assert level(data, span=Span(2_100_000, 2_900_000)) == pytest.approx(1, abs=0.01)


def test_silence_is_silence() -> None:
    assert not decode(channels(np.zeros((2, 4800), np.int16), "stereo"), "audio", [KHZ16]).views[KHZ16].any()


@pytest.mark.parametrize("start", [1_000_000, 3_337_000])
def test_a_segment_of_stereo_is_a_stretch_of_the_whole(start: int) -> None:
    """Real music in stereo, and decorrelated noise."""
    unlike = channels(pair(noise(5.0, seed=1), noise(5.0, seed=2)), "stereo")
    for data in (unlike, shipped("iscc_samples", "files/audio/demo.ogg")):
        whole = decode(data, "audio", [KHZ16], Span(0, 5_000_000)).views[KHZ16]
        part = decode(data, "audio", [KHZ16], Span(start, start + 1_000_000)).views[KHZ16]
        assert np.array_equal(part, whole[start * 16 // 1000 :][:16000])


def test_mono_passes_unchanged() -> None:
    samples = noise(0.5)
    assert np.array_equal(decode(audio_file(samples), "audio", [KHZ48]).views[KHZ48], samples)


def test_doubles_beyond_single_precision_are_refused() -> None:
    out = BytesIO()
    with av.open(out, "w", format="wav") as file:
        stream = file.add_stream("pcm_f64le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 4096), 1e300), format="dbl", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        file.mux(stream.encode(frame))
    with pytest.raises(MediaError, match="not finite"):
        decode(out.getvalue(), "audio", [KHZ16])
