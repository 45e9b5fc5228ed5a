"""When the whole run will end: by what its later stages took in the last run of the recipe."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console

from curate.pipeline.pace import Pace, pace_of
from curate.pipeline.placement import Capacity, Node
from curate.pipeline.progress import Stage, _speed
from curate.schema.events import StageProgress
from curate.schema.recipe import Recipe

Moments = Sequence[tuple[float, int]]
"""Seconds since a stage began, and inputs that are through."""

STEADY: Moments = [(3, 10), *((3 + i, 10 + 10 * i) for i in range(1, 10))]
"""The first ten of a hundred inputs after three seconds, then ten a second."""

SHORT: Moments = [(0.5, 100)]


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def run(self, course: Pace, tokenize: Moments = STEADY, reused: int = 0) -> None:
        """A run of 100 samples, of which an earlier one has annotated some."""
        self.stage(course, "annotate", STEADY, reused)
        self.stage(course, "decide", [(1, 100)])
        self.stage(course, "tokenize", tokenize)
        self.stage(course, "pack", SHORT)
        self.stage(course, "card", [(2, 100)])
        course.write()

    def stage(self, course: Pace, name: str, moments: Moments, reused: int = 0) -> None:
        begun = self.now
        with Stage(Console(quiet=True), name, 0, "samples", course=course) as stage:
            for seconds, done in moments:
                self.now = begun + seconds
                stage.at(total=100, reused=reused, passed=max(0, done - reused))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", lambda: made.now)
    return made


def test_later_stages_are_counted_by_what_they_took(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "pace.json"
    first = Pace(path)
    clock.run(first)
    assert first.after("annotate", 100) is None, "of the first run nothing is known"
    assert (first.unknown("annotate"), first.unknown("tokenize")) == (["look", "tokenize"], [])
    course = Pace(path)
    assert course.unknown("annotate") == []
    # decide 1 s, tokenize 3 s and a tenth of a second a sample, pack 0.5 s, card 2 s
    assert course.after("annotate", 1000) == pytest.approx(1 + 3 + 1000 / 10 + 0.5 + 2)
    assert course.after("tokenize", 7) == pytest.approx(2.5)
    assert course.after("card", 1) == 0
    assert course.after("ingest", 1000) is None


def test_a_stage_says_when_the_run_will_end(clock: Clock, tmp_path: Path) -> None:
    clock.run(Pace(tmp_path / "pace.json"))
    with Stage(Console(quiet=True), "annotate", 0, "samples", course=Pace(tmp_path / "pace.json")) as stage:
        for _, done in STEADY[:-1]:
            clock.now += 1
            stage.at(total=90, passed=done, more=310)
        at = stage.now()
        stage.at(total=100, passed=100)
    assert at.eta_seconds == pytest.approx((400 - 90) / 10, abs=0.001)
    assert at.run_eta_seconds == pytest.approx(31 + 1 + 3 + 40 + 0.5 + 2, abs=0.001)
    assert _speed(at) == ["10.0/s", "eta 0:00:31, run 0:01:18"]
    assert _speed(StageProgress.model_validate(dict(at) | {"run_eta_seconds": None})) == ["10.0/s", "eta 0:00:31"]


def test_a_first_run_says_which_long_stages_are_to_come_and_no_time_that_nobody_knows(
    clock: Clock, tmp_path: Path
) -> None:
    course = Pace(tmp_path / "pace.json")
    with Stage(Console(quiet=True), "annotate", 0, "samples", course=course) as stage:
        for _, done in STEADY:
            clock.now += 1
            stage.at(total=100, passed=done)
            if done == 60:
                at = stage.now()
    assert (at.run_eta_seconds, at.then) == (None, ["look", "tokenize"])
    assert _speed(at) == ["10.0/s", "eta 0:00:04, then look and tokenize"]


def test_a_run_that_was_too_short_leaves_no_note(clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "pace.json"
    clock.run(Pace(path), SHORT)
    assert not path.exists()
    clock.run(Pace(path))
    known = Pace(path).after("annotate", 50)
    clock.run(Pace(path), SHORT)
    assert Pace(path).after("annotate", 50) == known, "what is known stays"
    clock.run(Pace(path), reused=100)
    assert Pace(path).after("annotate", 50) == known, "nothing was new, so nothing was learned of samples"


@pytest.mark.parametrize("note", ["", "{}", "[1]", '[["annotate", 1]]', '[["annotate", "a", null]]'])
def test_a_note_that_is_none_is_not_read(tmp_path: Path, note: str) -> None:
    (tmp_path / "pace.json").write_text(note)
    assert Pace(tmp_path / "pace.json").after("annotate", 1) is None


def test_another_recipe_or_machine_has_another_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path))
    said = {
        "name": "r",
        "sources": [{"kind": "folder", "name": "here", "path": "."}],
        "annotate": [{"name": "sharpness"}],
        "tokenize": {"streams": [{"name": "s", "tokenizer": "image-fsq-64k"}]},
    }

    def path(cpus: int = 2, **more: object) -> Path:
        return pace_of(Recipe.model_validate(said | more), Capacity((Node(cpus),)))._path

    assert path().is_relative_to(tmp_path)
    assert path() == path(name="other", decide={"rules": [{"field": "sharpness", "min": 3}]})
    assert len({path(), path(3), path(annotate=[{"name": "brightness"}])}) == 3
