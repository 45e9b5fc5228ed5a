"""How every stage runs on Ray Data: one block a piece through its operators, a receipt a piece out of them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import ray
from ray.data import DataContext, Dataset
from ray.exceptions import RayTaskError

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
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray.data.from_items(list(rows), override_num_blocks=len(rows))


def receipts(dataset: Dataset) -> Iterator[Row]:
    """Run the pipeline; its last operator's rows as they come, in no fixed order.

    Raises:
        CurateError: what a task met that the user can mend (a full disk, a missing model).
    """
    try:
        yield from dataset.iter_rows()
    except RayTaskError as exc:
        mendable = _cause(exc)
        if mendable is not None:
            raise CurateError(mendable.message, mendable.hint) from None
        raise
    except Exception as exc:
        mendable = _cause(exc)
        if mendable is not None:
            raise CurateError(mendable.message, mendable.hint) from None
        raise


def _cause(exc: BaseException) -> CurateError | None:
    seen: list[BaseException] = []
    at: BaseException | None = exc
    while at is not None and at not in seen:
        if isinstance(at, CurateError):
            return at
        seen.append(at)
        at = getattr(at, "cause", None) or at.__cause__ or at.__context__
    return None


def ray_map(fn: Callable[..., Any], *columns: Iterable[Any]) -> list[Any]:
    """`list(map(fn, *columns))` as Ray tasks of one CPU each; results in order, however the tasks end."""
    task = ray.remote(num_cpus=1)(fn)
    return list(ray.get([task.remote(*args) for args in zip(*columns, strict=True)]))
