"""How much of the bare speed of decoding and of models do `annotate` and `tokenize` keep?

The media of a finished build go through both stages on Ray, and through the bare sum of their parts: decode, every
signal, every tokenizer, in as many plain processes as Ray has CPUs, one thread each, all at work at once, nothing
written, nothing sent. The ratio is the bare seconds divided by the stage's: 1.00 would be no overhead and a perfect
balance. Starting Ray is left out. Starting workers, what they import, and loading models is in the stage's seconds;
`ratio with load` adds the same of the plain processes to the bare side. So is probing and cutting, which the bare side
is spared.

    curate run quickstart --out build/quickstart
    python benchmarks/stages.py build/quickstart
    python benchmarks/stages.py build/quickstart --repeat 4    # start-up weighs less
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.media.decode import Span, decode
from curate.media.requests import DecodeRequest
from curate.pipeline.annotate import Annotate, Context
from curate.pipeline.blocks import view_name
from curate.pipeline.board import Board
from curate.pipeline.cluster import Cluster, connect
from curate.pipeline.ingest import cut_how, fetch_options
from curate.pipeline.kept import kept_samples
from curate.pipeline.listing import Listing
from curate.pipeline.media_store import read_media
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import Paths
from curate.pipeline.placement import models_of, pools_of
from curate.pipeline.plan import Plan, make_plan, settle
from curate.pipeline.ray_data import execute, from_rows, stage_of
from curate.pipeline.rows import FILES, PARTITION, TALLY
from curate.pipeline.tokenize import Work, tokenize
from curate.schema.errors import MediaError
from curate.schema.recipe import Recipe
from curate.schema.recipe_file import RecipeFile
from curate.shards.commit import read_manifest
from curate.signals.base import Batch, Signal
from curate.signals.probed import PROBED
from curate.storage import Folder
from curate.storage.bucket import endpoint_env
from curate.tokenizers import zoo
from curate.tokenizers.views import items_of

Rows = list[dict[str, Any]]

FETCHED_ROW = pa.schema([*PARTITION, pa.field("ingest", pa.struct(TALLY)), pa.field("files", FILES)])
"""A row of the plan as fetching a partition leaves it."""


@dataclass
class Row:
    """One stage: what went in, what it took, and what its parts take alone; seconds of wall clock."""

    stage: str
    samples: int
    images: int
    video_seconds: float
    audio_seconds: float
    cpus: int
    stage_seconds: float
    bare_seconds: float
    bare_load_seconds: float

    @property
    def ratio(self) -> float:
        return self.bare_seconds / self.stage_seconds

    @property
    def ratio_with_load(self) -> float:
        return (self.bare_seconds + self.bare_load_seconds) / self.stage_seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="a finished build whose media and samples are used")
    parser.add_argument("--workers", type=int, default=None, help="CPUs of the local Ray; default all")
    parser.add_argument("--repeat", type=int, default=1, help="give the stages every partition this many times")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # as `curate run` has it
    source = args.build.resolve()
    manifest = read_manifest(source)
    plan = make_plan(RecipeFile(Path("recipe"), Recipe.model_validate(manifest.recipe), {}))
    with tempfile.TemporaryDirectory(prefix="curate-bench-", dir=source.parent) as folder:
        build = Path(folder)
        recipe = plan.file.recipe
        partitions = _partitions(build, source, recipe, args.repeat)
        paths = Paths.of(fetch_options(recipe), recipe.cut, plan.signals, recipe.media.reader)
        with connect(None, args.workers) as cluster:
            cluster.start()
            plan = settle(plan, cluster.capacity)
            rows = [step(build, plan, paths, partitions, cluster, args.repeat) for step in (_annotate, _tokenize)]
    if args.json:
        print(json.dumps([asdict(r) | {"ratio": r.ratio, "ratio_with_load": r.ratio_with_load} for r in rows]))
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print("| stage | in | CPUs | stage s | bare s | load s | ratio | ratio with load | images/s | video s/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in rows:
        print(
            f"| {r.stage} | {r.images} images, {r.video_seconds:.0f} s of video, {r.audio_seconds:.0f} s of audio "
            f"| {r.cpus} | {r.stage_seconds:.1f} | {r.bare_seconds:.1f} | {r.bare_load_seconds:.1f} | {r.ratio:.2f} "
            f"| {r.ratio_with_load:.2f} "
            f"| {r.images / r.stage_seconds:.1f} | {r.video_seconds / r.stage_seconds:.1f} |"
        )


def _partitions(build: Path, source: Path, recipe: Recipe, times: int) -> list[Partition]:
    """Media and `fetched` fragments of a finished build, under `times` names, so that each time makes files of its own.

    The verdicts go along: they say what is tokenized.
    """
    shutil.copytree(source / "media", build / "media")
    found: list[Partition] = []
    for name in ("fetched", "verdicts"):
        (build / name).mkdir()
    for path in sorted((source / "fetched").glob("*.parquet")):
        name, _, made_by = path.name.rpartition("-")
        of = max((s.name for s in recipe.sources if name.startswith(f"{s.name}-")), key=len)
        [verdicts] = (source / "verdicts").glob(f"{name}-*")
        for k in range(times):
            shutil.copy(path, build / f"fetched/{name}.{k}-{made_by}")
            shutil.copy(verdicts, build / f"verdicts/{name}.{k}.parquet")
            found.append(Partition(f"{name}.{k}", of, pq.read_metadata(path).num_rows))
    return found


def _once(partitions: Sequence[Partition]) -> list[Partition]:
    """Each under the first of its names."""
    return [p for p in partitions if p.name.endswith(".0")]


def _rows(build: Path, paths: Paths, partition: Partition) -> Rows:
    rows: Rows = pq.read_table(build / paths.samples(partition.name, partition.source)).to_pylist()
    return rows


def _side_by_side(
    work: Callable[[Path, Any, Sequence[Any]], tuple[float, float]],
    build: Path,
    what: Any,
    items: Sequence[Any],
    cpus: int,
) -> tuple[float, float]:
    """Mean (load, run) seconds of `cpus` processes that share the items and work at the same time; loading begins with
    the start of the process."""
    with ProcessPoolExecutor(cpus, mp_context=get_context("spawn")) as pool:
        started = time.time()
        parts = [pool.submit(work, build, what, items[i::cpus]) for i in range(cpus)]
        took = [p.result() for p in parts]
    return sum(t[0] - started for t in took) / cpus, sum(t[1] for t in took) / cpus


def _row(stage: str, samples: Rows, times: int, cluster: Cluster, took: float, bare: tuple[float, float]) -> Row:
    """A row; the bare side was measured on every sample once."""
    seconds = {k: sum(s["duration"] or 0 for s in samples if s["kind"] == k) for k in ("video", "audio")}
    images = sum(s["kind"] == "image" for s in samples)
    video, audio = seconds["video"] * times, seconds["audio"] * times
    load, run = bare
    return Row(stage, len(samples) * times, images * times, video, audio, cluster.cpus, took, run * times, load)


def _annotate(build: Path, plan: Plan, paths: Paths, partitions: list[Partition], cluster: Cluster, times: int) -> Row:
    nothing = {"ingest": dict.fromkeys((f.name for f in TALLY), 0), "files": []}
    rows = [
        {"partition": p.name, "source": p.source, "unit": "", "rows": p.rows, "whole": 0} | nothing for p in partitions
    ]
    context = _context(build, paths)
    [pool] = pools_of("annotate", models_of(plan.groups, plan.computes), cluster.capacity)
    start = time.perf_counter()
    work = stage_of(
        from_rows(pa.Table.from_pylist(rows, FETCHED_ROW)),
        pool,
        Annotate,
        context=context,
        cut=cut_how(plan.file.recipe.cut),
        here=plan.groups,
        later=[],
    )
    for _ in execute(work):
        pass
    took = time.perf_counter() - start
    items = [_rows(build, paths, p) for p in _once(partitions)]
    bare = _side_by_side(_bare_signals, build, plan.signals, items, cluster.cpus)
    return _row("annotate", [row for rows in items for row in rows], times, cluster, took, bare)


def _context(build: Path, paths: Paths) -> Context:
    return Context(Folder(build), paths, Listing([]), Board(), endpoint_env())


def _bare_signals(build: Path, signals: list[Signal], partitions: Sequence[Rows]) -> tuple[float, float]:
    """When its models were ready (of `time.time`), and seconds of work since."""
    for signal in signals:
        signal.load()
    ready = time.time()
    views = sorted({v for s in signals for v in s.needs}, key=view_name)
    for rows in partitions:
        arrays, failures = _decode(build, rows, views)
        alive = [i for i, f in enumerate(failures) if f is None]
        _signals([rows[i] for i in alive], {v: [a[i] for i in alive] for v, a in arrays.items()}, signals)
    return ready, time.time() - ready


def _decode(
    build: Path, rows: Rows, views: Sequence[DecodeRequest]
) -> tuple[dict[DecodeRequest, list[Any]], list[MediaError | None]]:
    """All views of each sample, decoded in this process: no helper, nothing sent."""
    out: dict[DecodeRequest, list[Any]] = {view: [] for view in views}
    failures: list[MediaError | None] = []
    last: tuple[str, int] = ("", -1)
    data = b""
    for row in rows:
        if (row["media"], row["offset"]) != last:
            last = (row["media"], row["offset"])
            data = read_media(Folder(build), row["media"], row["offset"], row["bytes"])
        span = None if row["kind"] == "image" else Span(row["start_us"], row["end_us"])
        try:
            got = decode(data, row["kind"], views, span).views
            failures.append(None)
        except MediaError as exc:
            got = {}
            failures.append(exc)
        for view in views:
            out[view].append(got.get(view))
    return out, failures


def _signals(rows: Rows, arrays: dict[DecodeRequest, list[Any]], signals: list[Signal]) -> None:
    """Every signal of one partition, and nothing else."""
    columns = {name: [row.get(name) for row in rows] for name in PROBED}
    for signal in signals:
        batch = Batch(
            [row["sample_id"] for row in rows],
            [row["kind"] for row in rows],
            [row["text"] for row in rows],
            {view: arrays[view] for view in signal.needs},
            columns,
        )
        results = signal(batch)
        for field in signal.gives:
            columns[field.name] = [r.get(field.name) if isinstance(r, dict) else None for r in results]


def _tokenize(build: Path, plan: Plan, paths: Paths, partitions: list[Partition], cluster: Cluster, times: int) -> Row:
    captions = paths.homes["caption"][1]
    texts: dict[str, str | None] = {}
    items: list[Rows] = []
    for p in _once(partitions):
        kept = set(kept_samples(Folder(build), f"verdicts/{p.name}.parquet")["id"].to_pylist())
        items.append([row for row in _rows(build, paths, p) if row["sample_id"] in kept])
        table = pq.read_table(build / paths.signals(p.name, p.source, captions), columns=["sample_id", "caption"])
        texts |= dict(zip(*table.to_pydict().values(), strict=True))
    counts = {p.name: kept_samples(Folder(build), f"verdicts/{p.name}.parquet").num_rows for p in partitions}
    work = [Work(p, f"verdicts/{p.name}.parquet", counts[p.name]) for p in partitions if counts[p.name]]
    start = time.perf_counter()
    for _ in tokenize(_context(build, paths), work, plan.streams, cluster):
        pass
    took = time.perf_counter() - start
    bare = _side_by_side(_bare_tokens, build, (plan.streams, texts), items, cluster.cpus)
    return _row("tokenize", [row for rows in items for row in rows], times, cluster, took, bare)


def _bare_tokens(build: Path, what: Any, partitions: Sequence[Rows]) -> tuple[float, float]:
    """As `_bare_signals`."""
    import torch

    torch.set_num_threads(1)  # as in the stage's workers
    streams, texts = what
    loaded = [(s, zoo.load(s.tokenizer)) for s in streams]
    ready = time.time()
    views = sorted({s.view for s in streams if s.view is not None}, key=view_name)
    for rows in partitions:
        arrays, _ = _decode(build, rows, views)
        for stream, tokenizer in loaded:
            captions = [texts[row["sample_id"]] for row in rows]
            given = items_of(stream.card, arrays[stream.view] if stream.view is not None else [], captions)
            tokenizer.encode([item for item in given if item is not None])
    return ready, time.time() - ready


if __name__ == "__main__":
    main()
