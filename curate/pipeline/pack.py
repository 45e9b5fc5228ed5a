"""Pack: kept samples' tokens into shards in final order, a range of the order's keys a task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from curate.schema.manifest import Split
from curate.schema.recipe import Recipe
from curate.shards.pack import ShardResult, Tokenized, count_kept, pack_range, plan_pack, splits_of
from curate.shards.schema import StreamSpec
from curate.storage import Store

if TYPE_CHECKING:  # processes that do its tasks import this file
    from curate.pipeline.cluster import Cluster
    from curate.pipeline.progress import Stage

COUNTED = 64
"""Partitions that one task counts."""

TASKS_A_CPU = 2
"""Ranges a CPU, so that the last ones do not leave most of them idle."""


def pack(
    build: Store,
    recipe: Recipe,
    partitions: Sequence[Tokenized],
    specs: Sequence[StreamSpec],
    cluster: Cluster,
    stage: Stage,
) -> tuple[list[ShardResult], list[Split]]:
    """Write the shards that are not there; all of them, and the manifest's splits."""
    engine, splits = cluster.engine(), dict(recipe.pack.splits)
    groups = [(build, partitions[at : at + COUNTED], recipe.seed, splits) for at in range(0, len(partitions), COUNTED)]
    counts = [count for some in engine.map(_count_group, groups) for count in some]
    stage.expect(sum(n for count in counts for n in count.values()))
    tasks = plan_pack(counts, recipe.pack, TASKS_A_CPU * engine.width)
    [shared] = engine.hold(list, [(list(partitions),)])
    done: list[ShardResult] = []
    for some in engine.map(pack_range, ((build, shared, task, list(specs), recipe.seed) for task in tasks)):
        done += some
        stage.add(sum(shard.rows for shard in some))
    return done, splits_of(list(recipe.pack.splits), tasks, done)


def _count_group(build: Store, some: Sequence[Tokenized], seed: int, splits: dict[str, float]) -> list[dict[str, int]]:
    return [count_kept(build, one, seed, splits) for one in some]
