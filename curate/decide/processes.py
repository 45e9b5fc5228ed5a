"""Tasks in processes of this machine, where no cluster is at work: a moved threshold needs no Ray."""

from __future__ import annotations

import errno
import os
import pickle
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context, parent_process
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

from curate.decide.engine import Held, Item
from curate.schema.errors import CurateError


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
        CurateError: a process was killed, or there is no room for what tasks exchange.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._names = count()

    def __enter__(self) -> ProcessEngine:
        self._folder = TemporaryDirectory(prefix="curate-decide-", ignore_cleanup_errors=True)
        # not forked: this process has threads
        self._pool = ProcessPoolExecutor(self.width, get_context("spawn"), _end_with_parent)
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        self._pool.shutdown(cancel_futures=True)
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
        waiting: deque[Future[Any]] = deque()
        with _user_errors():
            for some in arguments:
                waiting.append(self._pool.submit(how, fn, *some))
                if len(waiting) >= 4 * self.width:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def _end_with_parent() -> None:
    """End this process as soon as the one that started it is gone, were it killed."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


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


@contextmanager
def _user_errors() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise CurateError(
            "a process that decides was killed, perhaps for want of memory",
            "run the same command again: what was committed is kept; fewer --workers take less memory",
        ) from None
    except OSError as exc:
        if exc.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise CurateError(
            "no space left on the disk for what tasks exchange",
            "free some where temporary files lie (TMPDIR moves them) and run the same command again",
        ) from exc
