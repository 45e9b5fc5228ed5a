"""A run: the phases in order, each skipping what is committed, then one manifest (law 7).

    list -> ingest -> cut -> annotate -> decide -> tokenize -> pack -> card -> manifest

Killed anywhere, the same command goes on from the committed pieces and ends with the bytes of an undisturbed run.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console

from curate.decide.ledger import assemble, override
from curate.decide.records import decide_records
from curate.decide.samples import decide_samples
from curate.pipeline import annotate as annotating
from curate.pipeline import cut as cutting
from curate.pipeline import ingest as ingesting
from curate.pipeline import tokenize as tokenizing
from curate.pipeline.causes import cause_lines, causes
from curate.pipeline.cluster import Cluster
from curate.pipeline.finish import CardWriter, finish
from curate.pipeline.made import Made
from curate.pipeline.pack import named, pack
from curate.pipeline.pieces import MOST_TIMED, Piece, parts, split
from curate.pipeline.plan import Plan
from curate.pipeline.progress import Stage
from curate.pipeline.retry import forget_failures
from curate.pipeline.stream import ray_map
from curate.pipeline.tokenize import TokenPiece
from curate.schema.errors import CurateError
from curate.schema.fields import TIMED
from curate.schema.ids import key_of
from curate.schema.manifest import MANIFEST, Manifest
from curate.schema.tables import FAILURE_NAMES
from curate.schema.verdict import Failure, Outcome
from curate.shards.order import final_order
from curate.shards.pieces import index_pieces
from curate.sources.entry import Entry
from curate.storage import Store
from curate.storage.tables import read_table, write_named_table

LEDGER_ROWS = 1 << 16
"""Rows of one ledger file."""


def run(
    plan: Plan,
    entries: Sequence[Entry],
    build: Store,
    cluster: Cluster,
    console: Console,
    write_card: CardWriter,
    *,
    retry_failed: bool = False,
) -> Manifest:
    """Make the build, or go on with it.

    Args:
        plan: the checked recipe.
        entries: of all its sources (`plan.list_all`).
        build: where the build goes; made where it is not there.
        cluster: what to run on.
        console: where progress goes.
        write_card: makes the card of the finished tables.
        retry_failed: forget failures of an earlier run first, so that they are tried again.

    Raises:
        CurateError: no space, another run on the same build, nothing kept.
    """
    with build.held(MANIFEST) as hold:
        if hold.warning:
            console.print(f"warning    {hold.warning}")
        if retry_failed:
            again = forget_failures(build, hold, plan.signals)
            console.print("retry      " + ", ".join(f"{n} failed in {name}" for name, n in again.items()))
        made = Made(records=len(entries))
        recipe = plan.file.recipe

        work = ingesting.plan(recipe, entries)
        with _stage(build, console, "ingest", "records", [(path, piece.rows) for piece, path, _ in work]) as stage:
            ingesting.ingest(build, recipe, work, stage)
        made.files["records"] = [path for _, path, _ in work]
        made.files["media"] = [ingesting.media_path(path) for _, path, _ in work]
        with Stage(console, "records", len(entries), "records") as stage:
            records = decide_records(_paths(build, made.files["records"]), recipe.decide.records)
            _count(stage, records)

        pieces, uncut = _cut(plan, build, console, made, records)
        made.samples = sum(p.rows for p in pieces)
        records = override(records, uncut)
        if not pieces:
            raise CurateError(_nothing(records, "no record could be sampled"), _hint(build))

        files = annotating.SignalFiles(plan.signals)
        made.files["signals"] = [files.file(p, s) for s in plan.signals for p in pieces]
        there = build.existing(made.files["signals"])
        done = sum(p.rows for p in pieces if all(files.file(p, s) in there for s in plan.signals))
        with Stage(console, "annotate", made.samples, "samples", done) as stage:
            annotating.annotate(build, pieces, plan.signals, cluster, stage)

        samples, tokens = _decide_and_tokenize(plan, build, cluster, console, pieces, files, made)
        made.ledger = assemble(records, samples)
        kept = samples.select(["id", "outcome"]).filter(pc.equal(samples["outcome"], str(Outcome.KEPT)))
        if kept.num_rows == 0:
            raise CurateError(_nothing(samples, "no sample was kept"), _hint(build))
        _pack(plan, build, console, made, kept, tokens)
        return finish(plan, build, hold, cluster, console, made, write_card)


def _stage(build: Store, console: Console, name: str, unit: str, work: Sequence[tuple[str, int]]) -> Stage:
    """Progress of a stage whose pieces commit the files of `work`, each with its rows."""
    total = sum(rows for _, rows in work)
    there = build.existing(path for path, _ in work)
    reused = sum(rows for path, rows in work if path in there)
    return Stage(console, name, total, unit, reused)


def _count(stage: Stage, verdicts: pa.Table) -> None:
    counts = {str(outcome): 0 for outcome in Outcome}
    for row in verdicts.group_by("outcome").aggregate([([], "count_all")]).to_pylist():
        counts[row["outcome"]] = row["count_all"]
    counts["kept"] += counts.pop("sampled")  # a record is kept as its samples
    stage.count(**counts)


def _paths(build: Store, files: Sequence[str]) -> list[str]:
    """Local files with these bytes: what is decided on are columns, never media."""
    return [str(path) for path in build.locals(files)]


def _cut(
    plan: Plan, build: Store, console: Console, made: Made, records: pa.Table
) -> tuple[list[Piece], list[tuple[str, Failure]]]:
    """Cut the sampled records; the pieces of samples, and the records that could not be cut."""
    sampled = set(records.filter(pc.equal(records["outcome"], str(Outcome.SAMPLED)))["record_id"].to_pylist())
    recipe = plan.file.recipe
    made_by = cutting.made_by(recipe.cut)
    work: list[tuple[Piece, list[str]]] = []
    for number, path in enumerate(made.files["records"]):
        held = read_table(build, path, ["record_id", "content_id", "kind"]).to_pylist()
        wanted = [row for row in held if row["record_id"] in sampled]
        for k, part in enumerate(parts([row["kind"] in TIMED for row in wanted], len(held), MOST_TIMED)):
            some = wanted[part.start : part.stop]
            key = key_of([path, [[row["record_id"], row["content_id"]] for row in some]])
            name = f"{number:05d}-{k:03d}" if k else f"{number:05d}"
            work.append((Piece(name, key, path, 0, len(held)), [row["record_id"] for row in some]))
    todo = [(piece.file("cut", made_by), len(wanted)) for piece, wanted in work]
    with _stage(build, console, "cut", "records", todo) as stage:
        cutting.cut(build, recipe.cut, work, stage)
    made.files["cut"] = [piece.file("cut", made_by) for piece, _ in work]
    made.files["samples"] = [piece.file("samples", made_by) for piece, _ in work]
    uncut: list[tuple[str, Failure]] = []
    pieces: list[Piece] = []
    for (piece, _), cut_file, samples in zip(work, made.files["cut"], made.files["samples"], strict=True):
        for row in read_table(build, cut_file).to_pylist():
            if row["error"] is not None:
                uncut.append((row["record_id"], Failure(**{name: row[name] for name in FAILURE_NAMES})))
        rows = read_table(build, samples, ["sample_id", "kind", "text"]).to_pylist()
        identity = [key_of([row["sample_id"], row["kind"], row["text"]]) for row in rows]
        timed = [row["kind"] in TIMED for row in rows]
        pieces += split(identity, recipe.partition, samples, piece.number, timed, MOST_TIMED)
    return pieces, uncut


def _decide_and_tokenize(
    plan: Plan,
    build: Store,
    cluster: Cluster,
    console: Console,
    pieces: Sequence[Piece],
    files: annotating.SignalFiles,
    made: Made,
) -> tuple[pa.Table, list[TokenPiece]]:
    """Verdicts on samples, and tokens of those that are kept.

    A sample that cannot be tokenized is failed, not kept; what was a duplicate of it may then be a keeper, so verdicts
    are made again until tokenizing finds no new failure. Every round fails at least one sample, so it ends.
    """
    recipe = plan.file.recipe
    signals = {s.name: _paths(build, [files.file(p, s) for p in pieces]) for s in plan.signals}
    captions = plan.signals[-1]
    decide = recipe.decide.model_copy(update={"rules": plan.rules})
    failures: list[str] = []
    while True:
        with Stage(console, "decide", sum(p.rows for p in pieces), "samples") as stage:
            samples = decide_samples(
                _paths(build, made.files["samples"]),
                signals,
                decide,
                plan.fields,
                recipe.seed,
                mapper=ray_map,
                failures=failures,
            )
            _count(stage, samples)
        kept = set(samples["id"].filter(pc.equal(samples["outcome"], str(Outcome.KEPT))).to_pylist())
        work = []
        for piece in pieces:
            ids = read_table(build, piece.path, ["sample_id"]).slice(piece.start, piece.rows)
            keep = [sid for sid in ids["sample_id"].to_pylist() if sid in kept]
            if keep:
                work.append(TokenPiece.of(piece, keep, files.file(piece, captions), plan.streams))
        with _stage(build, console, "tokenize", "samples", [(t.receipt, len(t.keep)) for t in work]) as stage:
            tokenizing.tokenize(build, work, plan.streams, cluster, stage)
        failed = [t.receipt for t in work if _failed(build, t.receipt)]
        if not failed:
            made.files["pieces"] = [t.arrow for t in work]
            made.files["tokenized"] = [t.receipt for t in work]
            return samples, work
        failures += [path for path in _paths(build, failed) if path not in failures]


def _failed(build: Store, receipt: str) -> bool:
    column = read_table(build, receipt, ["error"])["error"]
    return bool(column.null_count < len(column))


def _pack(plan: Plan, build: Store, console: Console, made: Made, kept: pa.Table, tokens: Sequence[TokenPiece]) -> None:
    recipe = plan.file.recipe
    places = index_pieces(build, [t.arrow for t in tokens])
    content: dict[str, str] = {}
    for path in made.files["samples"]:
        table = read_table(build, path, ["sample_id", "content_id"])
        content |= dict(zip(table["sample_id"].to_pylist(), table["content_id"].to_pylist(), strict=True))
    rows = [(sid, content[sid]) for sid in kept["id"].to_pylist()]
    plans = final_order(rows, seed=recipe.seed, splits=recipe.pack.splits, shard_samples=recipe.pack.shard_samples)
    made.plans = [named(p, places) for p in plans]
    with _stage(build, console, "pack", "samples", [(p.path, len(p.sample_ids)) for p in made.plans]) as stage:
        pack(build, made.plans, places, stage)
    made.files["tokens"] = [p.path for p in made.plans]
    assert made.ledger is not None
    made.files["ledger"] = []
    for number, start in enumerate(range(0, made.ledger.num_rows, LEDGER_ROWS)):
        part = made.ledger.slice(start, LEDGER_ROWS)
        made.files["ledger"].append(write_named_table(build, f"ledger/part-{number:05d}", part))


def _nothing(rows: pa.Table, what: str) -> str:
    counts = rows.group_by("outcome").aggregate([([], "count_all")]).to_pylist()
    said = f"{what}: " + ", ".join(f"{row['count_all']} {row['outcome']}" for row in counts)
    return "\n".join([said, *cause_lines(causes([rows]))])


def _hint(build: Store) -> str:
    return f"what was computed is kept in {build}; change the recipe and run again"
