"""Where tasks of `decide` run: in this process, or on a cluster (`curate.pipeline.engine`).

A task is `fn(*item)`. Its result is either small and comes back (`map`), or is *held*: it stays where it was made, and
stands for itself as an argument of later tasks. So whoever directs the tasks never holds a table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Item = tuple[Any, ...]
"""Arguments of a task; those that are held are there as their values when it runs."""

Held = Any
"""A result that is not here."""


class Engine(Protocol):
    """Runs picklable functions. What comes out never depends on how many run at once."""

    @property
    def width(self) -> int:
        """How many tasks run at once."""

    def map(self, fn: Callable[..., Any], items: Iterable[Item]) -> Iterator[Any]:
        """Small results, in the order of the items; a bounded number of tasks is at work."""

    def hold(self, fn: Callable[..., Any], items: Iterable[Item]) -> list[Held]:
        """Results that stay where they are, one an item."""

    def exchange(self, fn: Callable[..., Any], items: Iterable[Item], parts: int) -> list[list[Held]]:
        """All to all: `fn` gives `parts` values for each item; the answer has each part's values of all items in order.

        The parts of one item usually go to different tasks: `[(part, *values) for part, values in enumerate(answer)]`
        are the items of the next step.
        """

    def fetch(self, held: Iterable[Held]) -> Iterator[Any]:
        """Small held values, in order."""


@dataclass(frozen=True)
class _Here:
    value: Any


class LocalEngine:
    """One task after the other, in this process; held values stay in its memory. For tests and small inputs."""

    width: int = 1

    def map(self, fn: Callable[..., Any], items: Iterable[Item]) -> Iterator[Any]:
        for item in items:
            yield fn(*(argument.value if isinstance(argument, _Here) else argument for argument in item))

    def hold(self, fn: Callable[..., Any], items: Iterable[Item]) -> list[Held]:
        return [_Here(value) for value in self.map(fn, items)]

    def exchange(self, fn: Callable[..., Any], items: Iterable[Item], parts: int) -> list[list[Held]]:
        out: list[list[Held]] = [[] for _ in range(parts)]
        for values in self.map(fn, items):
            for part, value in zip(out, values, strict=True):
                part.append(_Here(value))
        return out

    def fetch(self, held: Iterable[Held]) -> Iterator[Any]:
        return (one.value for one in held)


def in_order(started: Iterable[T], result: Callable[[T], Any], most: int) -> Iterator[Any]:
    """Results of tasks, in the order in which they were started.

    Args:
        started: each step starts a task.
        result: waits for a task and gives what it gave.
        most: tasks at work at once.
    """
    waiting: deque[T] = deque()
    for task in started:
        waiting.append(task)
        if len(waiting) >= most:
            yield result(waiting.popleft())
    while waiting:  # one that was given is let go
        yield result(waiting.popleft())
