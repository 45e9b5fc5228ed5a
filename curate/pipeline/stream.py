"""How every stage runs on Ray Data: one block a piece through its operators, a receipt a piece out of them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray
from ray.data import DataContext, Dataset

from curate.pipeline.cluster import resources
from curate.schema.errors import CurateError

Row = dict[str, Any]


def pieces_dataset(rows: Sequence[Row]) -> Dataset:
    """A Ray Data set of work items, one block each, so that a block stays a piece through every operator.

    Blocks must not be split or merged on the way: what is committed is a whole piece, and the batch that a model sees
    follows from the piece (law 6). So the size limit at which Ray splits blocks is lifted; the size of a piece is the
    recipe's `partition`.
    """
    context = DataContext.get_current()
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray.data", "ray.data._internal"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what it logs is raised too
    return ray.data.from_items(list(rows), override_num_blocks=len(rows))


def then(
    dataset: Dataset, fn: Any, *, cpus: float, gpus: float = 0, actors: int | None = None, **given: Any
) -> Dataset:
    """The pipeline with one more operator, which sees a whole piece at a time as an Arrow table.

    Args:
        fn: a function, which runs as stateless tasks, or a class, which runs as `actors` actors.
        cpus, gpus: what Ray reserves for one task or actor.
        given: further arguments of the function, or of the class's constructor.
    """
    if isinstance(fn, type):
        more: dict[str, Any] = {"concurrency": actors, "fn_constructor_kwargs": given}
    else:
        more = {"fn_kwargs": given}
    return dataset.map_batches(
        fn, batch_size=None, batch_format="pyarrow", num_cpus=cpus, num_gpus=gpus or None, **more
    )


def receipts(dataset: Dataset) -> Iterator[Row]:
    """Run the pipeline; its last operator's rows as they come, in no fixed order.

    Raises:
        CurateError: what a task met that the user can mend (a full disk, a missing model).
    """
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
    for item in items:
        waiting.append(task.remote(shared, item))
        if len(waiting) >= at_once:
            yield ray.get(waiting.popleft())
    while waiting:
        yield ray.get(waiting.popleft())


def _call(fn: Callable[[Any], Any], item: Any) -> Any:
    return fn(item)
