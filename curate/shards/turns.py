"""How the workers of a DataLoader agree on the epoch: by a few numbers in memory that all processes of a stream see.

A DataLoader tells its data set in the main process nothing of an epoch's begin or end; each time it begins, its workers
get a copy of the data set, and copies forget. So where the next iteration begins lies in shared memory, and the
first worker of an iteration takes that and puts the next epoch in its place. An iteration is known by what its
workers have in common: the loader's seed, which a trainer may set to the same for each epoch; the pipe on which they
answer, which every loader makes anew when it starts workers; and how often this worker has begun before (persistent
ones live on). Where a loader's workers have no such pipe, their numbers as processes (which the main process counts)
stand in for it.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from multiprocessing import context, current_process
from multiprocessing.queues import Queue
from multiprocessing.reduction import DupFd
from typing import Any

_REMEMBERED = 8
"""Iterations that are remembered: a slow worker may begin one when others are ahead."""
_PLACE = struct.Struct("<qq")
_ROOM = 1 << 16
"""The memory holds (epoch, index) of the next iteration, then the last iterations as JSON, filled up with spaces."""


@dataclass
class Iteration:
    """One iteration over the stream by a loader's workers.

    Attributes:
        epoch, index: where it began.
        seed, pipe, first, count: what tells it from others; see `Turns.begin`. A pipe of 0 is none.
        workers: how many share it.
        began, ended: workers that have.
    """

    epoch: int
    index: int
    seed: int
    pipe: int
    first: int
    count: int
    workers: int
    began: list[int] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """True if every worker came to its end."""
        return len(self.ended) == self.workers

    def takes(self, other: Iteration, worker: int) -> bool:
        """True if a worker that has made `other` of what it knows belongs here."""
        mine, its = ((one.seed, one.pipe, one.count, one.workers) for one in (self, other))
        # another thread may make any number of processes in between; without a pipe a few are allowed for
        is_near = self.pipe != 0 or abs(self.first - other.first) < self.workers
        return mine == its and is_near and worker not in self.began


class Turns:
    """Where the next iteration begins, and the last iterations of workers; shared with processes that are forked or
    started by `multiprocessing`. A plain pickle is a copy of its own."""

    def __init__(self, epoch: int, index: int) -> None:
        self._open(os.memfd_create("curate-stream"))
        self.move(epoch, index)

    def _open(self, fd: int) -> None:
        self._fd = fd
        weakref.finalize(self, os.close, fd)

    def __getstate__(self) -> Any:
        # a process of its own is being started, which gets the memory itself
        if context.get_spawning_popen() is not None:
            return {"shared": DupFd(self._fd)}
        return {"next": self.next}

    def __setstate__(self, state: Any) -> None:
        if "shared" in state:
            self._open(state["shared"].detach())
        else:
            self._open(os.memfd_create("curate-stream"))
            self.move(*state["next"])

    @property
    def next(self) -> tuple[int, int]:
        """(epoch, index) where the next iteration begins."""
        epoch, index = _PLACE.unpack(os.pread(self._fd, _PLACE.size, 0))
        return epoch, index

    @property
    def last(self) -> Iteration | None:
        """The last iteration that workers began since the last `move`."""
        with self._locked():
            return next(reversed(self._iterations()), None)

    def step(self, epoch: int, index: int) -> None:
        """Let the next iteration begin there; cheap enough for every item."""
        os.pwrite(self._fd, _PLACE.pack(epoch, index), 0)

    def move(self, epoch: int, index: int) -> None:
        """The same, and those iterations that were are forgotten."""
        with self._locked():
            self.step(epoch, index)
            self._remember([])

    def begin(
        self, worker: int, workers: int, seed: int, count: int, at: tuple[int, int] | None = None
    ) -> tuple[Iteration, bool]:
        """Begin an iteration, in a worker.

        Args:
            worker: 0 to workers - 1.
            seed: of the loader's iteration, equal in all of its workers.
            count: how often this process has begun before.
            at: where the iteration begins, of one that is gone on with; the next where None.

        Returns:
            The iteration, and whether the one before it was broken off.
        """
        mine = Iteration(0, 0, seed, _pipe(), _number() - worker, count, workers)
        with self._locked():
            known = self._iterations()
            found = next((one for one in reversed(known) if one.takes(mine, worker)), None)
            broken_off = found is None and bool(known) and not known[-1].whole
            if found is None:
                found = mine
                mine.epoch, mine.index = self.next if at is None else at
                self.step(mine.epoch + 1, 0)
                known.append(mine)
            found.began.append(worker)
            self._remember(known)
        return found, broken_off

    def end(self, iteration: Iteration, worker: int) -> None:
        """Note that a worker has given all of its share."""
        with self._locked():
            known = self._iterations()
            for one in known:
                if (one.epoch, one.first, one.count) == (iteration.epoch, iteration.first, iteration.count):
                    one.ended.append(worker)
            self._remember(known)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.lockf(self._fd, fcntl.LOCK_EX)  # the kernel drops it when its process dies
        try:
            yield
        finally:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)

    def _iterations(self) -> list[Iteration]:
        said = os.pread(self._fd, _ROOM, _PLACE.size)
        return [Iteration(**one) for one in json.loads(said)] if said.strip() else []

    def _remember(self, iterations: list[Iteration]) -> None:
        data = json.dumps([asdict(one) for one in iterations[-_REMEMBERED:]]).encode()
        os.pwrite(self._fd, data.ljust(os.fstat(self._fd).st_size - _PLACE.size), _PLACE.size)


def _pipe() -> int:
    """The number of the pipe that this process shares with the other workers of its loader; 0 where it has none.

    torch's loaders (and torchdata's) give a worker two queues, for what to do, its own, and then for what it made. No
    public name of torch or `multiprocessing` leads there, hence the 0.
    """
    queues = [given for given in getattr(current_process(), "_args", ()) if isinstance(given, Queue)]
    return os.fstat(getattr(queues[1], "_writer").fileno()).st_ino if len(queues) == 2 else 0  # noqa: B009


def _number() -> int:
    """The number of this process among those that its parent made with `multiprocessing`; 0 where it has none."""
    number = current_process().name.rpartition("-")[2].rpartition(":")[2]
    return int(number) if number.isdecimal() else 0
