"""What a run shows while it works: on a terminal, in a log, and to a program."""

from __future__ import annotations

import json
import re
import time
from contextlib import nullcontext
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from curate.pipeline import rate as rates
from curate.pipeline.board import Ticks, shown_of
from curate.pipeline.json_console import JsonConsole
from curate.pipeline.progress import Stage, _speed, say_dashboard
from curate.pipeline.rate import Rate
from curate.schema.events import Event, StageEnd, StageProgress, StageStart


def log() -> tuple[Console, StringIO]:
    """A console that is no terminal."""
    out = StringIO()
    return Console(file=out, highlight=False, soft_wrap=True), out


def events(out: StringIO) -> list[object]:
    return [Event.model_validate_json(line).root for line in out.getvalue().splitlines()]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate is known after a twentieth of a second."""
    monkeypatch.setattr(rates, "LEAST_SECONDS", 0.05)
    monkeypatch.setattr(rates, "TOGETHER_SECONDS", 0.01)


# a log


@pytest.mark.usefixtures("hasty")
def test_a_log_gets_plain_lines_with_rate_and_eta_and_one_at_the_end() -> None:
    console, out = log()
    with Stage(console, "annotate", 30, "samples", reused=10, every=0.15) as stage:
        for i in range(20):
            stage.add(1, failed=int(i == 3))
            time.sleep(0.02)
        stage.count(retries=2)
    *moving, last = out.getvalue().splitlines()
    said = r"annotate   \d+/30 samples(, \d+\.\d/s, eta 0:00:0\d)?(, 1 failed)?, 10 reused"
    matches = [re.fullmatch(said, line) for line in moving]
    assert all(matches), moving
    assert any(match and match[1] for match in matches), "rate and eta are shown"
    assert re.fullmatch(r"annotate   30/30 samples in 0\.\d s, 1 failed, 10 reused, 2 retries", last)


def test_a_stage_that_waits_for_its_models_is_seen_to_live_and_promises_nothing() -> None:
    console, out = log()
    with Stage(console, "annotate", 4, "samples", every=0.05) as stage:
        time.sleep(0.12)
        stage.add(4)
    first, *_ = out.getvalue().splitlines()
    assert first == "annotate   0/4 samples"


def test_inputs_of_a_partition_are_told_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told = [0.0], list[dict[str, int]]()
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])

    class Heard:
        def add(self, stage: str, **counts: int) -> None:
            told.append(counts)

    ticks = Ticks(Heard(), "annotate")  # type: ignore[arg-type]
    for _ in range(10):
        clock[0] += 0.2
        ticks()
    assert told == [{"decoded": 3}] * 3
    assert ticks.take() == 9
    assert ticks.take() == 0
    for what in ("passed", "failed", "passed", "passed"):
        clock[0] += 0.2
        ticks(what)
    assert told[3:] == [{"passed": 1, "failed": 1}]
    assert (ticks.take("passed"), ticks.take("failed")) == (1, 1), "the rest is for who knows all"


def test_what_is_not_listed_yet_is_estimated_by_what_was() -> None:
    stages = ("ingest", "annotate")
    first = {"ingest": {"parts": 8, "total": 40, "before": 0}}
    assert [one["more"] for one in shown_of(first, stages).values()] == [None, None], "the first unit is not at its end"
    # of 8 units 2 were read and gave 60 records, and 10 of the third are known; 500 were there before
    ingest = {"parts": 8, "read": 2, "gave": 60, "total": 570, "before": 500, "passed": 9}
    # of the 240 records of this run 20 gave 50 samples
    annotate = {"read": 20, "total": 350, "before": 300, "decoded": 3}
    shown = shown_of({"ingest": ingest, "annotate": annotate}, stages)
    assert shown["ingest"] == {"total": 570, "passed": 9, "more": 170}
    assert shown["annotate"] == {"total": 350, "decoded": 3, "more": 550}
    ended = {"ingest": ingest | {"read": 8, "gave": 70}, "annotate": annotate | {"read": 70}}
    assert [one["more"] for one in shown_of(ended, stages).values()] == [0, 0]
    assert shown_of({"tokenize": {"total": 9}}, ["tokenize"]) == {"tokenize": {"total": 9, "more": 0}}, "all are known"


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(("more", "said", "eta"), [(0, "30/40", 10), (60, "30/~100", 70), (None, r"30/40\+", None)])
def test_what_is_not_listed_yet_counts_for_the_eta(more: int | None, said: str, eta: float | None) -> None:
    console, out = log()
    with Stage(console, "annotate", 0, "samples", every=0.1) as stage:
        stage.at(total=40, passed=10)
        time.sleep(0.06)
        stage.at(total=40, passed=30, more=more)
        at = stage.now()
        time.sleep(0.1)
        stage.at(total=40, passed=40)
    assert at.rate is not None
    assert at.eta_seconds == (None if eta is None else pytest.approx(eta / at.rate, abs=0.001))
    assert re.match(rf"annotate   {said} samples, \d", out.getvalue())


def test_what_is_decoded_is_shown_and_no_part_of_the_sum() -> None:
    console, out = log()
    with Stage(console, "annotate", 0, "samples", every=0.05) as stage:
        stage.at(total=4, passed=1, decoded=2)
        time.sleep(0.12)
        stage.at(total=4, passed=4)
    first, *_, last = out.getvalue().splitlines()
    assert first == "annotate   1/4 samples, 2 decoded"
    assert last.startswith("annotate   4/4 samples in")


def test_a_stage_that_decides_ends_with_its_sum() -> None:
    console, out = log()
    with Stage(console, "decide", 10, "samples") as stage:
        stage.count(kept=4, dropped=3)
        stage.count(duplicate=2, failed=1, retries=1)
    assert re.fullmatch(
        r"decide     10/10 samples in 0\.0 s = 4 kept \+ 3 dropped \+ 2 duplicate \+ 1 failed, 1 retry\n",
        out.getvalue(),
    )


# a terminal


@pytest.mark.usefixtures("hasty")
def test_a_terminal_gets_a_bar_that_vanishes_and_a_line_that_stays() -> None:
    out = StringIO()
    console = Console(force_terminal=True, file=out, width=120, highlight=False, soft_wrap=True)
    with Stage(console, "annotate", 20, "samples") as stage:
        for i in range(19):
            stage.add(1, failed=int(i == 3))
            time.sleep(0.02)
        rate = re.compile(r"\d+/20 samples  \d+\.\d/s  eta 0:00:\d\d  0:00:\d\d  1 failed")
        until = time.monotonic() + 20
        while not rate.search(out.getvalue()) and time.monotonic() < until:
            time.sleep(0.02)  # until it is drawn, which a busy machine does late
        stage.add(1)
    shown = out.getvalue()
    assert "0/20 samples  eta -:--:--" in shown, "nothing is promised before it is known"
    assert rate.search(shown)
    *_, last = shown.splitlines()
    assert re.search(r"annotate   20/20 samples in \d+\.\d s, 1 failed$", last)
    assert "\x1b[2K" in last, "the bar is wiped out before the last line"


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_without_inputs_and_a_quiet_one(terminal: bool) -> None:
    for quiet in (False, True):
        out = StringIO()
        console = Console(force_terminal=terminal, file=out, width=120, highlight=False, quiet=quiet)
        with Stage(console, "tokenize", 0, "samples", every=0.01):
            time.sleep(0.02)
        assert ("tokenize   0/0 samples" in out.getvalue()) is not quiet


# a program


@pytest.mark.usefixtures("hasty")
def test_a_program_gets_one_object_a_line() -> None:
    out = StringIO()
    console = JsonConsole(out)
    console.print("demo       preparing", "media \x1b[2J é \u2028")
    say_dashboard(console, "127.0.0.1:8265")
    with Stage(console, "annotate", 1016, "samples", reused=1000, every=0.1) as stage:
        for _ in range(8):
            stage.add(2, failed=1)
            time.sleep(0.02)
    assert out.getvalue().isascii(), "safe in every locale; no line end hides in a string"
    assert [json.loads(line)["text"] for line in out.getvalue().splitlines()[:1]] == [
        "demo       preparing media \x1b[2J é \u2028"
    ]
    _, dashboard, start, *moving, end = events(out)
    assert dashboard.url == "http://127.0.0.1:8265"  # type: ignore[attr-defined]
    assert isinstance(start, StageStart)
    assert (start.stage, start.unit, start.total, start.reused, start.done) == ("annotate", "samples", 1016, 1000, 1000)
    known = [at for at in moving if isinstance(at, StageProgress) and at.rate]
    assert known
    for at in known:
        assert 0 < (at.rate or 0) <= 2 / 0.02 * 1.5, "two each 20 ms; what is reused took no time and does not count"
        assert at.eta_seconds == pytest.approx((at.total - at.done) / (at.rate or 0), abs=0.001)
    assert isinstance(end, StageEnd)
    assert end.complete
    assert (end.reused, end.passed, end.failed, end.done, end.total) == (1000, 8, 8, 1016, 1016)


def test_a_quiet_program_hears_nothing_of_stages() -> None:
    out = StringIO()
    console = JsonConsole(out, quiet=True)
    console.print("demo")
    say_dashboard(console, "127.0.0.1:8265")
    with Stage(console, "pack", 1, "samples", every=0.01) as stage:
        stage.add(1)
        time.sleep(0.02)
    assert out.getvalue() == ""


def test_the_dashboard_is_said_where_there_is_one() -> None:
    console, out = log()
    say_dashboard(console, None)
    say_dashboard(console, "")
    say_dashboard(console, "127.0.0.1:8265")
    say_dashboard(console, "https://head.example/ray")
    assert out.getvalue() == "dashboard  http://127.0.0.1:8265\ndashboard  https://head.example/ray\n"


# law 1


_few = st.integers(0, 50)
_moves = st.lists(
    st.fixed_dictionaries({}, optional=dict.fromkeys(("kept", "dropped", "duplicate", "failed", "retries"), _few))
    | st.tuples(_few, _few).map(lambda t: (max(t), min(t))),
    max_size=20,
)


@given(moves=_moves, reused=_few, missing=st.integers(-2, 2))
def test_any_sequence_of_counts_adds_up_or_the_stage_says_so(
    moves: list[dict[str, int] | tuple[int, int]], reused: int, missing: int
) -> None:
    want = dict.fromkeys(("passed", "kept", "dropped", "duplicate", "failed", "retries"), 0)
    for move in moves:
        more = move if isinstance(move, dict) else {"passed": move[0] - move[1], "failed": move[1]}
        for name, count in more.items():
            want[name] += count
    came = reused + sum(want.values()) - want["retries"]
    total = max(0, came + missing)
    out = StringIO()
    stage = Stage(JsonConsole(out), "some", total, "samples", reused)
    lost = pytest.raises(RuntimeError, match=f"{total} samples in, {came} accounted for")
    with nullcontext() if total == came else lost, stage:
        for move in moves:
            if isinstance(move, dict):
                stage.count(**move)
            else:
                stage.add(*move)
    _, end = events(out)
    assert isinstance(end, StageEnd)
    assert {name: getattr(end, name) for name in want} == want
    assert (end.reused, end.total, end.complete) == (reused, total, total == came)
    assert end.done == came


def test_counts_that_shrink_are_refused() -> None:
    console, _ = log()
    stage = Stage(console, "annotate", 3, "samples")
    for wrong in ({"kept": -1}, {"retries": -1}):
        with pytest.raises(ValueError, match="only grow"):
            stage.count(**wrong)
    with pytest.raises(ValueError, match="only grow"):
        stage.add(1, failed=2)


def fill_the_disk(stage: Stage) -> None:
    def work() -> None:
        with stage:
            stage.add(2)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        work()


@pytest.mark.parametrize("terminal", [True, False])
def test_an_error_inside_is_the_one_that_is_raised(terminal: bool) -> None:
    out = StringIO()
    console = Console(force_terminal=terminal, file=out, width=120, highlight=False)
    fill_the_disk(Stage(console, "ingest", 9, "records"))
    assert "ingest     2/9 records stopped after 0.0 s" in out.getvalue()


def test_an_error_inside_is_told_to_programs() -> None:
    out = StringIO()
    fill_the_disk(Stage(JsonConsole(out), "ingest", 2, "records"))
    *_, end = events(out)
    assert isinstance(end, StageEnd)
    assert not end.complete


# the rate


@given(
    piece=st.integers(1, 64),
    seconds=st.floats(0.05, 120),
    start=st.floats(0, 1e4),
    workers=st.integers(1, 8),
)
def test_a_steady_stage_has_its_rate_whatever_the_start_cost(
    piece: int, seconds: float, start: float, workers: int
) -> None:
    """Each worker ends a piece every so many seconds, all at nearly the same moment, after a start of any length."""
    rate = Rate()
    pieces = max(6, int(10 / seconds))
    at = start
    for i in range(pieces):
        for w in range(workers):
            rate.add(start + i * seconds + w * seconds * 1e-3, piece)
        at = start + i * seconds + (workers - 1) * seconds * 1e-3
    found = rate.per_second(at)
    assert found is not None
    # the first moment swallows what came within a second of it, the last piece may be under way
    assert found == pytest.approx(piece * workers / seconds, rel=0.05 + 2 / pieces)


def test_nothing_is_known_at_first() -> None:
    rate = Rate()
    assert rate.per_second(100) is None
    rate.add(100, 16)
    assert rate.per_second(200) is None, "one piece after a slow start says nothing of the next"
    rate.add(200.5, 16)
    assert rate.per_second(200.5) == pytest.approx(16 / 100.5)
    burst = Rate()
    for i in range(8):
        burst.add(30 + i / 10, 16)
    assert burst.per_second(30.8) is None, "eight workers that started together are one moment"


def test_the_rate_is_of_the_last_minute_and_falls_while_nothing_comes() -> None:
    rate = Rate()
    for second in range(100):  # ten a second, then one a second
        rate.add(second, 10)
    assert rate.per_second(99) == pytest.approx(10, rel=0.02)
    for second in range(100, 200):
        rate.add(second, 1)
    assert rate.per_second(199) == pytest.approx(1, rel=0.02)
    stalled = [rate.per_second(199 + wait) for wait in (0, 60, 600)]
    assert stalled == sorted(stalled, key=lambda r: -(r or 0))
    assert stalled[-1] is not None
    assert stalled[-1] < 0.1


def test_the_rate_does_not_swing_between_batches() -> None:
    rate = Rate()
    for at in (0, 10, 20, 30):
        rate.add(at, 100)
    assert [rate.per_second(30 + wait) for wait in (0, 5, 10)] == [10, 10, 10]
    assert rate.per_second(40 + 30) == pytest.approx(5), "the next is overdue by as long as all took"


def test_slow_pieces_have_a_rate_too() -> None:
    rate = Rate()
    for at in (0, 100, 1200, 1300, 2400):
        rate.add(at, 16)
    assert rate.per_second(2400) == pytest.approx(3 * 16 / 2300), "an uneven pace is averaged, and the start forgotten"
    shown = StageProgress(stage="cut", unit="records", total=10, passed=5, seconds=2400, rate=1 / 600, eta_seconds=3000)
    assert _speed(shown) == ["0.1/min", "eta 0:50:00"]


@pytest.mark.usefixtures("hasty")
def test_what_waits_for_a_worker_is_shown_while_the_stage_runs_and_not_after_it() -> None:
    console, out = log()
    with Stage(console, "annotate", 0, "samples", every=0.05) as stage:
        stage.at(total=10, passed=2, queued=3)
        time.sleep(0.12)
        stage.at(total=10, passed=10, queued=-1)  # a task that was done again left the queue twice
        assert stage.now().queued == 0
    first, *_, last = out.getvalue().splitlines()
    assert first.endswith("3 queued")
    assert "queued" not in last
