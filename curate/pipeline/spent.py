"""Where the time of tasks goes: what their process does once, what a partition costs, and what its records cost.

So a trial can say what the whole would take: of these three only the last two grow with the data.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from curate.helper import startup
from curate.pipeline.board import Board
from curate.pipeline.partitions import Partition

T = TypeVar("T")

Spent = dict[tuple[str, str], dict[str, float]]
"""By stage and source: `tasks`; seconds of them that went `once`, for the `partition`, and for its `records`; of the
latter two, those `queued` for a CPU; and what says how tasks vary: `n` records, and over tasks the sums of n², n·s and
s², where s is the seconds for its records."""

WORKS = 0.1
"""A thread that has so small a part of the CPU time of the busiest does nothing that others wait for."""

_records = 0.0


def over_records(items: Iterable[T]) -> Iterator[T]:
    """The items; the time from the first that is asked for to the end of the last is that of a partition's records."""
    global _records
    begun, before = time.monotonic(), startup.seconds()
    try:
        yield from items
    finally:
        _records += time.monotonic() - begun - (startup.seconds() - before)


@contextmanager
def spending(board: Board, stage: str, partition: Partition) -> Iterator[None]:
    """Tell the board where the time of the block went. A process does one task at a time."""
    global _records
    _records = 0.0
    begun, before, threads = time.monotonic(), startup.seconds(), _threads()
    yield
    seconds, once, n, s = time.monotonic() - begun, startup.seconds() - before, partition.rows, _records
    rest, queued = max(0.0, seconds - once - s), _queued(threads, _threads())
    queued = min(queued, seconds) * (rest + s) / seconds if seconds else 0.0  # starting and loading waited too
    sums = {"tasks": 1, "once": once, "partition": rest, "records": s, "queued": queued}
    board.spent(stage, partition.source, {**sums, "n": n, "nn": n * n, "ns": n * s, "ss": s * s})


Threads = dict[str, tuple[float, float]]
"""By thread, seconds on a CPU, and seconds ready to run without one."""


def _threads() -> Threads:
    """Those of this process and its children (proc_pid_schedstat(5)); none where the system does not tell."""
    found: Threads = {}
    for task in [*Path("/proc/self/task").iterdir(), *(t for pid in _children() for t in _tasks(pid))]:
        with suppress(OSError, ValueError):
            on, queued, _ = (task / "schedstat").read_text().split()
            found[task.name] = int(on) / 1e9, int(queued) / 1e9
    return found


def _children() -> list[str]:
    found = []
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            found += children.read_text().split()
    return found


def _tasks(pid: str) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has ended
        return []


def _queued(before: Threads, after: Threads) -> float:
    """Seconds that work was late because no CPU was free: of worker, helper and a network's threads one works while the
    others wait for it, so their waits are added; not those of threads that do next to nothing."""
    none = 0.0, 0.0
    more = [tuple(b - a for a, b in zip(before.get(name, none), now, strict=True)) for name, now in after.items()]
    most = max((on for on, _ in more), default=0.0)
    return sum(queued for on, queued in more if on > most * WORKS)


def add_spent(spent: Spent, board: Board) -> None:
    """Add what a plan's board was told; nothing where the board was lost: a forecast is not worth a run."""
    from ray.exceptions import RayError

    with suppress(RayError):
        for key, sums in board.all_spent().items():
            before = spent.setdefault(key, {})
            for name, value in sums.items():
                before[name] = before.get(name, 0) + value
