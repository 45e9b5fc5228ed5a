"""Where the time of tasks goes: what their process does once, what a partition costs, and what its records cost.

So a trial can say what the whole would take: of these three only the last two grow with the data.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from curate.helper import startup
from curate.pipeline.board import Board
from curate.pipeline.partitions import Partition

T = TypeVar("T")

Spent = dict[tuple[str, str], dict[str, float]]
"""By stage and source: `tasks`; seconds of them that went `once`, for the `partition`, and for its `records`; and what
says how these vary: `n` records, and over tasks the sums of n², n·s and s², where s is the seconds for its records."""

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
    begun, before = time.monotonic(), startup.seconds()
    yield
    once, n, s = startup.seconds() - before, partition.rows, _records
    rest = max(0.0, time.monotonic() - begun - once - s)
    sums = {"tasks": 1, "once": once, "partition": rest, "records": s, "n": n, "nn": n * n, "ns": n * s, "ss": s * s}
    board.spent(stage, partition.source, sums)


def add_spent(spent: Spent, board: Board) -> None:
    """Add what a plan's board was told; nothing where the board was lost: a forecast is not worth a run."""
    from ray.exceptions import RayError

    with suppress(RayError):
        for key, sums in board.all_spent().items():
            before = spent.setdefault(key, {})
            for name, value in sums.items():
                before[name] = before.get(name, 0) + value
