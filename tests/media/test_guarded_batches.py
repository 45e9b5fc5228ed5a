"""Batches in the helper: the results of the same work here, and what kills it costs itself only."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from image_files import photo, saved
from test_examine import FILMS, SHORT, VIEWS, decoded_one_by_one, examine, items, plain, requests

from curate.helper.process import Helper
from curate.media import answers, guarded
from curate.media.clips import Span
from curate.media.examine import CutHow, Examined, Viewed
from curate.media.requests import Audio, Frames
from curate.schema.errors import CurateError, Quarantined

IMAGES = [(saved(photo((40 + i, 30))), f"{i}.png") for i in range(70)]


@pytest.fixture(autouse=True, scope="module")
def _closed() -> Iterator[None]:
    yield
    guarded.close()


def assert_same(got: Iterator[Examined | Viewed], wanted: Iterator[Examined | Viewed]) -> None:
    assert [plain(event) for event in got] == [plain(event) for event in wanted]


def test_the_helper_gives_what_is_given_here() -> None:
    some = [*items(), *IMAGES]
    guarded.decodes()
    assert_same(guarded.examine(some, SHORT, VIEWS), examine(some, SHORT, VIEWS))
    found = guarded.decodes()
    assert (found.files, found.images) == (4, 76)
    assert guarded.decodes().images == 0
    assert_same(guarded.decode_many(requests(), VIEWS), decoded_one_by_one(requests(), VIEWS))
    with pytest.raises(CurateError, match="no shot detector"):
        list(guarded.examine(some, CutHow("x"), VIEWS))


def test_streams_may_stand_open_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curate.media.service.ANSWER_BYTES", 1)
    one, two = (guarded.examine(items(), SHORT, VIEWS) for _ in range(2))
    wanted = [plain(event) for event in examine(items(), SHORT, VIEWS)]
    assert [plain(next(one)) for _ in range(9)] == [plain(next(two)) for _ in range(9)] == wanted[:9]
    two.close()
    guarded.probe(IMAGES[0][0])
    assert [plain(event) for event in one] == wanted[9:]
    third = guarded.examine(items(), SHORT, VIEWS)
    next(third)
    del third
    gc.collect()
    assert_same(guarded.examine(items()[:2], SHORT, VIEWS), examine(items()[:2], SHORT, VIEWS))


def test_a_helper_that_dies_between_two_parts_loses_nothing() -> None:
    wanted = [plain(event) for event in examine(items(), SHORT, VIEWS)]
    events = guarded.examine(items(), SHORT, VIEWS)
    got = []
    for event in events:
        got.append(plain(event))
        if len(got) in (3, 12):
            pid = guarded.helper_pid()
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
    assert got == wanted


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    media = guarded._Media("guarded_services:Poisoned", guarded.MEMORY_BYTES)
    monkeypatch.setattr(guarded, "_media", media)
    yield
    media.close()


@pytest.mark.parametrize(
    ("width", "error", "message", "at"),
    [
        (13, "Crashed", "Its helper process was killed by SIGSEGV, 2 times.", "view"),
        (14, "Crashed", "Its helper process was killed by SIGSEGV, 2 times.", "ingest:probe"),
        (15, "MemoryLimit", "Its helper process needed more memory than its limit of 3,072 MiB, 2 times.", "view"),
        (16, "KeyError", "'odd'", "view"),
    ],
)
@pytest.mark.usefixtures("poisoned")
def test_a_poison_costs_itself_only(width: int, error: str, message: str, at: str) -> None:
    some = [*IMAGES[:4], (saved(photo((width, 8))), "poison"), *IMAGES[4:8], (FILMS["three shots"], "f.mp4")]
    got = list(guarded.examine(some, SHORT, VIEWS))
    wanted = [plain(event) for event in examine(some, SHORT, VIEWS)]
    assert [plain(event) for event in got if event.index != 4] == [row for row in wanted if row[0] != 4]
    own = [event for event in got if event.index == 4]
    assert isinstance(own[-1].error, Quarantined)
    assert (own[-1].error.error, str(own[-1].error)) == (error, message)
    assert [getattr(event, "stage", "view") for event in own] == (["", "view"] if at == "view" else [at])


GOOD = [[["image", 8, 6, None, None, False, "png", None], None, "", answers.span_rows([Span(0, 0)])], [[], None]]


@pytest.mark.parametrize(
    "rows",
    [
        None,
        [7],
        GOOD[1:],
        GOOD[:1],
        [*GOOD, *GOOD],
        [[None, None, "", answers.span_rows([])], GOOD[1]],
        [[None, 7, "ingest:probe", answers.span_rows([])]],
        [[None, "broken", "cut", answers.span_rows([])]],
        [[None, "broken", "ingest:probe", answers.span_rows([Span(0, 0)])]],
        [[*GOOD[0][:3], answers.span_rows([Span(0, 5)])], GOOD[1]],
        [[*GOOD[0][:3], answers.span_rows([Span(0, 0)] * 9)], GOOD[1]],
        [[["image", 8], None, "", answers.span_rows([Span(0, 0)])], GOOD[1]],
        [GOOD[0], [[[0, np.zeros((1, 9, 9, 3), np.uint8)]], None]],
        [GOOD[0], [[[1, np.zeros((1, 16, 16, 3), np.uint8)]], None]],
        [GOOD[0], [[[0, np.zeros((1, 16, 16, 3), np.uint8)]], "and an error"]],
        [GOOD[0], [[], 7]],
    ],
)
def test_answers_of_the_wrong_form_are_seen(rows: Any) -> None:
    assert len(guarded._Records(0, 1, 8, [Frames(16)]).part([GOOD, "done"])[0]) == 2
    reading = guarded._Records(0, 1, 8, [Frames(16)])
    with pytest.raises((LookupError, TypeError, ValueError, AttributeError)):
        reading.part([rows, "done"])
    assert (reading.place, reading.known) == (0, None)
    with pytest.raises(ValueError, match="does not go on"):
        reading.part([[], "stop"])


def test_a_file_is_sent_once_for_all_its_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    call = Helper.call

    def counted(self: Helper, method: str, *args: Any, limit_s: float, **kwargs: Any) -> Any:
        sent.extend(len(data) for arg in args if isinstance(arg, list) for data in arg if isinstance(data, bytes))
        return call(self, method, *args, limit_s=limit_s, **kwargs)

    monkeypatch.setattr(Helper, "call", counted)
    film = FILMS["with sound"]
    spans = [Span(i * 500_000, i * 500_000 + 500_000) for i in range(7)]
    list(guarded.decode_many([guarded.Request(film, "video", span) for span in spans], [Frames(64), Audio()]))
    assert sent == [len(film)]
