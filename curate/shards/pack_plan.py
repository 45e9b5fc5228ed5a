"""Which task packs which shards, from counts alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from curate.schema.recipe import Pack
from curate.shards.memory import Ints

MOST_ROWS = 250_000
"""Rows that one task gathers, about, whatever the number of tasks that was asked for."""


@dataclass(frozen=True)
class PackTask:
    """A range of whole shards.

    Attributes:
        order: as in the recipe.
        shares: the recipe's splits.
        shards: shards of each split in the whole build.
        mine: the range of them that this task writes.
        shard_samples: rows of each shard where the order is that of partitions.
        partitions: the range of partitions that may hold its rows.
        before: rows of each split in the partitions before that range.
        rows: of each split in the whole build.
        compression: as in the recipe.
    """

    order: Literal["hash", "partition"]
    shares: Mapping[str, float]
    shards: Mapping[str, int]
    mine: Mapping[str, range]
    shard_samples: int
    partitions: range
    before: Mapping[str, int]
    rows: Mapping[str, int]
    compression: Literal["none", "zstd"] = "none"


def plan_pack(
    counts: Sequence[Mapping[str, int]], pack: Pack, tasks: int = 1, most_rows: int = MOST_ROWS
) -> list[PackTask]:
    """Plan the shards of a build. The shards do not depend on how many tasks write them.

    With `order: hash` a split has ceil(rows / shard_samples) ranges of keys, so its shards hold about `shard_samples`
    rows; one whose range no row falls into is not written. With `order: partition` each holds exactly so many, but the
    last one of a split.

    Args:
        counts: of each partition, in order, its rows of each split (`count_kept`).
        tasks: how many there should be, at least; fewer where there are fewer shards.
        most_rows: rows of one task, about; a single shard may hold more.
    """
    names = sorted(pack.splits)
    of = np.array([[c.get(name, 0) for name in names] for c in counts], np.int64).reshape(-1, len(names))
    ends = np.concatenate((np.zeros((1, len(names)), np.int64), np.cumsum(of, axis=0)))
    rows = dict(zip(names, ends[-1].tolist(), strict=True))
    shards = {name: -(-rows[name] // pack.shard_samples) for name in names}
    parts = min(max(tasks, -(-sum(rows.values()) // most_rows), 1), max(shards.values()))
    plans = []
    for i in range(parts):
        mine = {name: range(i * shards[name] // parts, (i + 1) * shards[name] // parts) for name in names}
        if not any(mine.values()):
            continue
        partitions = range(len(counts))
        if pack.order == "partition":
            partitions = _holding(ends, [mine[name] for name in names], pack.shard_samples)
        before = dict(zip(names, ends[partitions.start].tolist(), strict=True))
        plans.append(
            PackTask(
                pack.order,
                pack.splits,
                shards,
                mine,
                pack.shard_samples,
                partitions,
                before,
                rows,
                pack.compression,
            )
        )
    return plans


def _holding(ends: Ints, mine: Sequence[range], size: int) -> range:
    """The partitions that hold rows of the shards `mine`, one range a split, by rows before each partition."""
    first, stop = len(ends) - 1, 0
    for column, shards in enumerate(mine):
        if shards:
            to = ends[:, column]
            first = min(first, int(np.searchsorted(to, shards.start * size, side="right")) - 1)
            stop = max(stop, int(np.searchsorted(to, min(shards.stop * size, int(to[-1])), side="left")))
    return range(first, stop)
