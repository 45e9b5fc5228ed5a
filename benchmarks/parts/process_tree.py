"""A command and every process that it starts: wall seconds, CPU seconds, largest resident memory.

A process belongs to the command when one of its ancestors does, or when its environment holds the command's mark: so
those that a daemon started, and those whose parent is gone, are found too. `/proc` is read four times a second.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERY = 0.25
"""Seconds between two looks."""

MARK = "CURATE_BENCHMARK_RUN"
_TICK = os.sysconf("SC_CLK_TCK")
_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)


@dataclass(frozen=True)
class Stat:
    """Of `/proc/PID/stat`: CPU seconds of its own, and of the children that it waited for."""

    pid: int
    parent: int
    start: int
    own: float
    waited: float


@dataclass
class Process:
    """What was last seen of a process of the command."""

    stat: Stat
    role: str = ""
    peak: int = 0
    ended: bool = False


def parse_stat(text: str) -> Stat:
    """The fields of `/proc/PID/stat`; the name in brackets may hold anything."""
    pid, _, rest = text.partition(" ")
    fields = rest.rpartition(")")[2].split()
    ticks = [int(value) / _TICK for value in fields[11:15]]
    return Stat(int(pid), int(fields[1]), int(fields[19]), ticks[0] + ticks[1], ticks[2] + ticks[3])


def total_cpu(processes: Iterable[Process]) -> float:
    """CPU seconds of all of them, and of children that came and went between two looks.

    A parent's count of the children that it waited for is exact and holds their children too. Where it is larger than
    what was seen of the ended ones, it counts.
    """
    every = list(processes)
    children: dict[int, list[Process]] = {}
    for one in every:
        if one.ended:
            children.setdefault(one.stat.parent, []).append(one)

    def ended_below(one: Process) -> float:
        return sum(child.stat.own + below(child) for child in children.get(one.stat.pid, []) if child is not one)

    def below(one: Process) -> float:
        return max(one.stat.waited, ended_below(one))

    return sum(one.stat.own + max(0.0, one.stat.waited - ended_below(one)) for one in every)


def role_of(said: str, name: str) -> str:
    """What a process is: its command line, its short name."""
    if "curate.helper" in said:
        return "helper"
    if said.startswith("ray::") or name.startswith("ray::") or "default_worker.py" in said:
        return "worker"
    return "ray" if "/ray/" in said else name


@dataclass(frozen=True)
class Moment:
    """A line of JSON that the command said, and what it had cost by then."""

    event: dict[str, Any]
    wall: float
    cpu: float


@dataclass(frozen=True)
class Measured:
    """What a command cost.

    Attributes:
        wall, cpu: seconds.
        peaks: largest resident memory (VmHWM) in bytes of the largest process of each role; `driver` is the command.
        moments: of each JSON line of its stdout.
        said: the end of its stdout and stderr.
    """

    code: int
    wall: float
    cpu: float
    peaks: dict[str, int]
    moments: list[Moment]
    said: str

    @property
    def largest_other(self) -> tuple[str, int]:
        """Role and bytes of the largest process that is not the driver."""
        return max(((r, b) for r, b in self.peaks.items() if r != "driver"), key=lambda x: x[1], default=("none", 0))


@dataclass
class _Watch:
    driver: int
    mark: str
    members: dict[tuple[int, int], Process] = field(default_factory=dict)
    strangers: set[tuple[int, int]] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> float:
        """Look once; CPU seconds so far."""
        with self.lock:
            stats = {}
            for path in Path("/proc").iterdir():
                if path.name.isdigit():
                    with suppress(*_GONE, IndexError):
                        stat = parse_stat((path / "stat").read_text(errors="replace"))
                        stats[stat.pid] = stat
            for stat in stats.values():
                key = (stat.pid, stat.start)
                if key in self.members:
                    parent = self.members[key].stat.parent  # as it was first: daemons change it
                    self.members[key].stat = Stat(stat.pid, parent, stat.start, stat.own, stat.waited)
                elif self._belongs(stat, stats):
                    self.members[key] = Process(stat)
            for (pid, start), one in self.members.items():
                one.ended = pid not in stats or stats[pid].start != start
                if not one.ended:
                    self._measure(one)
            return total_cpu(self.members.values())

    def _belongs(self, stat: Stat, stats: Mapping[int, Stat]) -> bool:
        above: Stat | None = stat
        while above is not None:
            if above.pid == self.driver or (above.pid, above.start) in self.members:
                return True
            above = stats.get(above.parent)
        if (stat.pid, stat.start) in self.strangers:
            return False
        with suppress(*_GONE):
            if self.mark.encode() in Path(f"/proc/{stat.pid}/environ").read_bytes():
                return True
        self.strangers.add((stat.pid, stat.start))
        return False

    def _measure(self, one: Process) -> None:
        folder = Path(f"/proc/{one.stat.pid}")
        with suppress(*_GONE):
            status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line)
            one.peak = max(one.peak, int(status.get("VmHWM", "0").split()[0]) * 1024)
            said = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if said or not one.role:  # one that has ended and waits for its parent has no command line
                one.role = "driver" if one.stat.pid == self.driver else role_of(said, status.get("Name", "?").strip())


def run(command: Sequence[str | Path], env: Mapping[str, str], log: Path) -> Measured:
    """Run a command to its end and measure it.

    Args:
        env: put over this process's environment.
        log: a file for its stderr; lines of its stdout that are no JSON go there too.
    """
    mark = secrets.token_hex(8)
    started = time.monotonic()
    moments: list[Moment] = []
    with log.open("w") as stderr:
        driver = subprocess.Popen(
            list(map(str, command)),
            env={**os.environ, **env, MARK: mark},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
        watch = _Watch(driver.pid, f"{MARK}={mark}")
        over = threading.Event()

        def watching() -> None:
            while not over.is_set():
                watch.look()
                over.wait(EVERY)

        watcher = threading.Thread(target=watching, daemon=True)
        watcher.start()
        assert driver.stdout is not None
        for line in driver.stdout:
            with suppress(json.JSONDecodeError):
                if line.startswith("{"):
                    moments.append(Moment(json.loads(line), time.monotonic() - started, watch.look()))
                    continue
            stderr.write(line)
        _, status, used = os.wait4(driver.pid, 0)
        driver.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - started
        over.set()
        watcher.join()
        watch.look()
    for one in watch.members.values():
        if one.role == "driver":  # exact, to its very end
            one.stat = Stat(one.stat.pid, one.stat.parent, one.stat.start, one.stat.own, _below(used, one.stat.own))
    peaks: dict[str, int] = {}
    for one in watch.members.values():
        peaks[one.role] = max(peaks.get(one.role, 0), one.peak)
    said = log.read_text(errors="replace")[-3000:]
    return Measured(driver.returncode, wall, total_cpu(watch.members.values()), peaks, moments, said)


def _below(used: Any, own: float) -> float:
    """CPU seconds of an ended process and its waited children, less what of its own was seen."""
    return max(0.0, float(used.ru_utime + used.ru_stime) - own)
