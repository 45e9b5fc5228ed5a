"""How stages run on Ray Data: one row a partition through every operator of a plan."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from curate.pipeline.placement import Pool
from curate.pipeline.user_errors import user_errors

if TYPE_CHECKING:  # takes two seconds, and what is finished needs no plan; so it is imported while Ray starts
    from ray.data import Dataset

Row = dict[str, Any]

MOST_BLOCKS = 4096
"""Blocks that a plan begins with; each holds a row or more."""

FEW_SAMPLES = 32
"""Partitions of fewer samples share a task: between two tasks a worker waits for Ray Data, for a tenth of a second."""

TASKS_A_WORKER = 4
"""At least so many there are for each worker, where there are so many partitions: so workers end at about one time."""


def from_rows(table: pa.Table, samples: Sequence[int] = (), workers: int = 1) -> Dataset:
    """A Ray Data set of work, one row a unit or partition. Its blocks are described here; `from_arrow` has a task a
    block do that.

    Args:
        samples: to be worked on, of each row, where that is known.
        workers: most that work on them at once.
    """
    from ray.data import from_blocks

    step = -(-table.num_rows // MOST_BLOCKS)
    few = min(FEW_SAMPLES, sum(samples) // (TASKS_A_WORKER * workers))
    starts, held = [0], 0
    for i, count in enumerate(samples or [0] * table.num_rows):
        if held >= few and i - starts[-1] >= step:
            starts.append(i)
            held = 0
        held += count
    blocks: Dataset = from_blocks([table.slice(a, b - a) for a, b in pairwise([*starts, table.num_rows])])
    return blocks


def map_stage(
    dataset: Dataset,
    fn: Any,
    *,
    cpus: float,
    gpus: float = 0,
    memory: int = 0,
    actors: tuple[int, int] | None = None,
    tasks: int | None = None,
    **given: Any,
) -> Dataset:
    """The plan with one more operator, which sees one row at a time as an Arrow table.

    What is committed is a whole partition, and the batch that a model sees follows from the partition (law 6): so a
    partition is a row, and it does not matter how Ray splits or merges blocks.

    Args:
        fn: a function, which runs as stateless tasks, or a class, which runs as a pool of actors.
        cpus, gpus, memory: what Ray reserves for one task or actor; memory in bytes.
        actors: fewest and most actors of the pool; Ray starts more while there is work and room, on nodes that join
            later too.
        tasks: most tasks at once; None: as many as there is room for.
        given: further arguments of the function, or of the class's constructor.
    """
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    more: dict[str, Any] = {"fn_kwargs": given, "compute": TaskPoolStrategy(tasks)}
    if isinstance(fn, type):
        assert actors is not None
        more = {
            "fn_constructor_kwargs": given,
            # one that waits on a GPU's actor hides the transfer of its views; on a CPU's it would keep another from it
            "compute": ActorPoolStrategy(
                min_size=actors[0], max_size=actors[1], max_tasks_in_flight_per_actor=2 if gpus else 1
            ),
        }
    more |= {"num_cpus": cpus, "num_gpus": gpus or None, "memory": memory or None}
    return dataset.map_batches(fn, batch_size=1, batch_format="pyarrow", **more)


def stage_of(dataset: Dataset, pool: Pool, fn: type, **given: Any) -> Dataset:
    """The plan with one more operator: the workers of a pool, each made of `fn` with `given`.

    Where they hold no network they are tasks: any process of the cluster does one after the other, of every stage,
    while actors need a process each, for this plan alone (1.3 s of a CPU to begin with).
    """
    if pool.on:
        return map_stage(dataset, fn, cpus=pool.cpus, gpus=pool.gpus, memory=pool.memory, actors=pool.workers, **given)
    return map_stage(dataset, _task_of(fn), cpus=pool.cpus, tasks=pool.workers[1], **given)


def _task_of(fn: type) -> Callable[..., pa.Table]:
    """A function that does what a worker does, by its name in Ray's dashboard."""

    def task(block: pa.Table, **given: Any) -> pa.Table:
        return fn(**given)(block)

    task.__name__ = task.__qualname__ = fn.__name__
    return task


def execute(dataset: Dataset) -> Iterator[Row]:
    """Run the plan; its last operator's rows as they come, in no fixed order.

    Raises:
        CurateError: what a task met that the user can mend (a full disk, a missing model).
    """
    context = dataset.context  # of this data set alone
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # a row a block: partitions of one unit are worked on side by side, whatever they weigh
    context.target_max_block_size = 1
    # an actor more as soon as all are busy and a partition waits: it takes seconds, an actor's start less than one
    context.autoscaling_config.actor_pool_util_upscaling_threshold = 1.0
    # of plans with fewer partitions than workers, which nobody has to do anything about
    warnings.filterwarnings("ignore", "The (minimum|maximum) number of concurrent (actors|tasks)", UserWarning)
    with user_errors():
        yield from dataset.iter_rows()
