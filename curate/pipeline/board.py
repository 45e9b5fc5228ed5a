"""What many tasks tell one actor: their counts, which the driver asks for, and which partitions they are at."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # workers draw no progress
    from curate.pipeline.progress import Stage

ASKED_SECONDS = 0.5
"""How often the driver asks."""


class Ticks:
    """Inputs of a partition, told one by one as they come: a partition, or a batch of it, may take minutes.

    Args:
        board: that is told, at most once in ASKED_SECONDS.
        stage: of it.
    """

    def __init__(self, board: Board, stage: str) -> None:
        self._board, self._stage = board, stage
        self._new, self._told = Counter[str](), Counter[str]()
        self._last = time.monotonic()

    def __call__(self, what: str = "decoded") -> None:
        """One more is decoded, or `passed`, or `failed`."""
        self._new[what] += 1
        now = time.monotonic()
        if now - self._last >= ASKED_SECONDS:
            self._board.add(self._stage, **self._new)
            self._told += self._new
            self._new, self._last = Counter(), now

    def take(self, what: str = "decoded") -> int:
        """How many the board was told of since the last call; who has done with them tells it the rest, or that they
        are no longer so (`decoded=-n`)."""
        self._new.pop(what, None)
        return self._told.pop(what, 0)


@dataclass
class Tally:
    """What the rows of a plan say of a stage, summed: each partition once, however often its task was done."""

    total: int = 0
    reused: int = 0
    failed: int = 0
    retries: int = 0

    def add(self, row: Mapping[str, int]) -> None:
        """One partition's struct of `fetch.TALLY`."""
        for name, count in row.items():
            setattr(self, name, getattr(self, name) + count)

    def end(self, stage: Stage) -> None:
        """The stage's last word."""
        passed = self.total - self.reused - self.failed
        stage.at(total=self.total, reused=self.reused, passed=passed, failed=self.failed, retries=self.retries)


class _Board:
    """Sums by stage and by what is counted; partitions that are being worked on."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self._sums: dict[str, dict[str, int]] = {}
        self._leases: set[tuple[str, str]] = set()
        self._spent: dict[tuple[str, str], dict[str, float]] = {}

    def add(self, stage: str, counts: dict[str, int]) -> None:
        sums = self._sums.setdefault(stage, {})
        for name, count in counts.items():
            sums[name] = sums.get(name, 0) + count

    def sums(self) -> dict[str, dict[str, int]]:
        return self._sums

    def add_spent(self, stage: str, source: str, sums: dict[str, float]) -> None:
        before = self._spent.setdefault((stage, source), {})
        for name, value in sums.items():
            before[name] = before.get(name, 0) + value

    def spent(self) -> dict[tuple[str, str], dict[str, float]]:
        return self._spent

    def lease(self, stage: str, partition: str) -> bool:
        key = stage, partition
        there = key in self._leases
        self._leases.add(key)
        return there

    def release(self, stage: str, partition: str) -> None:
        self._leases.discard((stage, partition))


class Board:
    """A handle that tasks count on; a message of it waits for nobody.

    What is shown while a stage runs is for people: a task that is done twice counts twice. What a run accounts for is
    summed from what the tasks return.
    """

    def __init__(self) -> None:
        import ray

        self._actor: Any = ray.remote(num_cpus=0, max_restarts=-1)(_Board).remote()

    def clear(self) -> None:
        """Forget all: another plan begins."""
        self._actor.clear.remote()

    def add(self, stage: str, **counts: int) -> None:
        """So many more inputs of a stage: `total`, `passed`, `failed`, `reused`, `retries`; of the partitions that wait
        for a worker of it, `queued`, and of the samples that are `decoded` and not done, so many more or, below 0,
        fewer. Of what says how many inputs there will be: `parts` that it reads, where they are not all inputs of the
        stage before it; those that are `read`; inputs that these `gave`, where not all have come of them; and inputs
        that were there `before`."""
        self._actor.add.remote(stage, {name: n for name, n in counts.items() if n})

    def sums(self) -> dict[str, dict[str, int]]:
        """What was counted up to now."""
        import ray

        return dict(ray.get(self._actor.sums.remote()))

    def spent(self, stage: str, source: str, sums: Mapping[str, float]) -> None:
        """Where the time of a task went (`pipeline.spent`)."""
        self._actor.add_spent.remote(stage, source, dict(sums))

    def all_spent(self) -> dict[tuple[str, str], dict[str, float]]:
        """Where the time of the tasks went that ended up to now, by stage and source, summed."""
        import ray

        return dict(ray.get(self._actor.spent.remote()))

    def lease(self, stage: str, partition: str) -> bool:
        """Take a partition for a stage; True if it was taken before and not released: its worker died, or it is done
        twice at once. Leases do not outlive the node of the board, and then a partition is taken as if for the first
        time."""
        import ray

        return bool(ray.get(self._actor.lease.remote(stage, partition)))

    def release(self, stage: str, partition: str) -> None:
        """The worker is done with it."""
        self._actor.release.remote(stage, partition)

    @contextmanager
    def shown(self, stages: Mapping[str, Stage]) -> Iterator[None]:
        """Keep the stages' progress at what the tasks say; stages are in the order in which inputs pass them."""
        from ray.exceptions import RayError

        ended = threading.Event()

        def ask() -> None:
            while not ended.wait(ASKED_SECONDS):
                try:
                    sums = self.sums()
                except RayError:
                    continue  # the actor is being started again; what is shown waits
                for name, counts in shown_of(sums, stages).items():
                    stages[name].at(**counts)

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        try:
            yield
        finally:
            ended.set()
            asking.join()


def shown_of(sums: Mapping[str, Mapping[str, int]], stages: Iterable[str]) -> dict[str, dict[str, Any]]:
    """By stage, what `Stage.at` is told: the sums, and `more`, the inputs that are not listed yet. These are estimated
    by what the parts that were read gave; None where none was.

    Args:
        sums: of a board.
        stages: in the order in which inputs pass them: one without parts of its own reads the inputs of the one before.
    """
    shown: dict[str, dict[str, Any]] = {}
    ahead: float | None = 0.0
    for name in stages:
        counts = dict(sums.get(name, {}))
        new, read = counts.get("total", 0) - counts.pop("before", 0), counts.pop("read", 0)
        gave, parts = counts.pop("gave", new), counts.pop("parts", ahead)
        more: float | None = 0.0
        if parts is None or (parts > read and not read):
            more = None
        elif parts > read:
            more = max(0.0, gave + (parts - read) * gave / read - new)
        ahead = None if more is None else new + more
        shown[name] = {**counts, "more": None if more is None else round(more)}
    return shown
