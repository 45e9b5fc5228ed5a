"""Pack: kept samples' tokens into shards in final order, a range of the order's keys a task."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import ray

from curate.pipeline.cluster import Cluster
from curate.pipeline.progress import Stage
from curate.pipeline.stream import ray_map
from curate.schema.manifest import Split
from curate.schema.recipe import Recipe
from curate.shards.pack import PackTask, ShardResult, Tokenized, count_kept, pack_range, plan_pack, splits_of
from curate.shards.schema import StreamSpec
from curate.storage import Store

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
    counting = partial(_counted, build, recipe.seed, dict(recipe.pack.splits))
    groups = [partitions[at : at + COUNTED] for at in range(0, len(partitions), COUNTED)]
    counts = [count for some in ray_map(counting, groups) for count in some]
    stage.expect(sum(n for count in counts for n in count.values()))
    tasks = plan_pack(counts, recipe.pack, TASKS_A_CPU * cluster.cpus)
    shared = ray.put(list(partitions))
    done: list[ShardResult] = []
    for some in ray_map(partial(_packed, build, shared, list(specs), recipe.seed), tasks):
        done += some
        stage.add(sum(shard.rows for shard in some))
    return done, splits_of(list(recipe.pack.splits), tasks, done)


def _counted(build: Store, seed: int, splits: dict[str, float], some: Sequence[Tokenized]) -> list[dict[str, int]]:
    return [count_kept(build, one, seed, splits) for one in some]


def _packed(build: Store, shared: Any, specs: Sequence[StreamSpec], seed: int, task: PackTask) -> list[ShardResult]:
    return pack_range(build, ray.get(shared), task, specs, seed)
