"""Progress: one line a stage on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

PLAIN_SECONDS = 10.0
"""How often a stage says where it is when the output is not a terminal."""


class Stage:
    """Counts of one stage while it runs. Use as a context manager."""

    def __init__(self, console: Console, name: str, total: int, unit: str, reused: int = 0) -> None:
        self.name, self.total, self.unit = name, total, unit
        self.done = reused
        self.reused = reused
        self.failed = 0
        self._console = console
        self._started = time.monotonic()
        self._said = self._started
        self._bar: Progress | None = None

    def __enter__(self) -> Stage:
        if self._console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<10}"),
                BarColumn(bar_width=30),
                TextColumn("{task.completed:>6.0f}/{task.total:.0f} {task.fields[unit]}"),
                TextColumn("[red]{task.fields[failed]}"),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(self.name, total=self.total, unit=self.unit, failed="", completed=self.done)
        return self

    def add(self, done: int, failed: int = 0) -> None:
        """`done` more came through, `failed` of them as failures."""
        self.done += done
        self.failed += failed
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, failed=f"{self.failed} failed" if self.failed else "")
        elif now - self._said >= PLAIN_SECONDS:
            self._said = now
            rate = (self.done - self.reused) / (now - self._started)
            eta = f", eta {(self.total - self.done) / rate:.0f} s" if rate > 0 else ""
            self._console.print(
                f"{self.name:<10} {self.done}/{self.total} {self.unit}, {rate:.1f}/s{eta}{self._failed()}"
            )

    def _failed(self) -> str:
        return f", {self.failed} failed" if self.failed else ""

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            seconds = time.monotonic() - self._started
            reused = f", {self.reused} reused" if self.reused else ""
            self._console.print(
                f"{self.name:<10} {self.done}/{self.total} {self.unit} in {seconds:.1f} s{self._failed()}{reused}"
            )


def console(quiet: bool = False) -> Console:
    """Where progress goes: stderr, so that stdout stays for results."""
    return Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
