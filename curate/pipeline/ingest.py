"""The first plan of a run: list -> fetch -> annotate as one Ray Data execution.

Partitions of different stages are at work together: while some are fetched, others are decoded, and others are with the
models. What the driver gets is a row a partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from curate.media.decodes import Decodes
from curate.media.examine import CutHow
from curate.pipeline.annotate import Annotate, Compute, Context
from curate.pipeline.board import Tally
from curate.pipeline.cluster import Cluster
from curate.pipeline.decodes import decodes_of
from curate.pipeline.failed_sources import leading_units
from curate.pipeline.fetch import UNITS, fetch_partition, list_unit
from curate.pipeline.listing import Listing
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Group, Paths
from curate.pipeline.placement import FETCH_CPUS, LIST_CPUS, models_of, pools_of
from curate.pipeline.progress import Stage
from curate.pipeline.ray_data import execute, from_rows, map_stage, stage_of
from curate.pipeline.read_log import Read, ReadLog
from curate.pipeline.rows import LEADS
from curate.pipeline.spent import Spent, add_spent
from curate.pipeline.trial import Drawn
from curate.schema.errors import CurateError
from curate.schema.manifest import File
from curate.schema.recipe import Compute as Asked
from curate.schema.recipe import Cut, PluginSource, Recipe, TableSource
from curate.sources.base import Source, Unit
from curate.storage import Store
from curate.storage.bucket import endpoint_env


@dataclass(frozen=True)
class Ingested:
    """What came of the plan.

    Attributes:
        partitions: of all sources, by name, so in an order that no scheduling decides.
        records: by source, those that are more than a word on a unit that cannot be read.
        decodes: what was decoded.
        files: those whose digests are known.
        was_read: True if a unit was read in this run, False if all are as an earlier one left them.
        spent: where the time of its tasks went.
    """

    partitions: list[Partition]
    records: dict[str, int]
    decodes: Decodes
    files: list[File]
    was_read: bool
    spent: Spent


def fetch_options(recipe: Recipe) -> dict[str, dict[str, object] | None]:
    """The fetch section of each source, by its name, as plain data; None where it fetches nothing from the web."""
    fetched = TableSource | PluginSource
    return {s.name: s.fetch.model_dump() if isinstance(s, fetched) else None for s in recipe.sources}


def requests_at_once(recipe: Recipe) -> dict[str, int]:
    """Requests that a partition of each source makes at once, by its name; of sources that fetch from the web."""
    return {s.name: s.fetch.concurrency for s in recipe.sources if isinstance(s, TableSource | PluginSource)}


def cut_how(cut: Cut) -> CutHow:
    """The part of the recipe's `cut` that samples depend on."""
    return CutHow(cut.shots.detector, cut.shots.threshold, cut.shots.min_frames, cut.max_seconds, cut.max_samples)


def ingest(
    build: Store,
    recipe: Recipe,
    sources: Sequence[Source],
    groups: Sequence[Group],
    paths: Paths,
    cluster: Cluster,
    stages: Mapping[str, Stage],
    computes: Mapping[str, Asked],
    before: Callable[[Sequence[Unit]], None],
) -> Ingested:
    """List, fetch, cut and annotate whatever is not committed yet; where there is no stage `annotate`, only fetch.

    Args:
        groups: of signals that are computed of all samples, with the devices that they run on.
        computes: by signal what the recipe says of its pool.
        stages: `ingest` (records) and `annotate` (samples), whose progress is shown while the plan runs.
        before: is told the units that are to be read, before any is.
    """
    by_name = {source.name: source for source in sources}
    folders = ["fetched", "records", "samples", *(f"signals/{g.name}" for g in groups)]
    there = {stat.path for folder in folders for stat in build.files(folder)}
    records = {source.name: 0 for source in sources}
    told = {name: Tally() for name in stages}
    known = ReadLog(build, by_name, recipe.partition)
    found: list[Read] = []
    units: list[Unit] = []
    for unit in listed_units(build, sources):
        as_before = known.unchanged(
            unit, lambda partition: there.issuperset(paths.tables(partition.name, partition.source))
        )
        found += as_before
        if not as_before:
            units.append(unit)
    for one in found:
        rows = one.partition.rows
        told["ingest"].add({"total": rows, "reused": rows})
        if "annotate" in told:
            told["annotate"].add({"total": one.samples, "reused": one.samples})
    counts, spent = Decodes(), Spent()
    if units:
        before(units)
        known_sources = {one.partition.source for one in found} if recipe.max_failed < 1 else set(by_name)
        leading = leading_units(units, known_sources, [s.name for s in sources if isinstance(s, Drawn)])
        found += _read(
            build, recipe, by_name, leading, groups, paths, there, cluster, stages, computes, told, counts, spent
        )
    for name, stage in stages.items():
        told[name].end(stage)
    for one in found:
        records[one.partition.source] += one.partition.rows - one.whole
    if "annotate" in stages:
        known.write(found)
    partitions = sorted((one.partition for one in found), key=lambda p: p.name)
    return Ingested(partitions, records, counts, [file for one in found for file in one.files], bool(units), spent)


