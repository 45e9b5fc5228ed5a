"""A run: two plans and the decisions between them, each skipping what is committed, then one manifest (law 7).

    list -> fetch -> annotate | decide | look, decide | tokenize | pack | card | manifest

Killed anywhere, the same command goes on from the committed fragments and ends with the bytes of an undisturbed run.
The driver holds a few hundred bytes a partition, and nothing of a sample (law 12).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from curate.decide.causes import outcomes_of
from curate.media.decodes import Decodes
from curate.pipeline.annotate import Context
from curate.pipeline.board import Tally
from curate.pipeline.calls import counted
from curate.pipeline.cluster import Cluster
from curate.pipeline.decisions import Decisions
from curate.pipeline.decodes import decodes_of
from curate.pipeline.failed_sources import FEWEST
from curate.pipeline.finish import Made, finish
from curate.pipeline.finish_tasks import CardWriter
from curate.pipeline.ingest import Ingested, fetch_options, ingest
from curate.pipeline.kept import is_tokenized
from curate.pipeline.listing import Listing
from curate.pipeline.pace import SAMPLES, pace_of
from curate.pipeline.pack import pack
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Paths, groups_of
from curate.pipeline.placement import Pool
from curate.pipeline.plan import Plan, pools, settle
from curate.pipeline.preflight import Preflight
from curate.pipeline.progress import Stage, together
from curate.pipeline.read_log import READ_LOG
from curate.pipeline.retry import reset_failures
from curate.pipeline.run_context import RunContext
from curate.pipeline.spent import Spent, add_spent
from curate.pipeline.token_log import TOKEN_LOG, TokenLog
from curate.pipeline.tokenize import Work, tokenize
from curate.pipeline.trial import NOTES, trial_of
from curate.pipeline.unchanged import finished
from curate.schema.errors import CurateError
from curate.schema.events import Forecast, Outcomes
from curate.schema.manifest import MANIFEST, Manifest
from curate.schema.verdict import Outcome
from curate.shards.pack import Tokenized
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry
from curate.storage import Store
from curate.storage.bucket import endpoint_env
from curate.storage.tables import read_table


@dataclass(frozen=True)
class Result:
    """What a run ended with.

    Attributes:
        decodes: what was decoded.
        manifest: of the finished build; None where the run was to end before.
        outcomes: what was decided, where the run was to end then.
        spent: where the time of tasks went, by stage and source.
        columns_s: seconds of the stages that read columns alone and have no such tasks: decide, pack.
        pools: workers of its plans.
        forecast: of the whole, where the build is a trial.
    """

    decodes: Decodes
    manifest: Manifest | None = None
    outcomes: Sequence[Outcomes] = ()
    spent: Spent = field(default_factory=dict)
    columns_s: float = 0.0
    pools: Sequence[Pool] = ()
    forecast: Forecast | None = None


def run(
    plan: Plan,
    sources: Sequence[Source],
    build: Store,
    cluster: Cluster,
    console: Console,
    write_card: CardWriter,
    *,
    retry_failed: bool = False,
    until: str | None = None,
) -> Result:
    """Make the build, or go on with it.

    Args:
        plan: the checked recipe.
        sources: of the recipe (`plan.open_sources`).
        build: where the build goes; made where it is not there.
        cluster: what to run on.
        console: where progress goes.
        write_card: makes the card of the finished tables.
        retry_failed: forget failures of an earlier run first, so that they are tried again.
        until: `ingest`, `decide` or `look`: end there, with what was committed; the same run without it goes on.
            `decide` is before the second look, `look` after it and the decisions that follow.

    Raises:
        CurateError: no space, another run on the same build, a source without records, nothing kept.
    """
    plan = settle(plan, cluster.capacity)
    workers = pools(plan, cluster.capacity)  # what does not fit on the cluster is refused before any work
    recipe = plan.file.recipe
    decodes = Decodes()
    with build.acquire(MANIFEST) as lease:
        if lease.warning:
            console.print(f"warning    {lease.warning}")
        if retry_failed:
            readers = [stream.use.name for stream in plan.streams if stream.field is not None]
            again = reset_failures(build, lease, cluster.engine(), plan.groups, readers)
            console.print("retry      " + ", ".join(f"{n} failed in {name}" for name, n in again.items()))
        paths = Paths.of(fetch_options(recipe), recipe.cut, plan.signals, recipe.media.reader, plan.kept)
        preflight = Preflight(plan, build, cluster.address is None, lambda said: console.print(f"check      {said}"))
        second = ["look"] if plan.kept and until != "decide" else []
        course = pace_of(recipe, cluster.capacity, [SAMPLES, *second, *(["tokenize"] if until is None else [])])
        context = RunContext(plan, build, cluster, console, paths, decodes, preflight, course)

        def before(units: Sequence[Unit]) -> None:
            preflight.write()
            preflight.room(sources, units, build)
            used = plan.groups if until in (None, "look") else [g for g in plan.groups if not g.is_second]
            preflight.signals(s.name for g in used for s in g.signals if until != "ingest")
            if until is None:
                preflight.streams()

        stages = {"ingest": Stage(console, "ingest", 0, "records")}
        if until != "ingest":
            stages["annotate"] = Stage(console, "annotate", 0, "samples", beside=stages["ingest"], course=course)
        with counted(plan.signals, build, cluster) as signals:
            groups = groups_of(signals, plan.kept)
            first = [group for group in groups if not group.is_second]
            with together(*stages.values()):
                found = ingest(build, recipe, sources, first, paths, cluster, stages, plan.computes, before)
            decodes.add(found.decodes)
            context.spent.update(found.spent)
            for i, source in enumerate(sources):
                if not found.records[source.name]:
                    wrong = source.nothing(_said(build, paths, found, source))
                    raise plan.file.error(("sources", i, "path"), wrong.message, wrong.hint)
            if until == "ingest":
                return Result(decodes)
            partitions = {partition.name: partition for partition in found.partitions}
            tables = _tables(paths, partitions.values())
            trial = trial_of(build, sources, partitions.values(), found.records)
            if until is None and not found.was_read and (manifest := finished(plan, build, tables, trial)) is not None:
                return Result(decodes, manifest)
            decided = Decisions(context, partitions, groups, 1 if trial is None else FEWEST)
            tokenized = _decide_and_tokenize(context, partitions, decided, until)
        cluster.release()
        fragments, counts = decided.fragments, decided.counts
        if tokenized is None:
            return Result(decodes, outcomes=outcomes_of(build, [f.path for f in fragments]))
        with Stage(console, "pack", 0, "samples", course=course) as packing:
            specs = [s.spec for s in plan.streams]
            shards, splits = pack(build, recipe, tokenized, specs, cluster, packing)
        packed, kept = sum(split.samples for split in splits), counts.samples[Outcome.KEPT]
        if packed != kept:
            raise CurateError(
                f"the shards hold {packed} samples, the ledger keeps {kept}", "run the same command again"
            )
        files = [
            *tables,
            *(path for looked in decided.looked.values() for path in looked.values()),
            *(f.path for f in fragments),
        ]
        work = [
            READ_LOG,
            TOKEN_LOG,
            *(stat.path for stat in build.files(NOTES)),
            *decided.pairs,
            *decided.rests,
            *_tokens(context, partitions.values()),
        ]
        known = {file.path: file for file in (*found.files, *decided.files, *(f.file for f in fragments))}
        made = Made(counts, decided.second_look, shards, splits, trial)
        done = finish(plan, build, lease, cluster, console, course, made, known, files, work, write_card)
        course.write()
        columns_s = decided.seconds + packing.seconds
        return Result(decodes, done, spent=context.spent, columns_s=columns_s, pools=workers)


def _said(build: Store, paths: Paths, found: Ingested, source: Source) -> Entry | None:
    """The first entry that stands for a unit of a source that gave nothing else."""
    for partition in found.partitions:
        if partition.source == source.name:
            row = read_table(build, paths.fetched(partition.name, source.name)).slice(0, 1).to_pylist()[0]
            return Entry.whole(source.name, row["uri"], row["licence"], row["error"], row["message"])
    return None


def _decide_and_tokenize(
    run: RunContext, partitions: Mapping[str, Partition], decided: Decisions, until: str | None
) -> list[Tokenized] | None:
    """Verdicts, and tokens of the samples that are kept; None where the run ends before tokens.

    A sample that cannot be tokenized is failed, not kept; what was a duplicate of it may then be a keeper, so verdicts
    are made again until tokenizing finds no new failure. Every round fails at least one sample, so it ends.
    """
    failed: dict[str, Sequence[str]] = {}
    while True:
        decided.settle(failed, with_look=until != "decide")
        if until in ("decide", "look"):
            return None
        work = [
            Work(partition, fragment.path, sum(fragment.kept.values()), decided.looked.get(partition.name, {}))
            for partition, fragment in zip(partitions.values(), decided.fragments, strict=True)
            if fragment.kept
        ]
        tokenized, again = _tokenize(run, work)
        if not again:
            return tokenized
        failed |= again


def _tokenize(run: RunContext, work: Sequence[Work]) -> tuple[list[Tokenized], dict[str, Sequence[str]]]:
    """Tokens of the kept samples.

    Args:
        work: partitions that keep some.

    Returns:
        Fragments of all partitions, by name; and those of partitions in which samples failed.
    """
    build, paths, streams = run.build, run.paths, run.plan.streams
    there = [stat.path for stat in build.files("tokenized")]
    made = TokenLog(build, paths, streams, there)
    tokenized = {one.partition.name: serves for one in work if (serves := made.of(one)) is not None}
    # of other verdicts, such as a moved threshold gives, often all is there too, which needs no worker with models
    asked = [(one, held) for one in work if one.partition.name not in tokenized and (held := made.held(one))]
    served = run.cluster.engine().map(is_tokenized, ((build, one.verdicts, held) for one, held in asked))
    for (one, held), is_whole in zip(asked, served, strict=True):
        if is_whole:
            tokenized[one.partition.name] = Tokenized(one.partition.name, one.verdicts, held)
    todo = [one for one in work if one.partition.name not in tokenized]
    failed: dict[str, Sequence[str]] = {}
    kept, told = sum(one.kept for one in work), Tally()
    reused = kept - sum(one.kept for one in todo)
    told.add({"total": reused, "reused": reused})
    with Stage(run.console, "tokenize", kept, "samples", course=run.course) as stage:
        if todo:
            run.preflight.streams()
            verdicts = {one.partition.name: one.verdicts for one in todo}
            board = run.cluster.board()
            board.add("tokenize", total=kept, reused=reused, queued=len(todo))
            context = Context(build, paths, Listing(there), board, endpoint_env())
            with board.shown({"tokenize": stage}):
                for row in tokenize(context, todo, streams, run.cluster):
                    name, fragments = row["partition"], dict(row["fragments"])
                    tokenized[name] = Tokenized(name, verdicts[name], fragments)
                    run.decodes.add(decodes_of(row["decodes"]))
                    told.add(row["tokenize"])
                    if row["tokenize"]["failed"]:
                        failed[name] = [path for some in fragments.values() for path in some]
            add_spent(run.spent, board)
        told.end(stage)
    in_order = [tokenized[name] for name in sorted(tokenized)]
    if not failed:
        made.write(in_order)
    return in_order, failed


def _tokens(run: RunContext, partitions: Iterable[Partition]) -> list[str]:
    """All fragments of tokens of the build's partitions, also of those that keep no sample now: a threshold that is
    moved back finds them."""
    prefixes = {stream.prefix(run.paths, partition) for partition in partitions for stream in run.plan.streams}
    return [stat.path for stat in run.build.files("tokenized") if run.paths.prefix_of(stat.path) in prefixes]


def _tables(paths: Paths, partitions: Iterable[Partition]) -> list[str]:
    """All files of the partitions but verdicts and tokens."""
    files: list[str] = []
    for partition in partitions:
        name, source = partition.name, partition.source
        files += [paths.media(name, source), *paths.tables(name, source)]
    return files
