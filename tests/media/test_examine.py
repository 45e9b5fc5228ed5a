"""One run over a record gives what probing, cutting and decoding give one after the other, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from image_files import photo, png, saved
from mutate import good_videos, mutated, two_videos, with_cover
from numpy.typing import NDArray
from synth import noise, shipped, sound, tone, video

from curate.media import examine as examining
from curate.media import onepass
from curate.media.audio import audio_spans
from curate.media.clips import Span
from curate.media.container import Deadline
from curate.media.decode import decode
from curate.media.decodes import counted
from curate.media.examine import CutHow, Examined, Request, Viewed, cut_up, decode_many, examine
from curate.media.probe import probe
from curate.media.shots import find_shots
from curate.media.views import Array, Audio, Energy, Frames, View
from curate.schema.errors import CurateError, MediaError
from curate.schema.ids import content_id, sample_id

VIEWS: list[View] = [
    Frames(224),
    Frames(96, 4, 24, crop=False),
    Frames(384, 0.5, 4, crop=False),
    Frames(448, 1, 1, crop=False),
    Frames(64, 8, 9, stride=4, pad=True),
    Audio(16000),
    Energy(),
    Array(),
]
"""Of the kinds that signals and tokenizers ask for."""

SHORT = CutHow(max_seconds=0.7)


def one_by_one(items: Sequence[tuple[bytes, str]], cut: CutHow, views: Sequence[View]) -> Iterator[Examined | Viewed]:
    """By a call for each step."""
    for i, (data, name) in enumerate(items):
        try:
            found = probe(data, name)
        except MediaError as error:
            yield Examined(i, None, error, "ingest:probe")
            continue
        spans: tuple[Span, ...] = (Span(0, 0),)
        try:
            if found.kind == "audio":
                spans = cut_up(audio_spans(data, Deadline(60)), cut)
            elif found.kind == "video":
                spans = cut_up(find_shots(data, cut.detector, cut.threshold, cut.min_frames), cut)
        except MediaError as error:
            yield Examined(i, found, error, "cut")
            continue
        yield Examined(i, found, spans=spans)
        for span in spans:
            wanted = span if found.kind in ("video", "audio") else None
            key = sample_id(content_id(data), span.start_us, span.end_us)
            try:
                made = decode(data, found.kind, views, wanted, key=key).views if views else {}
            except MediaError as error:
                yield Viewed(i, span, error=error)
            else:
                yield Viewed(i, span, made)


def plain(event: Examined | Viewed) -> list[Any]:
    """Comparable: arrays by their bytes, errors by class and message."""
    error = event.error and (type(event.error).__name__, str(event.error))
    if isinstance(event, Examined):
        return [event.index, event.probe, error, event.stage, [(s.start_us, s.end_us, s.missing) for s in event.spans]]
    arrays = [(view, a.dtype.str, a.shape, a.tobytes()) for view, a in event.views.items()]
    return [event.index, event.span, error, arrays]


def assert_same(items: Sequence[tuple[bytes, str]], cut: CutHow = SHORT, views: Sequence[View] = VIEWS) -> None:
    wanted = [plain(event) for event in one_by_one(items, cut, views)]
    got = [plain(event) for event in examine(items, cut, views)]
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a[:-1] == b[:-1]
        assert a == b, f"other pixels or samples: {a[:-1]}"


def scenes(cuts: Sequence[int], n: int, size: tuple[int, int] = (96, 64)) -> list[NDArray[np.uint8]]:
    """n pictures; at each of `cuts` the scene changes, and within a scene it moves a little."""
    out = []
    for i in range(n):
        scene = sum(i >= cut for cut in cuts)
        base = np.random.default_rng(scene).integers(0, 256, (4, 6, 3), np.uint8)
        out.append(np.roll(base.repeat(16, 0).repeat(16, 1), i % 3, 1)[: size[1], : size[0]])
    return out


def film(cuts: Sequence[int] = (30, 61), n: int = 90, **more: Any) -> bytes:
    stamps = more.pop("stamps", [i * 40 for i in range(n)])
    return video(stamps, size=(96, 64), pictures=scenes(cuts, n), **more)


FILMS = {
    "three shots": film(),
    "B-frames": film(options={"bf": "3", "g": "20"}),
    "with sound": film(sound=noise(3.6)),
    "sound that goes on": film(sound=noise(6.0)),
    "sound that leads": film(stamps=[1000 + i * 40 for i in range(90)], sound=noise(5.0)),
    "matroska": film(container="matroska", sound=noise(3.6)),
    "transport stream": film(container="mpegts", sound=noise(3.6), sound_codec="mp2"),
    "avi": film(
        container="avi", codec="mpeg4", sound=noise(3.6), sound_codec="mp3", base=Fraction(1, 25), stamps=range(90)
    ),
    "bare h264": film(container="h264"),
    "turned": film(rotation=(90.0, False, False)),
    "pixels that are not square": film(ratio=Fraction(4, 3)),
    "4:4:4": film(pix_fmt="yuv444p"),
    "uneven": film(stamps=[0, *np.cumsum(np.random.default_rng(5).choice([5, 20, 40, 300], 89)).tolist()]),
    "cut short": film(container="matroska", sound=noise(3.6))[:-9000],
    "a cut short avi": film(container="avi", codec="mpeg4", base=Fraction(1, 25), stamps=range(90))[:-9000],
    "two recordings": film(container="matroska") + film(container="matroska"),
}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_videos(name: str, detector: str) -> None:
    for longest in (0.7, 10.0):
        assert_same([(FILMS[name], name)], CutHow(detector, max_seconds=longest))
