"""Pack: survivors' tokens into shards in final order, one Ray Data block a shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pyarrow as pa

from curate.pipeline.pieces import KEY_HEX
from curate.pipeline.progress import Stage
from curate.pipeline.stream import pieces_dataset, receipts, then
from curate.pipeline.whereabouts import tells
from curate.schema.ids import digest_of_rows
from curate.shards.order import ShardPlan
from curate.shards.pack import write_shard
from curate.shards.pieces import Place
from curate.storage import Store


def named(plan: ShardPlan, places: Mapping[str, Place]) -> ShardPlan:
    """The plan with the digest of the shard's rows in its file name.

    Pieces are named by their content, so a shard that is there is right, and shards of an earlier recipe stay as their
    manifest says until the new one is committed.
    """
    rows = [f"{s} {places[s][0]} {places[s][1]}" for s in plan.sample_ids]
    stem = plan.path.removesuffix(".arrow")
    return replace(plan, path=f"{stem}-{digest_of_rows(rows)[:KEY_HEX]}.arrow")


def pack(build: Store, plans: Sequence[ShardPlan], places: Mapping[str, Place], stage: Stage) -> None:
    """Write the shards that are not committed yet."""
    there = build.existing(plan.path for plan in plans)
    rows = [
        {
            "piece": plan.path,
            "split": plan.split,
            "path": plan.path,
            "rows": json.dumps([[s, places[s][0], places[s][1]] for s in plan.sample_ids]),
        }
        for plan in plans
        if plan.path not in there
    ]
    if not rows:
        return
    dataset = then(pieces_dataset(rows), pack_shard, cpus=1, build=build)
    for receipt in receipts(dataset):
        stage.add(receipt["rows"])


@tells("pack")
def pack_shard(block: pa.Table, build: Store) -> pa.Table:
    """One shard, written; the answer is its receipt."""
    item = block.to_pylist()[0]
    rows = json.loads(item["rows"])
    plan = ShardPlan(item["split"], item["path"], tuple(sample for sample, _, _ in rows))
    file = write_shard(plan, {sample: (piece, row) for sample, piece, row in rows}, build)
    return pa.table({"rows": [file.rows]})
