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
    begun, before, queued_before = time.monotonic(), startup.seconds(), _queued()
    yield
    seconds, once, n, s = time.monotonic() - begun, startup.seconds() - before, partition.rows, _records
    rest, queued = max(0.0, seconds - once - s), max(0.0, _queued() - queued_before)
    queued *= (rest + s) / seconds if seconds else 0.0  # starting and loading waited too
    sums = {"tasks": 1, "once": once, "partition": rest, "records": s, "queued": queued}
    board.spent(stage, partition.source, {**sums, "n": n, "nn": n * n, "ns": n * s, "ss": s * s})


def _queued() -> float:
    """Seconds that this process and its children were ready to run and had no CPU (proc_pid_schedstat(5)); 0 where the
    system does not tell. Of a worker and its helper one works at a time, so their sum is what the work was late."""
    pids = ["self"]
    for children in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):
            pids += children.read_text().split()
    total = 0.0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            total += int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    return total


def add_spent(spent: Spent, board: Board) -> None:
    """Add what a plan's board was told; nothing where the board was lost: a forecast is not worth a run."""
    from ray.exceptions import RayError

    with suppress(RayError):
        for key, sums in board.all_spent().items():
            before = spent.setdefault(key, {})
            for name, value in sums.items():
                before[name] = before.get(name, 0) + value
