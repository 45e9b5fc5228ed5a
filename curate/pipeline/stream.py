"""How stages run on Ray Data: one row a partition through every operator of a plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, Dataset

from curate.pipeline.cluster import resources
from curate.schema.errors import CurateError

Row = dict[str, Any]

MOST_BLOCKS = 4096
"""Blocks that a plan begins with; each holds a row or more."""


def rows_dataset(table: pa.Table) -> Dataset:
    """A Ray Data set of work, one row a unit or partition."""
    step = -(-table.num_rows // MOST_BLOCKS)
    return ray.data.from_arrow([table.slice(at, step) for at in range(0, table.num_rows, step)])


def then(
    dataset: Dataset,
    fn: Any,
    *,
    cpus: float,
    gpus: float = 0,
    actors: tuple[int, int] | None = None,
    **given: Any,
) -> Dataset:
    """The plan with one more operator, which sees one row at a time as an Arrow table.

    What is committed is a whole partition, and the batch that a model sees follows from the partition (law 6): so a
    partition is a row, and it does not matter how Ray splits or merges blocks.

    Args:
        fn: a function, which runs as stateless tasks, or a class, which runs as a pool of actors.
        cpus, gpus: what Ray reserves for one task or actor.
        actors: fewest and most actors of the pool; Ray starts more while there is work and room, on nodes that join
            later too.
        given: further arguments of the function, or of the class's constructor.
    """
    more: dict[str, Any] = {"fn_kwargs": given}
    if isinstance(fn, type):
        assert actors is not None
        more = {
            "fn_constructor_kwargs": given,
            "compute": ActorPoolStrategy(min_size=actors[0], max_size=actors[1]),
        }
    return dataset.map_batches(fn, batch_size=1, batch_format="pyarrow", num_cpus=cpus, num_gpus=gpus or None, **more)


def results(dataset: Dataset) -> Iterator[Row]:
    """Run the plan; its last operator's rows as they come, in no fixed order.

    Raises:
        CurateError: what a task met that the user can mend (a full disk, a missing model).
    """
    context = dataset.context  # of this data set alone
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # a row a block: partitions of one unit are worked on side by side, whatever they weigh
    context.target_max_block_size = 1
    try:
        yield from dataset.iter_rows()
    except Exception as exc:
        mendable = _cause(exc)
        if mendable is not None:
            raise CurateError(mendable.message, mendable.hint) from None
        raise


def _cause(exc: BaseException) -> CurateError | None:
    """The CurateError that a worker raised, through whatever Ray wraps it in."""
    seen: list[BaseException] = []
    at: BaseException | None = exc
    while at is not None and at not in seen:
        if isinstance(at, CurateError):
            return at
        seen.append(at)
        at = getattr(at, "cause", None) or at.__cause__ or at.__context__
    # an actor that dies while it loads a model reports only the text of its traceback
    _, found, said = str(exc).rpartition(f"{CurateError.__module__}.{CurateError.__name__}: ")
    return CurateError(*said.strip().split("\n  ", 1)) if found else None


def ray_map(fn: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`map(fn, items)` as Ray tasks of one CPU each. Results come in order; few items are on their way at a time."""
    task = ray.remote(num_cpus=1)(_call)
    at_once = 2 * max(1, int(resources().get("CPU", 1)))
    shared = ray.put(fn)
    waiting: deque[Any] = deque()
    try:
        for item in items:
            waiting.append(task.remote(shared, item))
            if len(waiting) >= at_once:
                yield ray.get(waiting.popleft())
        while waiting:
            yield ray.get(waiting.popleft())
    except Exception as exc:
        mendable = _cause(exc)
        if mendable is not None:
            raise CurateError(mendable.message, mendable.hint) from None
        raise


def _call(fn: Callable[[Any], Any], item: Any) -> Any:
    return fn(item)
