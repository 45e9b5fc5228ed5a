"""Media decoded in the helper process: the same results, and files that kill it cost themselves only."""

from __future__ import annotations

import functools
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image
from synth import audio_file, noise, shipped, tone, video

from curate.helper.process import Helper
from curate.media import answers, guarded
from curate.media.audio import audio_spans
from curate.media.clips import Span
from curate.media.container import Deadline
from curate.media.decode import decode
from curate.media.examine import CutHow
from curate.media.probe import probe
from curate.media.requests import Audio, Decoded, DecodeRequest, Frames
from curate.media.shots import find_shots
from curate.schema.errors import CurateError, MediaError, Quarantined
from curate.schema.verdict import Failure

VIEWS: list[DecodeRequest] = [Audio(8000), Frames(64, 5.0, 8), Frames(100, 2.0, 3, crop=False), Audio()]
FILM = video(range(0, 2000, 40), size=(160, 96), audio=noise(2.0))
TONE = audio_file(tone(1.5, 16000), rate=16000)


@functools.cache
def image(width: int, height: int, mode: str = "RGB") -> bytes:
    out = BytesIO()
    Image.new(mode, (width, height), (200, 100, 50, 128)[: len(mode)]).save(out, "PNG", compress_level=1)
    return out.getvalue()


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Iterator[None]:
    yield
    guarded.close()


def assert_same(got: Decoded, wanted: Decoded) -> None:
    assert list(got.views) == list(wanted.views)
    assert list(got.times) == list(wanted.times)
    for of in ("views", "times"):
        for view, array in getattr(wanted, of).items():
            other = getattr(got, of)[view]
            assert (other.dtype, other.shape, other.tobytes()) == (array.dtype, array.shape, array.tobytes())


@pytest.mark.parametrize(
    ("data", "kind", "span"),
    [
        (FILM, "video", None),
        (FILM, "video", Span(480_000, 1_320_000)),
        (TONE, "audio", Span(250_000, 1_000_000)),
        (TONE, "audio", None),
        (shipped("iscc_samples", "files/image/demo.jpg"), "image", None),
    ],
)
def test_the_helper_gives_what_the_decoder_gives(data: bytes, kind: str, span: Span | None) -> None:
    assert guarded.probe(data, "x") == probe(data, "x")
    assert_same(guarded.decode(data, kind, VIEWS, span), decode(data, kind, VIEWS, span))
    assert guarded.decode(data, kind, [], span) == Decoded()
    assert guarded.helper_pid() not in (None, os.getpid())


def test_shots_are_the_same() -> None:
    images = [np.full((96, 160, 3), level, np.uint8) for level in [30] * 20 + [220] * 20 + [90] * 20]
    film = video(range(0, 2400, 40), size=(160, 96), images=images)
    assert guarded.whole_spans(film, "video", CutHow()) == find_shots(film)
    assert len(find_shots(film)) == 3
    cut = CutHow("adaptive", 2.0, 5)
    assert guarded.whole_spans(film, "video", cut) == find_shots(film, "adaptive", 2.0, 5)
    assert guarded.whole_spans(TONE, "audio", cut) == audio_spans(TONE, Deadline(60))


