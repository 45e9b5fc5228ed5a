"""The first plan of a run: list -> fetch -> annotate as one Ray Data execution.

Partitions of different stages are at work together: while some are fetched, others are decoded, and others are with the
models. What the driver gets is a row a partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curate.media.decodes import Decodes
from curate.media.examine import CutHow
from curate.pipeline.annotate import Annotate, Compute, Context
from curate.pipeline.board import Board, Told
from curate.pipeline.cluster import Cluster
from curate.pipeline.decodes import add_row
from curate.pipeline.fetch import UNITS, fetch_partition, list_unit
from curate.pipeline.listing import Listing
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Paths, groups_of
from curate.pipeline.pools import FETCH_CPUS, LIST_CPUS, pools
from curate.pipeline.progress import Stage
from curate.pipeline.stream import results, rows_dataset, then
from curate.schema.recipe import Cut, Recipe, TableSource
from curate.signals.base import Signal
from curate.sources.base import Source
from curate.storage import Store
from curate.storage.bucket import reach


@dataclass(frozen=True)
class Ingested:
    """What came of the plan.

    Attributes:
        partitions: of all sources, by name, so in an order that no scheduling decides.
        records: by source, those that are more than a word on a unit that cannot be read.
        decodes: what was decoded.
    """

    partitions: list[Partition]
    records: dict[str, int]
    decodes: Decodes


def fetch_options(recipe: Recipe) -> dict[str, dict[str, object] | None]:
    """The fetch section of each source, by its name, as plain data; None where it fetches nothing from the web."""
    return {s.name: s.fetch.model_dump() if isinstance(s, TableSource) else None for s in recipe.sources}


def cut_how(cut: Cut) -> CutHow:
    """The part of the recipe's `cut` that samples depend on."""
    return CutHow(cut.shots.detector, cut.shots.threshold, cut.shots.min_frames, cut.max_seconds, cut.max_samples)


def ingest(
    build: Store,
    recipe: Recipe,
    sources: Sequence[Source],
    signals: Sequence[Signal],
    paths: Paths,
    cluster: Cluster,
    stages: Mapping[str, Stage],
) -> Ingested:
    """List, fetch, cut and annotate whatever is not committed yet; where there is no stage `annotate`, only fetch.

    Args:
        stages: `ingest` (records) and `annotate` (samples), whose progress is shown while the plan runs.
    """
    units = pa.Table.from_pylist(
        [
            {
                "source": unit.source,
                "name": unit.name,
                "address": unit.address,
                "bytes": unit.bytes,
                "detail": [(key, str(value)) for key, value in unit.detail.items()],
            }
            for source in sources
            for unit in source.units(build)
        ],
        schema=UNITS,
    )
    records = {source.name: 0 for source in sources}
    if not units.num_rows:
        return Ingested([], records, Decodes())
    board = Board()
    groups = groups_of(signals)
    on_gpu = next((i for i, g in enumerate(groups) if cluster.gpus and g.gpus), len(groups))
    here, later = groups[:on_gpu], groups[on_gpu:]
    committed = Listing.of(build, ["fetched", "records", "samples", "signals"])
    stores = reach()
    context = Context(build, paths, committed, board, stores)
    size = pools(cluster)
    plan = then(
        rows_dataset(units),
        list_unit,
        cpus=LIST_CPUS,
        build=build,
        sources={s.name: s for s in sources},
        size=recipe.partition,
        board=board,
        stores=stores,
    )
    fetch = {name: options for name, options in fetch_options(recipe).items() if options is not None}
    plan = then(
        plan,
        fetch_partition,
        cpus=FETCH_CPUS,
        build=build,
        paths=paths,
        committed=committed,
        fetch=fetch,
        board=board,
        stores=stores,
    )
    if "annotate" in stages:
        plan = then(
            plan,
            Annotate,
            cpus=size.actor_cpus,
            actors=size.actors,
            context=context,
            cut=cut_how(recipe.cut),
            here=here,
            later=later,
        )
    for i, group in enumerate(later if "annotate" in stages else []):
        share = group.gpus if cluster.gpus else 0
        plan = then(
            plan,
            Compute,
            cpus=size.actor_cpus,
            gpus=share,
            actors=size.gpu_actors(cluster, share) if share else size.actors,
            context=context,
            group=group,
            later=later[i + 1 :],
        )
    found: list[Partition] = []
    counts = Decodes()
    told = {name: Told() for name in stages}
    with board.shown(stages):
        for row in results(plan):
            partition = Partition(row["partition"], row["source"], row["rows"])
            found.append(partition)
            for name, sums in told.items():
                sums.add(row[name])
            records[partition.source] += row["rows"] - row["whole"]
            if "annotate" in stages:
                add_row(counts, row)
    for name, stage in stages.items():
        told[name].end(stage)
    return Ingested(sorted(found, key=lambda p: p.name), records, counts)
