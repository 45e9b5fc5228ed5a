"""Tasks as Ray tasks: tables stay in the object store, the driver holds references only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import ray

from curate.decide.engine import Held, Item, in_order
from curate.pipeline.user_errors import user_errors


class RayEngine:
    """`curate.decide.engine.Engine` on the connected cluster; tasks take one CPU each.

    What a lost node held is made again from the tasks that made it.

    Args:
        width: CPUs of the cluster.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._at_once = 4 * width

    def map(self, fn: Callable[..., Any], items: Iterable[Item]) -> Iterator[Any]:
        task = _task(fn, 1)
        with user_errors():
            yield from in_order((task(*item) for item in items), ray.get, self._at_once)

    def hold(self, fn: Callable[..., Any], items: Iterable[Item]) -> list[Held]:
        return self._bounded(_task(fn, 1), items)

    def exchange(self, fn: Callable[..., Any], items: Iterable[Item], parts: int) -> list[list[Held]]:
        made = self._bounded(_task(fn, parts, several=True), items)
        return [made] if parts == 1 else [list(part) for part in zip(*made, strict=True)] or [[] for _ in range(parts)]

    def fetch(self, held: Iterable[Held]) -> Iterator[Any]:
        with user_errors():
            for one in held:
                yield ray.get(one)

    def _bounded(self, task: Callable[..., Any], items: Iterable[Item]) -> list[Any]:
        """All tasks' references, once all but a few are done."""
        made: list[Any] = []
        pending: list[Any] = []
        for item in items:
            made.append(task(*item))
            pending.append(made[-1][0] if isinstance(made[-1], list) else made[-1])
            if len(pending) >= self._at_once:
                _, pending = ray.wait(pending, num_returns=1, fetch_local=False)
        return made


def _task(fn: Callable[..., Any], returns: int, several: bool = False) -> Callable[..., Any]:
    """Starts `fn` on an item; `several`: it gives `returns` values, though that may be one."""
    shared = ray.put(fn)
    task = _call.options(num_returns=returns)

    def start(*arguments: Any) -> Any:
        return task.remote(shared, several, *arguments)

    return start


@ray.remote(num_cpus=1)
def _call(fn: Callable[..., Any], several: bool, *arguments: Any) -> Any:
    values = fn(*arguments)
    if not several:
        return values
    return tuple(values) if len(values) > 1 else values[0]
