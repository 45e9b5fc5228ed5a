"""Progress of a stage: a bar on a terminal, plain lines elsewhere, JSON lines for programs."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from curate.pipeline.error_location import note
from curate.pipeline.json_console import JsonConsole
from curate.pipeline.rate import Rate
from curate.schema.errors import CurateError
from curate.schema.events import Counts, Dashboard, StageEnd, StageProgress, StageStart

if TYPE_CHECKING:  # what only shows a stage needs none
    from curate.pipeline.pace import Pace

FIRST_SECONDS = 1.0
"""When a stage first says where it is."""

PLAIN_SECONDS = 10.0
"""How often it says so then, when the output is not a terminal."""


class Stage:
    """Counts of one stage while it runs. Use as a context manager, and count from one thread.

    Args:
        console: where progress goes (`console`).
        name: of the stage.
        total: inputs.
        unit: what they are: `records`, `samples`.
        reused: inputs that an earlier run has committed.
        every: seconds between two lines where there is no bar.
        beside: a stage that is at work at the same time and was entered first; a terminal shows their bars together.
        course: what stages took in the last run, to say when this one will end; it is told what this one took.

    Attributes:
        seconds: that it took, once it has ended.

    Raises:
        RuntimeError: at the end, where inputs were lost or counted twice (law 1). It is a bug of ours.
    """

    def __init__(
        self,
        console: Console,
        name: str,
        total: int,
        unit: str,
        reused: int = 0,
        every: float = PLAIN_SECONDS,
        beside: Stage | None = None,
        course: Pace | None = None,
    ) -> None:
        self._console = console
        self._beside = beside
        self._course = course
        self._counts = Counts(stage=name, unit=unit, total=total, reused=reused)
        self._every = every
        self._queued = self._decoded = 0
        self._more: int | None = 0
        self._rate = Rate()
        self._counting = threading.Lock()
        self._started = time.monotonic()
        self.seconds = 0.0
        self._ended = threading.Event()
        self._ticker: threading.Thread | None = None
        self._bar: Progress | None = None

    def __enter__(self) -> Stage:
        self._started = time.monotonic()
        if isinstance(self._console, JsonConsole):
            self._console.emit(StageStart(**dict(self._counts)))
        if self._console.quiet:
            return self
        if self._console.is_terminal:
            if self._beside is not None and self._beside._bar is not None:
                self._bar = self._beside._bar
            else:
                self._bar = Progress(
                    TextColumn("{task.description:<10}"),
                    BarColumn(bar_width=10),
                    _Moving(),
                    console=self._console,
                    transient=True,
                    redirect_stdout=False,  # `ray_log` sifts it by who prints
                )
                self._bar.start()
            self._task = self._bar.add_task(
                self._counts.stage, total=self._counts.total, completed=self._counts.done, stage=self
            )
        else:
            # a thread, because a stage that loads models or hangs must be seen to do so
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        return self

    def add(self, done: int, failed: int = 0) -> None:
        """`done` more inputs came through a stage that decides nothing, `failed` of them as failures."""
        self._count(passed=done - failed, failed=failed)

    def count(self, *, kept: int = 0, dropped: int = 0, duplicate: int = 0, failed: int = 0, retries: int = 0) -> None:
        """So many more inputs were decided on; `retries` are tries, no inputs."""
        self._count(kept=kept, dropped=dropped, duplicate=duplicate, failed=failed, retries=retries)

    def expect(self, more: int) -> None:
        """So many more inputs will come: a stage that streams does not know them all when it begins."""
        with self._counting:
            self._counts = self._counts.model_copy(update={"total": self._counts.total + more})
        if self._bar is not None:
            self._bar.update(self._task, total=self._counts.total)

    def at(
        self,
        total: int = 0,
        reused: int = 0,
        passed: int = 0,
        failed: int = 0,
        retries: int = 0,
        queued: int = 0,
        decoded: int = 0,
        more: int | None = 0,
    ) -> None:
        """Where the stage is, counted elsewhere.

        Args:
            more: inputs that are not among `total` yet, about; None where that is not known.
        """
        with self._counting:
            self._more = more
            # a task that is done again leaves the queue twice, and one that died leaves what it had decoded
            self._queued = max(0, queued)
            self._decoded = max(0, decoded)
            before = self._counts
            now = {"total": total, "reused": reused, "passed": passed, "failed": failed, "retries": retries}
            self._counts = before.model_copy(update=now)
            done = self._counts.done - self._counts.reused - (before.done - before.reused)
            if done > 0:
                self._rate.add(time.monotonic(), done)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._counts.done, total=total + (more or 0))

    def _count(self, **more: int) -> None:
        if min(more.values()) < 0:
            raise ValueError(f"counts only grow: {more}")
        with self._counting:
            before = self._counts
            self._counts = before.model_copy(update={name: getattr(before, name) + n for name, n in more.items()})
            if self._counts.done > before.done:
                self._rate.add(time.monotonic(), self._counts.done - before.done)
        if self._bar is not None:
            self._bar.update(self._task, completed=self._counts.done)

    def now(self) -> StageProgress:
        """Where it is."""
        now = time.monotonic()
        with self._counting:
            counts, queued, rate = self._counts, self._queued, self._rate.per_second(now)
            decoded, more = self._decoded, self._more
        expected = None if more is None else counts.total + more
        eta = max(0, expected - counts.done) / rate if rate and expected is not None else None
        after, then = None, list[str]()
        if self._course is not None:
            then = self._course.unknown(counts.stage)
            if expected is not None:
                after = self._course.after(counts.stage, expected - counts.reused)
        return StageProgress(
            **dict(counts),
            seconds=round(now - self._started, 3),
            expected=expected,
            rate=rate,
            eta_seconds=None if eta is None else round(eta, 3),
            run_eta_seconds=None if eta is None or after is None else round(eta + after, 3),
            then=then,
            queued=queued,
            decoded=decoded,
        )

    def _tick(self) -> None:
        wait = min(FIRST_SECONDS, self._every)
        while not self._ended.wait(wait):
            wait = self._every
            at = self.now()
            if isinstance(self._console, JsonConsole):
                self._console.emit(at)
            else:
                parts = [_done(at), *_speed(at), *_others(at)]
                self._console.print(f"{at.stage:<10} {', '.join(parts)}", markup=False)

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if isinstance(exc, Exception) and not isinstance(exc, CurateError):
            note(exc, f"the stage {self._counts.stage}")
        self._ended.set()
        if self._ticker is not None:
            self._ticker.join()
        if self._bar is not None and self._beside is None:
            self._bar.stop()
        counts, seconds = self._counts, round(time.monotonic() - self._started, 3)
        self.seconds = seconds
        if kind is None and self._course is not None:
            found = self._rate.from_the_first()
            steady = None if found is None else (found[0] - self._started, found[1])
            self._course.ended(counts.stage, counts.done - counts.reused, seconds, steady)
        adds_up = counts.done == counts.total
        if isinstance(self._console, JsonConsole):
            self._console.emit(StageEnd(**dict(counts), seconds=seconds, complete=kind is None and adds_up))
        else:
            how = "in" if kind is None else "stopped after"
            parts = [
                f"{counts.done}/{counts.total} {counts.unit} {how} {seconds:.1f} s{_sum(counts)}",
                *_others(counts),
            ]
            self._console.print(f"{counts.stage:<10} {', '.join(parts)}", markup=False)
        if kind is None and not adds_up:
            said = counts.model_dump(exclude={"stage", "unit", "total", "retries"})
            raise RuntimeError(
                f"the stage {counts.stage} does not add up: {counts.total} {counts.unit} in, {counts.done} accounted "
                f"for ({', '.join(f'{n} {name}' for name, n in said.items())}); this is a bug of curate"
            )


@contextmanager
def together(*stages: Stage) -> Iterator[None]:
    """Stages that are at work at the same time; they begin and end in this order."""
    for stage in stages:
        stage.__enter__()
    try:
        yield
    except BaseException as exc:
        for stage in stages:
            stage.__exit__(type(exc), exc, exc.__traceback__)
        raise
    for stage in stages:
        stage.__exit__(None, None, None)


class _Moving(ProgressColumn):
    """What moves beside the bar; drawn from the stage itself, so that the rate falls while nothing comes."""

    def render(self, task: Task) -> Text:
        at = task.fields["stage"].now()
        speed = _speed(at) or ["eta -:--:--"]
        return Text("  ".join([_done(at), *speed, _clock(at.seconds), *_others(at)]), no_wrap=True)


def _done(at: StageProgress) -> str:
    """`12/40 samples`; `12/~300 samples` where more than are known will come, `12/40+ samples` where nobody knows."""
    if at.expected is None:
        return f"{at.done}/{at.total}+ {at.unit}"
    return f"{at.done}/{'~' * (at.expected > at.total)}{at.expected} {at.unit}"


def _speed(at: StageProgress) -> list[str]:
    if at.rate is None:
        return []
    rate = f"{at.rate:.1f}/s" if at.rate >= 1 else f"{60 * at.rate:.1f}/min"
    if at.eta_seconds is None:
        return [rate]
    run = "" if at.run_eta_seconds is None else f", run {_clock(at.run_eta_seconds)}"
    then = f", then {' and '.join(at.then)}" if at.then else ""
    return [rate, f"eta {_clock(at.eta_seconds)}{run}{then}"]


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


def _decides(counts: Counts) -> bool:
    return bool(counts.kept or counts.dropped or counts.duplicate)


def _sum(counts: Counts) -> str:
    """The verdicts that a stage gave, as a sum."""
    if not _decides(counts):
        return ""
    verdicts = ("kept", "dropped", "duplicate", "failed")
    return " = " + " + ".join(f"{getattr(counts, name)} {name}" for name in verdicts)


def _others(counts: Counts) -> list[str]:
    """What else there is to say, without zeros."""
    names = ["failed"] if not _decides(counts) else []
    if isinstance(counts, StageProgress):
        names = ["kept", "dropped", "duplicate", "failed"]
    parts = [f"{getattr(counts, name)} {name}" for name in [*names, "reused"] if getattr(counts, name)]
    if counts.retries:
        parts.append("1 retry" if counts.retries == 1 else f"{counts.retries} retries")
    if isinstance(counts, StageProgress) and counts.decoded:
        parts.append(f"{counts.decoded} decoded")
    if isinstance(counts, StageProgress) and counts.queued:
        parts.append(f"{counts.queued} queued")
    return parts


def console(quiet: bool = False, as_json: bool = False) -> Console:
    """For people: stderr, so that stdout stays for results. With `as_json`: stdout, for a program."""
    if as_json:
        return JsonConsole(sys.stdout, quiet)
    return Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)


def say_dashboard(console: Console, url: str | None) -> None:
    """Say where Ray's dashboard is, where there is one. `url` is as Ray gives it: `127.0.0.1:8265`."""
    if not url:
        return
    address = url if "://" in url else f"http://{url}"
    if isinstance(console, JsonConsole):
        console.emit(Dashboard(url=address))
    else:
        console.print(f"{'dashboard':<10} {address}", markup=False)
