"""Trials: what is drawn, where it goes, and what is forecast."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from curate.pipeline.forecast import Z, effective, interval
from curate.pipeline.trial import FEWEST_UNITS, Draw, Drawn
from curate.schema.errors import CurateError
from curate.schema.recipe import FolderSource
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry, File
from curate.storage import Folder, Store

if TYPE_CHECKING:
    from small import Project


class Many(Source):
    """A source of some units with the same number of records; it notes what is read."""

    kind = "folder"

    def __init__(self, units: int, records: int) -> None:
        super().__init__(FolderSource(kind="folder", name="many", path="."), Path("/"), {})
        self.shape, self.seen = (units, records), Counter[str]()

    def units(self, build: Store) -> Iterator[Unit]:
        yield from (Unit(self.name, f"u{i}", "", 0, {}) for i in range(self.shape[0]))

    def state(self, unit: Unit, build: Store) -> str:
        return "same"

    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        self.seen[unit.name] += 1
        for i in range(self.shape[1]):
            yield Entry(self.name, f"{unit.name}/{i}", 0, None, None, "{}", File(f"/{i}", 1), unit.name)
        yield Entry.whole(self.name, unit.name, None, "SourceError", "its end is torn off")


def drawn_of(source: Drawn, build: Store) -> list[str]:
    return [e.uri for unit in source.units(build) for e in source.read(unit, build) if not e.is_whole]


def test_a_limit_is_met_and_reads_few_units_of_many(tmp_path: Path) -> None:
    source, build = Many(500, 40), Folder(tmp_path)
    [trial] = Draw(limit=100).of([source])
    found = drawn_of(trial, build)
    assert len(found) == len(set(found)) == 100
    assert len(source.seen) == FEWEST_UNITS
    assert found == drawn_of(trial, build)
    assert trial.whole(build, 100) == 500 * 40
    assert found != [f"u0/{i}" for i in range(100)]
    assert len({uri.split("/")[0] for uri in found}) == FEWEST_UNITS


def test_a_share_is_met_in_expectation(tmp_path: Path) -> None:
    source, build = Many(400, 100), Folder(tmp_path)
    few, many = (len(drawn_of(Draw(share=p).of([source])[0], build)) for p in (0.001, 0.25))
    assert 10 <= few <= 80
    assert many == pytest.approx(10_000)
    assert Draw(share=0.25).of([source])[0].whole(build, many) == pytest.approx(40_000)


def test_units_that_cannot_be_read_are_told_of(tmp_path: Path) -> None:
    build = Folder(tmp_path)
    for draw in (Draw(limit=1), Draw(share=0.01)):
        [trial] = draw.of([Many(1, 5)])
        assert any(e.is_whole for unit in trial.units(build) for e in trial.read(unit, build))


def test_another_draw_is_another_state(tmp_path: Path) -> None:
    build = Folder(tmp_path)
    states = set()
    for limit in (3, 4):
        [trial] = Draw(limit=limit).of([Many(1, 9)])
        [unit] = trial.units(build)
        drawn_of(trial, build)
        states.add(trial.state(unit, build))
    assert len(states) == 2


def test_a_limit_is_shared_by_the_sources(tmp_path: Path) -> None:
    build = Folder(tmp_path)
    assert [len(drawn_of(one, build)) for one in Draw(limit=7).of([Many(2, 50)] * 2)] == [4, 3]
    with pytest.raises(CurateError, match="the recipe has 2 sources"):
        Draw(limit=1).of([Many(1, 1)] * 2)


@pytest.mark.parametrize("given", [{"limit": 0}, {"share": 0.0}, {"share": 1.0}, {"limit": 1, "share": 0.5}, {}])
def test_what_is_no_draw_is_refused(given: dict[str, float]) -> None:
    with pytest.raises(CurateError, match=r"--limit|--sample"):
        Draw(**given)  # type: ignore[arg-type]


def test_a_trial_lies_beside_its_build() -> None:
    assert Draw(limit=100).beside("build/mine/") == "build/mine-limit-100"
    assert Draw(share=0.01).beside("s3://bucket/mine") == "s3://bucket/mine-sample-0.01"


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    """Also where samples of a record are all alike, for which an interval of single samples is far too narrow."""
    chance, hits, naive = random.Random(0), 0, 0
    for _ in range(400):
        alike = [(10, 10 * (chance.random() < 0.3)) for _ in range(60)]
        n, k = sum(n for n, _ in alike), sum(k for _, k in alike)
        sums = Counter(
            clusters=60,
            n=n,
            k=k,
            nn=sum(n * n for n, _ in alike),
            nk=sum(n * k for n, k in alike),
            kk=sum(k * k for _, k in alike),
        )
        low, high = interval(k / n, effective(k / n, {"s": 3.0}, {"s": sums}))
        hits += low <= 0.3 <= high
        low, high = interval(k / n, n)
        naive += low <= 0.3 <= high
    assert hits / 400 > 0.92
    assert naive / 400 < 0.6


def test_nothing_kept_is_not_certain() -> None:
    low, high = interval(0.0, 10)
    assert low == 0
    assert high == pytest.approx(Z * Z / (10 + Z * Z))
    assert interval(0.0, 0) == (0.0, 1.0)


def test_a_trial_of_a_build(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    done = project.run(out, "--limit", 8, "--json")
    assert not out.exists()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    [told], summary = [e for e in events if e["event"] == "forecast"], events[-1]
    assert summary["build"].endswith("whole-limit-8")
    assert told["drawn"] == summary["records"]["total"] == 8
    media = [p for p in (project.recipe.parent / "media").rglob("*") if p.is_file()]
    assert 8 < told["records"] <= len(media)
    assert told["kept_low"] <= told["kept_share"] <= told["kept_high"]
    assert told["seconds"] > 0
    assert told["bytes"] > 0
    again = project.run(out, "--limit", 8)
    assert "no time" in again.stdout
    assert re.search(r"8 of about \d+ records", again.stdout)