def test_errors_are_the_same() -> None:
    for data in (b"", b"Just words. " * 90, FILM[: len(FILM) // 2]):
        with pytest.raises(MediaError) as here:
            probe(data, "a.mp4")
        with pytest.raises(MediaError) as there:
            guarded.probe(data, "a.mp4")
        assert (type(there.value), str(there.value)) == (MediaError, str(here.value))
    with pytest.raises(MediaError, match="before the end of its span"):
        guarded.decode(FILM, "video", [Frames(64)], Span(0, 9_000_000))
    with pytest.raises(CurateError, match="no shot detector `x`") as mend:
        guarded.whole_spans(FILM, "video", CutHow("x"))
    assert mend.value.hint.startswith("there are: adaptive, content")
    with pytest.raises(ValueError, match="kind must be one of"):
        guarded.decode(FILM, "film", [])
    with pytest.raises(ValueError, match="the span of audio is empty at 5 us"):
        guarded.decode(TONE, "audio", [Audio()], Span(5, 5))


def test_threads_share_the_helper() -> None:
    wanted = decode(FILM, "video", VIEWS), decode(TONE, "audio", VIEWS)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(3):
                assert_same(guarded.decode(FILM, "video", VIEWS), wanted[0])
                assert_same(guarded.decode(TONE, "audio", VIEWS), wanted[1])
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


def test_a_decoder_that_does_not_look_at_the_time_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow decodes an image in one go: only the kill from outside ends it."""
    monkeypatch.setattr(guarded, "GRACE_SECONDS", 0)
    large = image(5000, 5000)
    guarded.probe(large)
    started = time.monotonic()
    with pytest.raises(Quarantined) as found:
        guarded.decode(large, "image", [Frames(64)], limit_s=0.1)
    assert time.monotonic() - started < 10  # a busy machine takes seconds to start the next helper
    sentence = "Its helper process took longer than its limit of 0.1 s."
    assert Failure.of("annotate:decode", found.value) == Failure("annotate:decode", "TimeLimit", sentence, 1)
    assert guarded.probe(TONE) == probe(TONE)


def test_an_image_that_needs_too_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    small = guarded._Media("curate.media.service:MediaService", 512 << 20)
    monkeypatch.setattr(guarded, "_media", small)
    with pytest.raises(Quarantined) as found:
        guarded.decode(image(11000, 11000, "RGBA"), "image", [Frames(64)])
    sentence = "Its helper process needed more memory than its limit of 512 MiB, 2 times."
    assert Failure.of("annotate:decode", found.value) == Failure("annotate:decode", "MemoryLimit", sentence, 2)
    assert_same(guarded.decode(FILM, "video", VIEWS), decode(FILM, "video", VIEWS))
    small.close()


@pytest.mark.parametrize("deaths", [1, 2])
def test_a_file_that_kills_the_decoder(monkeypatch: pytest.MonkeyPatch, deaths: int) -> None:
    """Killed from outside while it decodes: once costs nothing, twice is the file's doing."""
    large = image(5000, 5000)
    wanted = decode(large, "image", [Frames(64)])
    call = Helper.call
    left = [signal.SIGSEGV] * deaths

    def stabbed(self: Helper, method: str, *args: Any, limit_s: float, **kwargs: Any) -> Any:
        if method != "decode" or not left:
            return call(self, method, *args, limit_s=limit_s, **kwargs)
        self.call("probe", TONE, 60, "", limit_s=60)  # it runs
        assert self.pid is not None
        timer = threading.Timer(0.05, os.kill, (self.pid, left.pop()))
        timer.start()
        try:
            return call(self, method, *args, limit_s=limit_s, **kwargs)
        finally:
            timer.join()

    monkeypatch.setattr(Helper, "call", stabbed)
    if deaths == 1:
        assert_same(guarded.decode(large, "image", [Frames(64)]), wanted)
    else:
        with pytest.raises(Quarantined) as found:
            guarded.decode(large, "image", [Frames(64)])
        assert (found.value.error, found.value.attempt) == ("Crashed", 2)
        assert str(found.value) == "Its helper process was killed by SIGSEGV, 2 times."
    assert left == []
    assert guarded.probe(TONE) == probe(TONE)


def test_a_helper_that_was_taken_over_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    media = guarded._Media("guarded_services:TakenOver", guarded.MEMORY_BYTES)
    monkeypatch.setattr(guarded, "_media", media)
    tiny = image(40, 30)
    assert guarded.probe(tiny) == probe(tiny)
    first = media.helper.pid
    with pytest.raises(Quarantined, match="gave an answer of the wrong form, 2 times"):
        guarded.decode(tiny, "image", [Frames(16)])
    with pytest.raises(Quarantined, match="gave an answer of the wrong form, 2 times"):
        guarded.whole_spans(tiny, "video", CutHow())
    assert guarded.probe(tiny) == probe(tiny)
    assert media.helper.pid != first
    media.close()


FRAMES = np.zeros((2, 16, 16, 3), np.uint8)
TIMES = np.zeros(2)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        7,
        [[0, FRAMES]],
        [[7, FRAMES, TIMES]],
        [["0", FRAMES, TIMES]],
        [[0, FRAMES.astype(np.int8), TIMES]],
        [[0, FRAMES.astype(np.float32), TIMES]],
        [[0, FRAMES[0], TIMES]],
        [[0, FRAMES[:0], TIMES[:0]]],
        [[0, FRAMES[:, 1:], TIMES]],
        [[0, FRAMES[..., :1], TIMES]],
        [[0, np.concatenate([FRAMES] * 5), np.zeros(10)]],
        [[0, FRAMES, np.zeros(3)]],
        [[0, FRAMES, np.zeros(2, np.float32)]],
        [[0, FRAMES, None]],
        [[0, FRAMES.tobytes(), TIMES]],
        [[1, np.zeros((1, 41, 30, 3), np.uint8), TIMES[:1]]],
        [[1, np.zeros((1, 0, 30, 3), np.uint8), TIMES[:1]]],
        [[2, np.zeros(9, np.int32), None]],
        [[2, np.zeros((9, 1), np.int16), None]],
    ],
)
def test_views_of_the_wrong_form_are_seen(answer: object) -> None:
    views = [Frames(16), Frames(40, crop=False), Audio()]
    good = [[0, FRAMES, TIMES], [1, np.zeros((1, 40, 30, 3), np.uint8), TIMES[:1]], [2, np.zeros(9, np.int16), None]]
    assert list(answers.decoded(good, views).views) == views
    with pytest.raises((LookupError, TypeError, ValueError)):
        answers.decoded(answer, views)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "/etc/passwd"},
        {"kind": "exe"},
        {"kind": None},
        {"width": -1},
        {"width": 1.5},
        {"width": True},
        {"audio_rate": "1"},
        {"duration": float("nan")},
        {"duration": -1.0},
        {"fps": 25},
        {"has_audio": 1},
        {"codec": 7},
    ],
)
def test_a_probe_of_the_wrong_form_is_seen(changes: dict[str, object]) -> None:
    good = asdict(probe(FILM))
    assert answers.probed(good) == probe(FILM)
    with pytest.raises((TypeError, ValueError)):
        answers.probed(good | changes)


@pytest.mark.parametrize(
    "answer", [None, [[0, 1, 0]], np.array([[2, 1, 0]]), np.ones((1, 3)), np.array([[1, 2]]), -np.eye(3)]
)
def test_spans_of_the_wrong_form_are_seen(answer: object) -> None:
    assert answers.spans_of(np.array([[0, 7, 0], [7, 9, 1]])) == [Span(0, 7), Span(7, 9)]
    with pytest.raises((TypeError, ValueError)):
        answers.spans_of(answer)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "I;16"])
def test_the_largest_image_fits(mode: str) -> None:
    out = BytesIO()
    Image.new(mode, (13377, 13377)).save(out, "PNG", compress_level=1)
    got = guarded.decode(out.getvalue(), "image", [Frames(32)])
    assert got.views[Frames(32)].shape == (1, 32, 32, 3)
