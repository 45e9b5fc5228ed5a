"""Trials: what is drawn, where it goes, and what is forecast."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from small import CHEAP

from curate.helper.startup import once
from curate.pipeline.forecast import Took, Z, effective, interval, time_of
from curate.pipeline.partitions import Partition
from curate.pipeline.placement import Capacity, Node, pools_of
from curate.pipeline.spent import Spent, over_records, spending
from curate.pipeline.trial import FEWEST_UNITS, Draw, Drawn, trial_of
from curate.schema.errors import CurateError
from curate.schema.manifest import Trial, TrialSource
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


PARTITION = 16


def drawn_of(source: Drawn, build: Store) -> list[str]:
    return [e.uri for unit in source.units(build) for e in source.read(unit, build) if not e.is_whole]


def test_a_limit_is_met_and_reads_few_units_of_many(tmp_path: Path) -> None:
    source, build = Many(500, 40), Folder(tmp_path)
    [trial] = Draw(limit=100).of([source], PARTITION)
    found = drawn_of(trial, build)
    assert len(found) == len(set(found)) == 100
    assert len(source.seen) == FEWEST_UNITS
    assert found == drawn_of(trial, build)
    assert found != [f"u0/{i}" for i in range(100)]
    assert len({uri.split("/")[0] for uri in found}) == FEWEST_UNITS
    told = trial.told(build, 100, FEWEST_UNITS)
    assert (told.of_records, told.units, told.of_units, told.of_partitions) == (500 * 40, 16, 500, 500 * 3)


def test_a_share_is_met_in_expectation(tmp_path: Path) -> None:
    source, build = Many(400, 100), Folder(tmp_path)
    few, many = (len(drawn_of(Draw(share=p).of([source], PARTITION)[0], build)) for p in (0.001, 0.25))
    assert 10 <= few <= 80
    assert many == pytest.approx(10_000, rel=0.2)
    assert 60 < len(source.seen) < 140
    assert Draw(share=0.25).of([source], PARTITION)[0].told(build, many, 9).of_records == round(many / 0.25)


def test_a_share_of_few_units_counts_the_whole(tmp_path: Path) -> None:
    build = Folder(tmp_path)
    [trial] = Draw(share=0.3).of([Many(3, 90)], PARTITION)
    records = len(drawn_of(trial, build))
    assert 50 < records < 110
    told = trial.told(build, records, 3)
    assert (told.of_records, told.of_partitions, told.units) == (270, 18, 3)


def test_units_that_cannot_be_read_are_told_of(tmp_path: Path) -> None:
    build = Folder(tmp_path)
    for draw in (Draw(limit=1), Draw(share=0.01)):
        [trial] = draw.of([Many(1, 5)], PARTITION)
        assert any(e.is_whole for unit in trial.units(build) for e in trial.read(unit, build))


def test_another_draw_is_another_state(tmp_path: Path) -> None:
    build = Folder(tmp_path)
    states = set()
    for limit in (3, 4):
        [trial] = Draw(limit=limit).of([Many(1, 9)], PARTITION)
        [unit] = trial.units(build)
        drawn_of(trial, build)
        states.add(trial.state(unit, build))
    assert len(states) == 2


def test_a_limit_is_shared_by_the_sources(tmp_path: Path) -> None:
    build = Folder(tmp_path)
    both = [Many(2, 50)] * 2
    drawn = Draw(limit=7).of(both, PARTITION)
    assert [len(drawn_of(one, build)) for one in drawn] == [4, 3]
    partitions = [Partition(f"many-{i}", "many", 4) for i in range(2)]
    trial = trial_of(build, drawn[:1], partitions, {"many": 4})
    assert trial is not None
    assert (trial.asked, trial.records, trial.of_records, trial.sources[0].partitions) == ("--limit 7", 4, 100, 2)
    assert trial_of(build, both, partitions, {"many": 4}) is None
    with pytest.raises(CurateError, match="the recipe has 2 sources"):
        Draw(limit=1).of([Many(1, 1)] * 2, PARTITION)


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


class Heard:
    """A board that keeps what it is told."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}

    def spent(self, stage: str, source: str, sums: dict[str, float]) -> None:
        self.sums = sums


