"""What many tasks tell one actor: their counts, which the driver asks for, and which partitions they are at."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # workers draw no progress
    from curate.pipeline.progress import Stage

ASKED_SECONDS = 0.5
"""How often the driver asks."""


class Ticks:
    """Samples of a batch that are decoded and wait for the rest of it, told as they come: a batch may take minutes.

    Args:
        board: that is told, at most once in ASKED_SECONDS.
        stage: of it.
    """

    def __init__(self, board: Board, stage: str) -> None:
        self._board, self._stage = board, stage
        self._new = self._told = 0
        self._last = time.monotonic()

    def __call__(self) -> None:
        """One more is decoded."""
        self._new += 1
        now = time.monotonic()
        if now - self._last >= ASKED_SECONDS:
            self._board.add(self._stage, decoded=self._new)
            self._told, self._new, self._last = self._told + self._new, 0, now

    def take(self) -> int:
        """How many the board was told of since the last call; who has done with them tells it so (`decoded=-n`)."""
        told, self._told, self._new = self._told, 0, 0
        return told


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

    def add(self, stage: str, **counts: int) -> None:
        """So many more inputs of a stage: `total`, `passed`, `failed`, `reused`, `retries`; of the partitions that wait
        for a worker of it, `queued`, and of the samples that are `decoded` and not done, so many more or, below 0,
        fewer."""
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
        """Keep the stages' progress at what the tasks say."""
        from ray.exceptions import RayError

        ended = threading.Event()

        def ask() -> None:
            while not ended.wait(ASKED_SECONDS):
                try:
                    sums = self.sums()
                except RayError:
                    continue  # the actor is being started again; what is shown waits
                for name, stage in stages.items():
                    stage.at(**sums.get(name, {}))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        try:
            yield
        finally:
            ended.set()
            asking.join()