def listed_units(build: Store, sources: Sequence[Source]) -> Iterator[Unit]:
    """Units of all sources, in order.

    Raises:
        CurateError: a source cannot be listed; of another's class whatever it raises.
    """
    for source in sources:
        try:
            yield from source.units(build)
        except CurateError:
            raise
        except Exception as exc:
            raise CurateError(
                f"source {source.name!r} cannot be listed: {type(exc).__name__}: {exc}",
                f"see {type(source).__module__}:{type(source).__qualname__}.units, and what is at {source.address}",
            ) from exc


def _read(
    build: Store,
    recipe: Recipe,
    sources: Mapping[str, Source],
    units: Sequence[tuple[Unit, str | None]],
    groups: Sequence[Group],
    paths: Paths,
    there: Iterable[str],
    cluster: Cluster,
    stages: Mapping[str, Stage],
    computes: Mapping[str, Asked],
    told: Mapping[str, Tally],
    counts: Decodes,
    spent: Spent,
) -> list[Read]:
    """Run the plan over some units, each with what it is to its source; what it says of the stages, of decodes and of
    time is added to `told`, `counts` and `spent`."""
    table = pa.Table.from_pylist(
        [
            {
                "source": unit.source,
                "name": unit.name,
                "address": unit.address,
                "bytes": unit.bytes,
                "detail": [(key, str(value)) for key, value in unit.detail.items()],
                LEADS.name: leads,
            }
            for unit, leads in units
        ],
        schema=UNITS.append(LEADS),
    )
    board = cluster.board()
    for name, sums in told.items():  # what was read before is shown too
        board.add(name, total=sums.total, reused=sums.reused, before=sums.total)
    board.add("ingest", parts=len(units))
    by_group = {group.name: group for group in groups}
    models = models_of(groups, computes)
    decoders, *behind = pools_of("annotate", models, cluster.capacity, beside=LIST_CPUS + FETCH_CPUS)
    here, later = ([by_group[name] for pool in some for name in pool.names] for some in ([decoders], behind))
    committed = Listing(there)
    stores = endpoint_env()
    context = Context(build, paths, committed, board, stores)
    plan = map_stage(
        from_rows(table),
        list_unit,
        cpus=LIST_CPUS,
        build=build,
        sources=sources,
        size=recipe.partition,
        board=board,
        stores=stores,
    )
    fetch = {name: options for name, options in fetch_options(recipe).items() if options is not None}
    plan = map_stage(
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
        plan = stage_of(plan, decoders, Annotate, context=context, cut=cut_how(recipe.cut), here=here, later=later)
        for i, (pool, group) in enumerate(zip(behind, later, strict=True)):
            before = [*here, *later[:i]]
            plan = stage_of(plan, pool, Compute, context=context, before=before, group=group, later=later[i + 1 :])
    found = []
    with board.shown(stages):
        for row in execute(plan):
            partition = Partition(row["partition"], row["source"], row["rows"])
            samples = row["annotate"]["total"] if "annotate" in stages else 0
            files = tuple(File(**file) for file in row["files"])
            found.append(Read(partition, row["unit"], row["whole"], samples, files))
            for name, sums in told.items():
                sums.add(row[name])
            if "annotate" in stages:
                counts.add(decodes_of(row["decodes"]))
    add_spent(spent, board)
    return found