def test_time_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process does once, what a partition costs, what its records cost; also where loading falls into these."""
    clock = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    board = Heard()

    def batches() -> Iterator[int]:
        for i in range(3):
            with once():
                with once():
                    clock[0] += 10 if i == 0 else 0
                clock[0] += 5 if i == 0 else 0
            clock[0] += 2
            yield i

    with spending(board, "annotate", Partition("p", "s", 6)):  # type: ignore[arg-type]
        clock[0] += 1
        for _ in over_records(batches()):
            clock[0] += 3
        clock[0] += 4
    told = {"tasks": 1, "once": 15, "partition": 5, "records": 15, "n": 6, "nn": 36, "ns": 90, "ss": 225}
    assert {name: board.sums[name] for name in told} == told


def test_time_in_the_queue_for_a_cpu_is_seen() -> None:
    """One CPU for two that count: each waits about half of the time, a child too."""
    here = os.sched_getaffinity(0)
    board, count = Heard(), "import time; until = time.monotonic() + 3\nwhile time.monotonic() < until: pass"
    os.sched_setaffinity(0, {min(here)})
    try:
        rival = subprocess.Popen([sys.executable, "-c", count])
        with spending(board, "annotate", Partition("p", "s", 6)):  # type: ignore[arg-type]
            until = time.monotonic() + 1
            while time.monotonic() < until:
                pass
        rival.kill()
        rival.wait()
    finally:
        os.sched_setaffinity(0, here)
    assert board.sums["queued"] > 0.2


CAPACITY = Capacity((Node(2),))
POOLS = [*pools_of("annotate", [], CAPACITY), *pools_of("tokenize", [], CAPACITY)]


def sums_of(tasks: list[tuple[int, float, float]]) -> dict[str, float]:
    """Of tasks with so many records, seconds for the partition and seconds for its records."""
    return {
        "tasks": len(tasks),
        "once": 0.0,
        "partition": sum(p for _, p, _ in tasks),
        "records": sum(s for *_, s in tasks),
        "queued": 0.0,
        "n": sum(n for n, *_ in tasks),
        "nn": sum(n * n for n, *_ in tasks),
        "ns": sum(n * s for n, _, s in tasks),
        "ss": sum(s * s for *_, s in tasks),
    }


def told_of(name: str, records: int, of_records: int, partitions: int, of_partitions: int) -> TrialSource:
    return TrialSource(
        name=name,
        records=records,
        of_records=of_records,
        units=1,
        of_units=1,
        partitions=partitions,
        of_partitions=of_partitions,
    )


def test_time_grows_by_source_and_fixed_costs_do_not() -> None:
    """50 of 5,000 images at 20 ms each and 50 of 100 clips at 1 s each, after a start of 40 s."""
    trial = Trial(limit=100, sample=None, sources=[told_of("i", 50, 5000, 5, 5), told_of("c", 50, 100, 2, 4)])
    spent: Spent = {("annotate", "i"): sums_of([(10, 0.1, 0.2)] * 5), ("annotate", "c"): sums_of([(25, 0.2, 25.0)] * 2)}
    done = 1.5 + 50.4
    time = time_of(trial, Took(40 + done / 2, 0.0, spent, POOLS, 2, 0, {}))
    truth = 40 + (0.5 + 100 + 0.8 + 100) / 2
    assert time.work == pytest.approx(201.3)
    assert truth / 2 < time.low < truth < time.high < truth * 2


def test_what_other_work_took_is_told_apart() -> None:
    trial = Trial(limit=100, sample=None, sources=[told_of("i", 100, 10_000, 10, 10)])
    alone: Spent = {("annotate", "i"): sums_of([(10, 0.0, 1.0)] * 10)}
    crowded: Spent = {("annotate", "i"): {**sums_of([(10, 0.0, 4.0)] * 10), "queued": 30.0}}
    one, other = (time_of(trial, Took(s, 0, spent, POOLS, 2, 0, {})) for s, spent in ((20, alone), (80, crowded)))
    assert (one.crowded, other.crowded) == (1, 4)
    assert (other.low, other.high, other.work) == pytest.approx((one.low, one.high, one.work))


def test_what_reads_columns_may_grow_with_partitions() -> None:
    trial = Trial(limit=16, sample=None, sources=[told_of("i", 16, 1_000_000, 16, 1000)])
    spent: Spent = {("tokenize", "i"): sums_of([(1, 0.0, 0.1)] * 16)}
    without, with_columns = (time_of(trial, Took(30, s, spent, POOLS, 2, 0, {})) for s in (0.0, 2.0))
    assert with_columns.low == without.low
    assert with_columns.high == pytest.approx(without.high + 2 * (1000 / 16 - 1))


def test_fetches_of_few_records_say_little_of_full_partitions() -> None:
    """8 requests at once: 6 records take a round of a second, and so would 8; 1,000 take 125."""
    trial = Trial(limit=96, sample=None, sources=[told_of("web", 96, 100_000, 16, 100)])
    spent: Spent = {("fetch", "web"): sums_of([(6, 0.0, 1.0)] * 16)}
    web, local = (time_of(trial, Took(20, 0, spent, POOLS, 2, 0, requests)) for requests in ({"web": 8}, {}))
    assert web.high == local.high
    assert web.low < 20 + 100 * 125 / 2 < web.high
    assert web.low < local.low


def test_tasks_that_differ_widen_the_range() -> None:
    trial = Trial(limit=100, sample=None, sources=[told_of("i", 100, 10_000, 10, 10)])
    alike, apart = (
        time_of(trial, Took(20, 0, {("annotate", "i"): sums_of(tasks)}, POOLS, 2, 0, {}))
        for tasks in ([(10, 0.0, 1.0)] * 10, [(10, 0.0, 0.2)] * 5 + [(10, 0.0, 1.8)] * 5)
    )
    assert apart.low < alike.low < alike.high < apart.high


def test_a_trial_of_a_build(project: Project, tmp_path: Path) -> None:
    out = tmp_path / "whole"
    done = project.run(out, "--limit", 8, "--json", recipe=CHEAP)
    assert not out.exists()
    events = [json.loads(line) for line in done.stdout.splitlines()]
    [told], summary = [e for e in events if e["event"] == "forecast"], events[-1]
    assert summary["build"].endswith("whole-limit-8")
    assert told["drawn"] == summary["records"]["total"] == 8
    media = [p for p in (project.recipe.parent / "media").rglob("*") if p.is_file()]
    assert 8 < told["records"] <= len(media)
    assert told["kept_low"] <= told["kept_share"] <= told["kept_high"]
    assert 0 < told["seconds_low"] <= told["seconds_high"]
    assert told["bytes"] > 0
    again = project.run(out, "--limit", 8, recipe=CHEAP)
    assert "time: not known" in again.stdout
    assert re.search(r"8 of about \d+ records", again.stdout)
    build = tmp_path / "whole-limit-8"
    project.curate("verify", build)
    trial = json.loads((build / "manifest.json").read_text())["trial"]
    assert (trial["limit"], trial["sample"]) == (8, None)
    assert [(s["name"], s["records"], s["of_records"]) for s in trial["sources"]] == [("here", 8, told["records"])]
    for page in ("card/index.html", "card/README.md"):
        assert "A trial, not the whole" in (build / page).read_text()


@pytest.mark.long
def test_a_share_of_a_build(project: Project, tmp_path: Path) -> None:
    dry = project.run(tmp_path / "whole", "--sample", "0.6", "--dry-run")
    [drawn] = re.findall(r"source here: (\d+) records", dry.stdout)
    assert not list(tmp_path.iterdir())
    done = project.run(tmp_path / "whole", "--sample", "0.6")
    assert f"from {drawn} of about " in done.stdout
    build = tmp_path / "whole-sample-0.6"
    assert json.loads((build / "manifest.json").read_text())["trial"]["sample"] == 0.6
    project.curate("verify", build)
