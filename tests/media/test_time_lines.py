"""Time is measured, not believed (law 14): whatever headers and clocks say, each frame and each second of audio that
decodes is in one sample, and none is made up."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from io import BytesIO

import av
import mutate
import numpy as np
import pytest
from boxed import box, in_mp4
from synth import audio_file, indices, noise, shipped, tone, video

from curate.media.audio import audio_spans
from curate.media.clips import Span, cut_spans
from curate.media.container import Deadline
from curate.media.decode import decode
from curate.media.probe import probe
from curate.media.requests import Audio, Frames
from curate.media.shots import find_shots

ALL = Frames(16, fps=100, max_frames=1000)
KHZ16 = Audio(16000)
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
FAST = {"g": "10", "preset": "ultrafast"}


def film(frames: int = 30, begin_ms: int = 0, container: str = "mpegts", audio: bool = True, **more: object) -> bytes:
    """Frames 0, 1, 2, ... of 40 ms with as much noise, from `begin_ms` on the container's clock."""
    if audio:
        more |= {"audio": noise(frames * 0.04), "audio_at": Fraction(begin_ms, 1000)}
        more.setdefault("audio_codec", "mp2" if container in ("mpegts", "vob") else "aac")
    stamps = range(begin_ms // 40, begin_ms // 40 + frames)
    options = FAST if more.get("codec") is None else {"g": "10"}
    return video(stamps, base=Fraction(1, 25), container=container, options=options, **more)  # type: ignore[arg-type]


def spans(data: bytes, longest: float = 0.5) -> list[Span]:
    kind = probe(data).kind
    return cut_spans(find_shots(data) if kind == "video" else audio_spans(data, Deadline(60)), longest)


def shown(data: bytes) -> list[int]:
    """Which frames the samples of a video show, one after the other; one that is shown for longer counts once."""
    return shown_in(data, spans(data))


def shown_in(data: bytes, some: list[Span]) -> list[int]:
    seen = [i for span in some for i in indices(decode(data, "video", [ALL, KHZ16], span).views[ALL])]
    return [i for i, before in zip(seen, [-1, *seen], strict=False) if i != before]


def heard(data: bytes, kind: str = "audio") -> float:
    """Seconds of audio in all samples that are not silent, in steps of 10 ms."""
    parts = [decode(data, kind, [KHZ16], span).views[KHZ16] for span in spans(data)]
    whole = np.concatenate(parts)
    steps = np.abs(whole[: len(whole) // 160 * 160].astype(int)).reshape(-1, 160).max(axis=1)
    return float((steps > 500).sum()) / 100


def boxes(data: bytes, begin: int, end: int, wanted: set[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """(type, begin of the content, end) of ISO BMFF boxes, also inside of `wanted` ones."""
    while begin + 8 <= end:
        size, kind = struct.unpack(">I4s", data[begin : begin + 8])
        yield kind, begin + 8, begin + size
        if kind in wanted:
            yield from boxes(data, begin + 8, begin + size, wanted)
        begin += size


def later(data: bytes, seconds: int, first: int = 0) -> bytes:
    """A fragmented MP4 whose fragments from number `first` on begin later: baseMediaDecodeTime of `tfdt` is raised."""
    scales: dict[int, int] = {}
    track = fragment = 0
    out = bytearray(data)
    for kind, at, _ in boxes(data, 0, len(data), {b"moov", b"trak", b"mdia", b"moof", b"traf"}):
        if kind == b"moof":
            fragment += 1
        elif kind in (b"tkhd", b"tfhd"):
            track = struct.unpack(">I", data[at + 12 : at + 16] if kind == b"tkhd" else data[at + 4 : at + 8])[0]
        elif kind == b"mdhd":
            scales[track] = struct.unpack(">I", data[at + 12 : at + 16])[0]
        elif kind == b"tfdt" and fragment > first:
            assert data[at] == 1, "64 bits"
            old = struct.unpack(">Q", data[at + 4 : at + 12])[0]
            out[at + 4 : at + 12] = struct.pack(">Q", old + seconds * scales[track])
    assert out != data or not seconds
    return bytes(out)


@pytest.mark.parametrize("seconds", [0, 10, 100, 3600, 108_000, 1_764_000_000])
def test_fragments_may_begin_at_any_time(seconds: int) -> None:
    """Live streams and cameras: an hour, a day, the seconds since 1970."""
    data = later(film(container="mp4", muxer=FRAGMENTS), seconds)
    assert probe(data).duration == pytest.approx(1.2, abs=0.05)
    assert shown(data) == list(range(30))
    assert heard(data, "video") == pytest.approx(1.2, abs=0.05)


def test_fragments_of_audio_alone_may_begin_at_any_time() -> None:
    out = BytesIO()
    with av.open(out, "w", format="mp4", options=FRAGMENTS) as file:
        stream = file.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(3.0)[np.newaxis], format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    data = later(out.getvalue(), 3600)
    assert probe(data).duration == pytest.approx(3.0, abs=0.1)
    assert heard(data) == pytest.approx(3.0, abs=0.1)


def test_fragments_that_leap_ahead() -> None:
    data = film(container="mp4", muxer=FRAGMENTS)
    assert shown(later(data, 1000, first=2)) == list(range(30))


def test_fragments_whose_clock_begins_anew() -> None:
    """Two recordings of one camera behind one header. FFmpeg marks the second to be dropped."""
    data = film(container="mp4", muxer=FRAGMENTS, audio=False)
    begin = data.index(b"moof") - 4
    assert shown(data + data[begin:]) == [*range(30), *range(30)]


def test_a_matroska_duration_tag_that_is_the_end() -> None:
    """Many writers put the last time stamp into DURATION, which is a length for others."""
    data = film(begin_ms=100_000, container="matroska", muxer=mutate.AS_IT_IS)
    with av.open(BytesIO(data)) as file:
        assert file.streams.video[0].metadata["DURATION"].startswith("00:01:41")
    assert probe(data).duration == pytest.approx(1.2, abs=0.05)
    assert shown(data) == list(range(30))


@pytest.mark.parametrize("container", ["flv", "matroska", "mpegts"])
def test_a_recording_that_joined_late(container: str) -> None:
    data = film(begin_ms=3_600_000, container=container, muxer=mutate.AS_IT_IS if container == "matroska" else None)
    assert probe(data).duration == pytest.approx(1.2, abs=0.06)
    assert shown(data) == list(range(30))


JOINED: dict[str, Callable[[], bytes]] = {
    "clock begins anew": lambda: film() + film(),
    "... without audio": lambda: film(audio=False) + film(audio=False),
    "clock leaps ahead": lambda: film() + film(begin_ms=1_000_000),
    "clock leaps back": lambda: film(begin_ms=1_000_000) + film(),
    "clock goes on, counters begin anew": lambda: film() + film(begin_ms=1200),
    "a program stream": lambda: (
        film(container="vob", codec="mpeg2video") + film(container="vob", codec="mpeg2video", begin_ms=500_000)
    ),
    "a Matroska file": lambda: film(container="matroska") + film(container="matroska"),
}


@pytest.mark.parametrize("joined", JOINED.values(), ids=JOINED)
def test_joined_recordings_are_all_there(joined: Callable[[], bytes]) -> None:
    """`cat a b`: 60 frames and 2.4 s of noise, in order, none twice, none held for the time between the clocks."""
    data = joined()
    assert probe(data).duration == pytest.approx(2.4, abs=0.12)
    assert shown(data) == [*range(30), *range(30)]
    if probe(data).has_audio:
        assert heard(data, "video") == pytest.approx(2.4, abs=0.12)


def test_three_recordings_each_with_its_own_clock() -> None:
    data = film(audio=False) + film(begin_ms=900_000, audio=False) + film(audio=False)
    assert probe(data).duration == pytest.approx(3.6, abs=0.1)
    assert shown(data) == [*range(30)] * 3


def test_the_clock_of_a_transport_stream_wraps_after_33_bits() -> None:
    """26.5 hours; FFmpeg unfolds it, and it is no break."""
    wrap_ms = 2**33 // 90
    assert shown(film(begin_ms=wrap_ms - 600)) == list(range(30))


def test_a_few_false_stamps_are_no_break() -> None:
    """The packets after them go on where the clock was: they are damage of one clip, as they were."""
    whole = film(audio=False, begin_ms=0)
    with av.open(BytesIO(whole)) as file:
        at = [p.pos for p in file.demux(video=0) if p.size][15]
    data = bytearray(whole)
    stamp = data.index(b"\0\0\1\xe0", at) + 9
    data[stamp] ^= 0x0E
    assert probe(bytes(data)).duration == pytest.approx(1.2, abs=0.06)


@pytest.mark.parametrize("codec", ["libopus", "flac"])
def test_chained_ogg(codec: str) -> None:
    """RFC 3533, section 4: 2 s and 3 s, one after the other, in one file."""
    data = audio_file(noise(2.0), codec=codec, container="ogg") + audio_file(
        noise(3.0, seed=1), codec=codec, container="ogg"
    )
    assert probe(data).duration == pytest.approx(5.0, abs=0.03)
    assert heard(data) == pytest.approx(5.0, abs=0.05)


def test_chained_vorbis() -> None:
    one = shipped("iscc_samples", "files/audio/demo.ogg")
    alone = decode(one, "audio", [KHZ16]).views[KHZ16]
    twice = decode(one + one, "audio", [KHZ16]).views[KHZ16]
    assert np.array_equal(twice[: len(alone)], alone)
    assert len(twice) == pytest.approx(2 * len(alone), abs=2)


def test_links_of_a_chain_may_have_different_rates() -> None:
    """FFmpeg itself stops at the second link. The click of each is where it was put."""
    first, second = np.zeros(96000, np.int16), np.zeros(2 * 44100, np.int16)
    first[48000:48100], second[44100:44190] = 20000, 20000
    data = audio_file(first, codec="flac", container="ogg") + audio_file(
        second, rate=44100, codec="flac", container="ogg"
    )
    got = decode(data, "audio", [KHZ16]).views[KHZ16].astype(int)
    assert len(got) == 64000
    loud = np.flatnonzero(np.abs(got) > 8000) / 16000
    assert loud[loud < 2] == pytest.approx(1.0, abs=0.01)
    assert loud[loud > 2] == pytest.approx(3.0, abs=0.01)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0x7FFFF000, 0xFFFFFFFF], ids=hex)
def test_a_wav_that_was_written_to_a_pipe(size: int) -> None:
    """Its sizes are not known when its header is written; programs put different nonsense there."""
    data = bytearray(audio_file(noise(2.0)))
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = struct.pack("<I", size)
    assert probe(bytes(data)).duration == pytest.approx(2.0, abs=0.001)
    assert [span.missing for span in audio_spans(bytes(data), Deadline(60))] == [False]


@pytest.mark.parametrize("samples", [0, 48000 * 3600, 2**36 - 1], ids=["unknown", "an hour", "the most"])
def test_a_flac_whose_header_counts_other_samples(samples: int) -> None:
    """RFC 9639, 8.2: 36 bits of STREAMINFO; 0 means unknown, as from a pipe."""
    data = bytearray(audio_file(noise(2.0), codec="flac", container="flac"))
    data[21] = data[21] & 0xF0 | samples >> 32
    data[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    assert audio_spans(bytes(data), Deadline(60)) == [Span(0, 2_000_000)]
    assert heard(bytes(data)) == pytest.approx(2.0, abs=0.02)


def test_an_mp4_whose_header_claims_two_hours() -> None:
    data = film(container="mp4")
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    lying = mutate.patched(data, b"mdhd", 24, struct.pack(">I", scale * 7200))
    assert probe(lying).duration == pytest.approx(1.2, abs=0.05)
    assert shown(lying) == list(range(30))


def test_one_frame_that_claims_to_be_shown_for_an_hour() -> None:
    """The length of a last frame is a claim: no header makes a sample."""
    data = video([0], container="mp4", options=FAST)
    lying = bytearray(data)
    at = data.index(b"stts") + 12
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    lying[at + 4 : at + 8] = struct.pack(">I", scale * 3600)
    assert probe(bytes(lying)).duration == pytest.approx(1.0)
    assert find_shots(bytes(lying)) == [Span(0, 1_000_000)]


def test_two_frames_a_day_apart_make_no_day() -> None:
    """1.4 kB that made 20,701 samples."""
    data = video([0, 82_800_000], container="matroska", options=FAST)
    assert len(data) < 2000
    assert shown(data) == [0, 1]
    assert len(spans(data, 10)) == 1


def test_a_slide_is_shown_for_as_long_as_a_voice_goes_on() -> None:
    """A hole of 90 s between two frames, but not of the audio: it is no break."""
    stamps = [0, 90_000, 90_040, 90_080]
    data = video(stamps, container="matroska", options=FAST, audio=tone(92.0, 8000), audio_codec="pcm_s16le", rate=8000)
    assert probe(data).duration == pytest.approx(92.0, abs=0.1)
    got = decode(data, "video", [Frames(16, fps=1, max_frames=4), KHZ16], Span(60_000_000, 64_000_000))
    assert indices(got.views[Frames(16, fps=1, max_frames=4)]) == [0] * 4
    assert np.abs(got.views[KHZ16].astype(int)).max() > 7000


@pytest.mark.parametrize("fps", [1, Fraction(1, 20)])
def test_slow_videos_are_no_breaks(fps: Fraction) -> None:
    """One frame a second with B-frames, and one in twenty seconds: reordered and far apart, on one clock."""
    step = int(1000 / fps)
    data = video(range(0, 8 * step, step), container="matroska", options={"bf": "3"})
    assert probe(data).duration == pytest.approx(8 * step / 1000, abs=0.01)
    view = Frames(16, fps=float(fps), max_frames=8)
    assert indices(decode(data, "video", [view], Span(0, 8 * step * 1000)).views[view]) == list(range(8))


@pytest.mark.parametrize("container", ["mp4", "matroska", "avi"])
def test_the_rest_of_a_file_that_breaks_off_is_one_sample_that_fails(container: str) -> None:
    """It is in the ledger with its reason, and does not make as many failures as it has seconds."""
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 255, (60, 96, 128, 3), np.uint8))
    muxer = {"moov_size": "10000"} if container == "mp4" else None  # the index first, as on the web
    codec = "mpeg4" if container == "avi" else "libx264"
    whole = video(range(0, 2400, 40), container=container, codec=codec, size=(128, 96), images=images, muxer=muxer)
    found = cut_spans(find_shots(whole[: len(whole) * 6 // 10]), 0.25)
    assert [span.missing for span in found] == [False] * (len(found) - 1) + [True]
    assert found[-1].seconds == pytest.approx(1.0, abs=0.2)


def test_the_rest_of_a_wav_that_breaks_off_is_one_sample_that_fails() -> None:
    whole = audio_file(noise(4.0))
    first, rest = audio_spans(whole[: len(whole) // 2], Deadline(60))
    assert (first.seconds, rest.missing) == (pytest.approx(2.0, abs=0.01), True)
    assert rest.end_us == 4_000_000


def test_bare_streams_are_counted() -> None:
    """Joined ADTS: as long as all its frames, not as FFmpeg's guess from the bit rate."""
    one = audio_file(noise(2.0), codec="aac", container="adts")
    assert probe(one + one).duration == pytest.approx(2 * probe(one).duration, abs=0.001)
    assert heard(one + one) == pytest.approx(4.0, abs=0.1)


@pytest.mark.parametrize(("first", "second"), [(48000, 44100), (22050, 48000)])
def test_sample_rates_may_change(first: int, second: int) -> None:
    """Two MP3, joined: the pitch of the second is its own, in every segment."""
    data = b"".join(
        audio_file(tone(2.0, rate, 1000), rate=rate, codec="libmp3lame", container="mp3") for rate in (first, second)
    )
    found = spans(data, 1.0)
    assert found[-1].end_us == pytest.approx(4_000_000, abs=200_000)
    for span in found:
        heard = decode(data, "audio", [KHZ16], span).views[KHZ16].astype(float)
        peak = np.argmax(np.abs(np.fft.rfft(heard * np.hanning(len(heard))))) * 16000 / len(heard)
        assert peak == pytest.approx(1000, abs=3)


@pytest.mark.parametrize("container", ["mp4", "flv", "avi", "matroska", "webm", "asf"])
def test_joined_files_are_read_one_by_one(container: str) -> None:
    """Three, each with headers of its own; players show the first of most of them."""
    codec = {"avi": "mpeg4", "webm": "libvpx-vp9", "asf": "wmv2"}.get(container, "libx264")
    options = {"avi": {"g": "10", "qmin": "1", "qmax": "1"}, "asf": {"g": "10", "qmin": "1", "qmax": "1"}}
    options["webm"] = {"deadline": "realtime", "cpu-used": "8"}
    one = video(
        range(20), base=Fraction(1, 25), container=container, codec=codec, options=options.get(container, {"g": "10"})
    )
    assert probe(one * 3).duration == pytest.approx(3 * probe(one).duration, abs=0.01)
    assert shown(one * 3) == [*range(20)] * 3


def test_a_joined_file_that_does_not_open_fails_alone() -> None:
    one = film(container="matroska")
    cut = one[: len(one) // 40]
    found = find_shots(one + cut + one)
    assert [span.missing for span in found] == [False, True, False]
    assert shown_in(one + cut + one, found[::2]) == [*range(30), *range(30)]


def test_edit_lists_out_of_order() -> None:
    """ISO/IEC 14496-12, 8.6.6: the second half of the media, and then the first."""
    data = video(range(30), base=Fraction(1, 25), container="mp4", options={"g": "1", "bf": "0"})
    scale = struct.unpack(">I", data[data.index(b"mvhd") + 16 :][:4])[0]
    media = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    half = media * 15 // 25
    edits = box("elst", 0, 2, scale * 15 // 25, half, 0x10000, scale * 15 // 25, 0, 0x10000)
    lists = box("edts", body=edits)
    edited = in_mp4(data, ("moov", "trak"), lambda body: _without(body, b"edts") + lists)
    assert shown(edited) == [*range(15, 30), *range(15)]


def _without(body: bytes, kind: bytes) -> bytes:
    out, at = b"", 0
    while at < len(body):
        size = struct.unpack(">I", body[at : at + 4])[0]
        out += b"" if body[at + 4 : at + 8] == kind else body[at : at + size]
        at += size
    return out


def test_open_groups_of_pictures() -> None:
    """B-frames at the beginning of a group depend on the one before it; seeks into such groups find their frames."""
    options = {"x264-params": "open-gop=1:keyint=10:min-keyint=10:bframes=3:scenecut=0:b-adapt=0"}
    for container in ("mpegts", "matroska", "mp4"):
        data = video(range(60), base=Fraction(1, 25), container=container, options=options)
        assert shown(data) == list(range(60))
        late = decode(data, "video", [ALL], Span(1_600_000, 2_000_000)).views[ALL]
        assert sorted(set(indices(late))) == list(range(40, 50))


@pytest.mark.parametrize("container", ["mpegts", "vob"])
def test_short_recordings_are_no_false_stamps(container: str) -> None:
    """Five of 0.4 s, each with a clock that begins anew."""
    codec = {"codec": "mpeg2video"} if container == "vob" else {}
    data = film(10, container=container, **codec) * 5
    assert probe(data).duration == pytest.approx(2.0, abs=0.2)
    assert shown(data) == [*range(10)] * 5


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts"])
def test_frames_that_pause_while_audio_goes_on(container: str) -> None:
    """Variable frame rate with B-frames: from 0.6 to 12 s one frame is on display. MP4 states no lengths of frames, but
    steps of decoding; a transport stream may present a frame 10 s after it is decoded."""
    stamps = [*range(0, 640, 40), *range(12_000, 12_600, 40)]
    codec = {"audio_codec": "mp2"} if container == "mpegts" else {}
    data = video(stamps, container=container, options={"bf": "3"}, audio=noise(12.6), **codec)  # type: ignore[arg-type]
    assert probe(data).duration == pytest.approx(12.6, abs=0.06)
    view = Frames(16, fps=1, max_frames=12)
    got = decode(data, "video", [view, KHZ16], Span(0, 12_000_000))
    assert indices(got.views[view]) == [12, *[15] * 11]
    assert shown(data) == list(range(31))


@pytest.mark.parametrize("container", ["mp4", "matroska", "mpegts", "flv"])
@pytest.mark.parametrize("first", ["audio", "video"])
def test_streams_that_lie_an_hour_apart_begin_together(container: str, first: str) -> None:
    """A clock each; what lies between them makes no sample."""
    data = video(
        range(90_000, 90_030) if first == "audio" else range(30),
        base=Fraction(1, 25),
        container=container,
        options=FAST,
        muxer={} if container in ("mp4", "flv") else mutate.AS_IT_IS,
        audio=noise(1.2),
        audio_at=Fraction(0 if first == "audio" else 3600),
        audio_codec="mp2" if container == "mpegts" else "aac",
    )
    assert probe(data).duration == pytest.approx(1.2, abs=0.1)
    assert shown(data) == list(range(30))
    assert heard(data, "video") == pytest.approx(1.2, abs=0.1)


def test_avi_knows_no_presentation_times() -> None:
    """H.264 with B-frames in AVI: FFmpeg's guess shows a third of the frames not at all."""
    data = video(range(60), base=Fraction(1, 25), container="avi", options={"bf": "3"})
    assert shown(data) == list(range(60))
    late = decode(data, "video", [ALL], Span(1_600_000, 2_000_000)).views[ALL]
    assert sorted(set(indices(late))) == list(range(40, 50))


def test_joined_streams_of_two_frame_rates_lose_nothing() -> None:
    """The slower one is no stream with holes."""
    fast = video(range(50), base=Fraction(1, 50), container="mpegts", options=FAST)
    data = film(25, audio=False) + fast
    assert probe(data).duration == pytest.approx(2.0, abs=0.06)
    assert shown(data) == [*range(25), *range(50)]


@pytest.mark.parametrize("rates", [(22050, 48000), (48000, 22050), (16000, 48000)])
def test_joined_adts_of_two_rates(rates: tuple[int, int]) -> None:
    data = b"".join(audio_file(noise(2.0, rate), rate=rate, codec="aac", container="adts") for rate in rates)
    assert probe(data).duration == pytest.approx(4.0, abs=0.2)
    assert heard(data) == pytest.approx(4.0, abs=0.2)


def test_a_fragmented_file_that_breaks_off_within_its_audio() -> None:
    """The last fragment has all of its frames and a part of its audio: what both have is read, the rest fails."""
    rng = np.random.default_rng(0)
    data = video(
        range(75), base=Fraction(1, 25), size=(96, 96), muxer=FRAGMENTS, options={"g": "25"},
        images=list(rng.integers(0, 255, (75, 96, 96, 3), np.uint8)), audio=noise(3.0),
    )  # fmt: skip
    with av.open(BytesIO(data)) as file:
        recordings = [(float(p.pts * p.time_base), p.pos) for p in file.demux(audio=0) if p.size]
    at, pos = next((at, pos) for at, pos in recordings if at > 2.5)
    *good, rest = find_shots(data[: pos + 10])
    assert rest.missing
    assert good[-1].end_us == pytest.approx(at * 1e6, abs=60_000)
    for span in good:
        assert len(decode(data[: pos + 10], "video", [ALL, KHZ16], span).views[ALL])


def test_a_flac_that_breaks_off_in_a_long_block() -> None:
    """Blocks of 4,096 samples last 0.256 s at 16 kHz: the one that is cut does not count."""
    data = audio_file(noise(4.0, 16000), rate=16000, codec="flac", container="flac")
    good, rest = audio_spans(data[: len(data) // 2], Deadline(60))
    assert rest.missing
    assert len(decode(data[: len(data) // 2], "audio", [KHZ16], good).views[KHZ16]) == good.end_us * 16 // 1000


def test_a_program_stream_without_its_beginning() -> None:
    """What does not decode before the first frame of audio means that the audio begins later."""
    data = film(60, container="vob", codec="mpeg2video")
    cut = data[7001:]
    assert shown(cut)[-1] == 59
    assert heard(cut, "video") > 1.5


def test_the_second_part_may_have_other_pids() -> None:
    """FFmpeg looks for no streams that come up late."""
    data = film() + film(muxer={"mpegts_start_pid": "768", "mpegts_pmt_start_pid": "1000"})
    assert probe(data).duration == pytest.approx(2.4, abs=0.12)
    assert shown(data) == [*range(30), *range(30)]
    assert heard(data, "video") == pytest.approx(2.4, abs=0.12)
