"""Kills at random moments, drawn from a seed: the harness of `test_kills.py`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from small import processes_under

STAGES = ("ingest", "annotate", "decide", "look", "tokenize", "pack", "card")
TARGETS = ("driver", "everything", "worker", "helper")
"""The command's own process; it with Ray's servers and all workers; one Ray worker (a task's or a model actor's); one
helper process of a worker."""

LONGEST_WAIT = {"ingest": 4.0, "annotate": 8.0, "decide": 0.5, "look": 4.0, "tokenize": 8.0, "pack": 0.3, "card": 3.0}
"""Seconds after a stage's start within which a kill falls: about how long the stage takes on two cores."""


@dataclass(frozen=True)
class Kill:
    """SIGKILL to `target`, `after` seconds into `stage`."""

    stage: str
    after: float
    target: str


def draw(seed: int, count: int) -> list[Kill]:
    """Kills of one build, in the order of its stages, so that each can happen."""
    chance = random.Random(seed)
    stages = sorted((chance.choice(STAGES) for _ in range(count)), key=STAGES.index)
    return [Kill(s, chance.uniform(0, LONGEST_WAIT[s]), chance.choice(TARGETS)) for s in stages]


@dataclass
class Killer:
    """Runs a command that says its progress as JSON lines, and kills as planned; starts it again after its death.

    Attributes:
        command: ends by itself with 0 when all is done.
        killed: what was killed, as (stage, target).
        starts: how often the command was started.
    """

    command: Sequence[str]
    log: Path
    killed: list[tuple[str, str]] = field(default_factory=list)
    starts: int = 0

    def run(self, kills: Sequence[Kill], limit_s: float = 600) -> None:
        """Kill as planned, then let it end.

        Raises:
            AssertionError: it hangs, or does not end with 0 when nobody kills it any more.
        """
        until = time.monotonic() + limit_s
        run: Run | None = None
        for kill in kills:
            if run is None or run.process.poll() is not None:
                run = self._start()
            if not run.wait_for(kill.stage, until):
                continue  # it ended before: of an earlier kill, or because it was done
            time.sleep(kill.after)
            if self._kill(run, kill):
                run.process.wait(timeout=30)
        if run is not None and run.process.poll() is None:
            run.finish(until)
        for _ in range(3):  # a run in which Ray gave up after a kill ends with an error; the next one goes on
            if run is not None and run.process.returncode == 0:
                return
            run = self._start()
            run.finish(until)
        raise AssertionError(f"it does not end:\n{self.log.read_text()[-3000:]}")

    def _start(self) -> Run:
        self.starts += 1
        return Run(self.command, self.log)

    def _kill(self, run: Run, kill: Kill) -> bool:
        """Whether the command itself was killed."""
        pids = processes_under(run.process.pid)
        if run.process.poll() is not None:
            return False
        kind = kill.target
        victims = {"driver": pids[:1], "everything": pids}.get(kind) or _those(pids, kind)
        if not victims:
            return False
        chosen = victims if kind in ("driver", "everything") else [random.Random(len(self.killed)).choice(victims)]
        for pid in chosen:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.killed.append((run.stage, kind))
        if kind == "driver":
            _wait_gone(pids)
        return kind in ("driver", "everything")

    def summary(self) -> str:
        """How many of what."""
        by = Counter(f"{target} in {stage}" for stage, target in self.killed)
        return f"{len(self.killed)} kills, {self.starts} starts: " + ", ".join(f"{n} {what}" for what, n in by.items())


class Run:
    """One start of the command."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self.stage = "start"
        self.events: list[dict[str, Any]] = []
        self._seen: set[str] = set()
        self._changed = threading.Condition()
        self._log = log.open("ab")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=self._log, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            with self._changed:
                if event["event"] == "stage_start":
                    self.stage = event["stage"]
                    self._seen.add(self.stage)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, stage: str, until: float) -> bool:
        """Whether the stage began before the command ended."""
        with self._changed:
            while stage not in self._seen:
                assert time.monotonic() < until, f"it hangs in {self.stage}"
                if self.process.poll() is not None:
                    return False
                self._changed.wait(0.2)
        return True

    def finish(self, until: float) -> None:
        """Wait for its end."""
        try:
            self.process.wait(timeout=max(1.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            for pid in processes_under(self.process.pid):
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"it hangs in {self.stage}") from None


def _those(pids: Sequence[int], kind: str) -> list[int]:
    """Ray workers, or helper processes, among `pids`."""
    out = []
    for pid in pids:
        try:
            said = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        # not Ray's agents: they stand and fall with its server, which is another case
        worker = said.startswith("ray::") and "Agent" not in said
        if ("curate.helper.child" in said) if kind == "helper" else worker:
            out.append(pid)
    return out


def _wait_gone(pids: Sequence[int], seconds: float = 20) -> None:
    """Ray's servers end by themselves when the driver is gone."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(Path(f"/proc/{pid}").exists() for pid in pids[1:]):
        time.sleep(0.1)
