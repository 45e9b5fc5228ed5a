"""A flag of a container or a parser is not damage: the decoder is asked. What is really lost goes on failing."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO

import av
import numpy as np
import pytest
from mutate import AS_IT_IS
from synth import audio_file, indices, noise, video

from curate.media.audio import audio_spans
from curate.media.clips import Span, cut_spans
from curate.media.container import Deadline
from curate.media.decode import decode
from curate.media.mpegts import losses
from curate.media.probe import probe
from curate.media.requests import Audio, Frames
from curate.media.shots import find_shots
from curate.schema.errors import MediaError

ALL = Frames(16, fps=25, max_frames=1000)
KHZ16 = Audio(16000)
OPTIONS = {
    "libx264": {"g": "10", "bf": "2"},
    "libx265": {"x265-params": "log-level=none:pools=none:keyint=10:bframes=2"},
    "mpeg2video": {"g": "10"},
}
NOISY = list(np.random.default_rng(1).integers(0, 255, (60, 96, 128, 3), np.uint8))


def stream(codec: str, frames: int = 60, begin: int = 0, noisy: bool = False, audio: bool = False) -> bytes:
    return video(
        range(begin + 10, begin + 10 + frames),
        base=Fraction(1, 25),
        size=(128, 96),
        codec=codec,
        container="mpegts",
        options=OPTIONS[codec],
        images=NOISY[:frames] if noisy else None,
        audio=noise(frames / 25) if audio else None,
        audio_at=Fraction(begin + 10, 25),
        muxer=AS_IT_IS,
        audio_codec="mp2",
    )


def packets(data: bytes) -> list[bytes]:
    return [data[i : i + 188] for i in range(0, len(data), 188)]


def pid(packet: bytes) -> int:
    return (packet[1] & 0x1F) << 8 | packet[2]


@pytest.mark.parametrize("codec", OPTIONS)
@pytest.mark.parametrize("audio", [True, False], ids=["with audio", "video alone"])
def test_joined_segments_lose_nothing(codec: str, audio: bool) -> None:
    """HLS segments, each with continuity counters of its own; times go on. FFmpeg calls packets corrupt, none is."""
    data = b"".join(stream(codec, 20, 20 * i, audio=audio) for i in range(3))
    with av.open(BytesIO(data)) as file:
        assert any(packet.is_corrupt for packet in file.demux(video=0))
    got = [
        i for span in cut_spans(find_shots(data), 0.8) for i in indices(decode(data, "video", [ALL], span).views[ALL])
    ]
    assert got == [*range(20)] * 3


def test_counters_that_begin_anew_within_a_group_of_pictures() -> None:
    """A stream that was switched to another multiplexer, at a packet's beginning."""
    out = []
    begun = False
    for i, packet in enumerate(parts := packets(stream("libx264"))):
        begun = begun or (i > len(parts) // 2 and pid(packet) == 256 and bool(packet[1] & 0x40))
        if begun and pid(packet) == 256:
            packet = packet[:3] + bytes([packet[3] & 0xF0 | (packet[3] + 7) % 16]) + packet[4:]
        out.append(packet)
    assert indices(decode(b"".join(out), "video", [ALL], Span(0, 2_400_000)).views[ALL]) == list(range(60))


def test_packets_may_be_sent_twice() -> None:
    """ISO/IEC 13818-1, 2.4.3.3: with the same counter and content, once more."""
    out = []
    for i, packet in enumerate(packets(stream("libx264"))):
        out += [packet] * (2 if i % 5 == 0 and pid(packet) == 256 and packet[3] & 0x10 else 1)
    assert indices(decode(b"".join(out), "video", [ALL], Span(0, 2_400_000)).views[ALL]) == list(range(60))


@pytest.mark.parametrize("codec", OPTIONS)
def test_packets_that_are_really_lost_fail_their_own_clip(codec: str) -> None:
    """Six times one to three of a stream's packets are left out of its last second; the first goes on being read."""
    whole = packets(stream(codec, noisy=True))
    own = [i for i, packet in enumerate(whole) if pid(packet) == 256]
    chance = random.Random(0)
    for _ in range(6):
        at, count = chance.choice(own[len(own) * 3 // 4 : -20]), chance.choice((1, 1, 3))
        data = b"".join(whole[:at] + whole[at + count :])
        assert len(decode(data, "video", [ALL], Span(0, 1_000_000)).views[ALL]) == 25
        with pytest.raises(MediaError, match=r"damaged|ended"):
            decode(data, "video", [ALL], Span(1_200_000, 2_360_000))


@pytest.mark.parametrize("size", [188, 192, 204])
def test_losses_are_found_by_counters_and_stuffing(size: int) -> None:
    """Bare, M2TS and DVB packets."""
    before, after = (4, 0) if size == 192 else (0, size - 188)
    parts = [bytes(before) + packet + bytes(after) for packet in packets(stream("libx264", noisy=True))]
    own = [i for i, packet in enumerate(parts) if pid(packet[before:]) == 256]
    found = losses(b"".join(parts), 256)
    assert found is not None
    assert found.tolist() == []
    lost = own[40]
    found = losses(b"".join(parts[:lost] + parts[lost + 1 :]), 256)
    assert found is not None
    assert found.tolist() == [own[41] * size - size + before]


@pytest.mark.parametrize("extra", [b"\xaa" * 5000, b"\x47\x1f\xff\x10" + b"\xff" * 184], ids=["junk", "null packet"])
def test_what_stands_around_a_stream_is_no_damage(extra: bytes) -> None:
    data = stream("libx264", 20)
    assert indices(decode(data + extra, "video", [ALL], Span(0, 800_000)).views[ALL]) == list(range(20))


def mp3(seed: int = 0) -> bytes:
    return audio_file(noise(2.0, seed=seed), codec="libmp3lame", container="mp3")


ID3 = b"ID3\x04\x00\x00\x00\x00\x00\x3f" + b"PRIV\x00\x00\x00\x35\x00\x00" + b"com.apple.streaming" + bytes(34)
APE = b"APETAGEX" + (2000).to_bytes(4, "little") + (32).to_bytes(4, "little") + bytes(4) + b"\0\0\0\xa0" + bytes(8)
ID3V1 = b"TAG" + b"title".ljust(125, b"\0")
JOINED: dict[str, Callable[[], bytes]] = {
    "MP3, each with its ID3v2": lambda: mp3() + mp3(1),
    "MP3, ID3v1 in between": lambda: mp3() + ID3V1 + mp3(1),
    "MP3, APE tag in between": lambda: mp3() + APE + mp3(1),
    "FLAC": lambda: audio_file(noise(2.0), codec="flac", container="flac") * 2,
    "WAV": lambda: audio_file(noise(2.0)) * 2,
    "AIFF": lambda: audio_file(noise(2.0), codec="pcm_s16be", container="aiff") * 2,
    "packed AAC of HLS": lambda: (ID3 + audio_file(noise(2.0), codec="aac", container="adts")) * 2,
    "AC-3": lambda: audio_file(noise(2.0), codec="ac3", container="ac3") * 2,
}


@pytest.mark.parametrize("joined", JOINED.values(), ids=JOINED)
def test_joined_audio_is_heard_whole(joined: Callable[[], bytes]) -> None:
    """Four seconds of noise, not a tag of it damage, and no tag takes time."""
    data = joined()
    assert probe(data).duration == pytest.approx(4.0, abs=0.15)
    heard = np.concatenate(
        [decode(data, "audio", [KHZ16], span).views[KHZ16] for span in cut_spans(audio_spans(data, Deadline(9)), 0.9)]
    )
    loud = np.abs(heard[: len(heard) // 800 * 800].astype(int)).reshape(-1, 800).max(axis=1) > 500
    assert loud.mean() > 0.95


def test_a_hole_of_zeros_is_damage() -> None:
    """As a broken download leaves it: it is no tag, and what is missing there is not known."""
    with pytest.raises(MediaError, match=r"damaged at 2\.\d+ s"):
        decode(mp3() + bytes(4096) + mp3(1), "audio", [KHZ16], Span(1_500_000, 2_500_000))


def test_many_tags_take_no_time() -> None:
    """An hour of HLS has hundreds."""
    one = audio_file(noise(0.5), codec="aac", container="adts")
    assert probe((ID3 + one) * 30).duration == pytest.approx(30 * probe(one).duration, abs=0.01)


@pytest.mark.parametrize("tail", [ID3V1, APE, b"<html>" * 300, bytes(2000)], ids=["ID3v1", "APE", "HTML", "zeros"])
def test_what_follows_an_mp3_is_no_damage(tail: bytes) -> None:
    assert len(decode(mp3() + tail, "audio", [KHZ16], Span(0, 2_000_000)).views[KHZ16]) == 32000
