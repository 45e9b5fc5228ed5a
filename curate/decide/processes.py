"""Tasks in processes of this machine, where no cluster is at work: a moved threshold needs no Ray."""

from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from queue import LifoQueue
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from curate.decide.engine import Held, Item, in_order
from curate.helper.process import Helper
from curate.helper.quarantine import attempt
from curate.schema.errors import CurateError, Quarantined

LIMIT_SECONDS = 86_400.0
"""How long a task may take: what is beyond hangs."""


@dataclass(frozen=True)
class _Place:
    """Where a held value lies, pickled: a file, and its bytes there."""

    path: str
    start: int
    bytes: int

    def load(self) -> Any:
        with Path(self.path).open("rb") as file:
            file.seek(self.start)
            return pickle.loads(file.read(self.bytes))


class ProcessEngine:
    """`curate.decide.engine.Engine` in `width` processes. Use as a context manager; what is held is gone at its end.

    Held values lie in files of a temporary folder: this process holds their names only.

    Raises:
        CurateError: a task killed its process twice, or there is no room for what tasks exchange.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._names = count()

    def __enter__(self) -> ProcessEngine:
        self._folder = TemporaryDirectory(prefix="curate-decide-", ignore_cleanup_errors=True)
        self._all = [
            Helper("curate.decide.processes:Tasks", memory_bytes=None, name="decide") for _ in range(self.width)
        ]
        self._idle: LifoQueue[Helper] = LifoQueue()  # one that has imported what tasks need comes first
        for helper in self._all:
            self._idle.put(helper)
        self._threads = ThreadPoolExecutor(self.width)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        if exc is not None:  # what is at work is not waited for
            for pid in filter(None, (helper.pid for helper in self._all)):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._threads.shutdown(cancel_futures=True)
        for helper in self._all:
            helper.close()
        self._folder.cleanup()

    def map(self, fn: Callable[..., Any], items: Iterable[Item]) -> Iterator[Any]:
        return self._run(_call, fn, ((item,) for item in items))

    def hold(self, fn: Callable[..., Any], items: Iterable[Item]) -> list[Held]:
        return [place for [place] in self._run(_hold, fn, ((item, self._name(), False) for item in items))]

    def exchange(self, fn: Callable[..., Any], items: Iterable[Item], parts: int) -> list[list[Held]]:
        made = list(self._run(_hold, fn, ((item, self._name(), True) for item in items)))
        return [list(part) for part in zip(*made, strict=True)] or [[] for _ in range(parts)]

    def fetch(self, held: Iterable[Held]) -> Iterator[Any]:
        for place in held:
            yield place.load()

    def _name(self) -> str:
        return f"{self._folder.name}/{next(self._names)}"

    def _run(self, how: Callable[..., Any], fn: Callable[..., Any], arguments: Iterable[Item]) -> Iterator[Any]:
        """Results in order; a bounded number of tasks is at work."""
        started = (self._threads.submit(self._call, how, fn, *some) for some in arguments)
        return in_order(started, Future.result, 4 * self.width)

    def _call(self, *call: Any) -> Any:
        helper, data = self._idle.get(), pickle.dumps(call)
        try:  # a task may be done twice (law 7)
            return pickle.loads(attempt(lambda: helper.call("run", data, limit_s=LIMIT_SECONDS)))
        except Quarantined as exc:
            raise CurateError(
                f"a process of this run ended: {exc}",
                "run the same command again: what was committed is kept; fewer --workers take less memory",
            ) from None
        finally:
            self._idle.put(helper)


class Tasks:
    """What runs in a process: one call after the other."""

    RAISES = (CurateError,)

    def run(self, call: bytes) -> bytes:
        """Call a pickled `(fn, *arguments)`; its value, pickled."""
        fn, *arguments = pickle.loads(call)
        try:
            return pickle.dumps(fn(*arguments), pickle.HIGHEST_PROTOCOL)
        except OSError as exc:
            if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise CurateError(
                "no space left on the disk for what tasks exchange",
                "free some where temporary files lie (TMPDIR moves them) and run the same command again",
            ) from exc


def _call(fn: Callable[..., Any], item: Item) -> Any:
    return fn(*(argument.load() if isinstance(argument, _Place) else argument for argument in item))


def _hold(fn: Callable[..., Any], item: Item, path: str, several: bool) -> list[_Place]:
    """Put the value, or each of several, into a file."""
    value = _call(fn, item)
    places = []
    with Path(path).open("wb") as file:
        for one in value if several else [value]:
            start = file.tell()
            pickle.dump(one, file, pickle.HIGHEST_PROTOCOL)
            places.append(_Place(path, start, file.tell() - start))
    return places
