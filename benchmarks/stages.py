"""How much of the bare speed of decoding and of models do `annotate` and `tokenize` keep?

The samples of a finished build go through both stages on Ray, and through the bare sum of their parts: decode, every
signal, every tokenizer, in as many plain processes as Ray has CPUs, one thread each, all at work at once, nothing
written, nothing sent. The ratio is the bare seconds divided by the stage's: 1.00 would be no overhead and a perfect
balance. Starting Ray is left out. Starting workers and loading models is in the stage's seconds; `ratio with load`
adds it to the bare side too.

    curate run quickstart --out build/quickstart
    python benchmarks/stages.py build/quickstart
    python benchmarks/stages.py build/quickstart --repeat 4    # start-up weighs less
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from curate.pipeline.pieces import Piece, split

from curate.media.decode import Span, decode
from curate.media.views import View
from curate.pipeline import annotate as annotating
from curate.pipeline import tokenize as tokenizing
from curate.pipeline.blocks import view_name
from curate.pipeline.cluster import Cluster, connect
from curate.pipeline.media_store import read_media
from curate.pipeline.model_service import CARRIED
from curate.pipeline.plan import Plan, make_plan
from curate.pipeline.progress import Stage, console
from curate.schema.errors import MediaError
from curate.schema.recipe import Recipe
from curate.schema.recipe_file import RecipeFile
from curate.shards.commit import read_manifest
from curate.signals.base import Batch, Signal
from curate.storage import Folder
from curate.tokenizers import zoo
from curate.tokenizers.views import items_of

Rows = list[dict[str, Any]]


@dataclass
class Row:
    """One stage: what went in, what it took, and what its parts take alone; seconds of wall clock."""

    stage: str
    samples: int
    pictures: int
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
    parser.add_argument("--repeat", type=int, default=1, help="give the stages every piece this many times")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    source = args.build.resolve()
    manifest = read_manifest(source)
    plan = make_plan(RecipeFile(Path("recipe"), Recipe.model_validate(manifest.recipe), {}))
    with tempfile.TemporaryDirectory(prefix="curate-bench-", dir=source.parent) as folder:
        build = Path(folder)
        for name in ("samples", "media"):
            shutil.copytree(source / name, build / name)
        pieces = _pieces(build, plan)
        with connect(None, args.workers) as cluster:
            rows = [step(build, plan, pieces, cluster, args.repeat) for step in (_annotate, _tokenize)]
    if args.json:
        print(json.dumps([asdict(r) | {"ratio": r.ratio, "ratio_with_load": r.ratio_with_load} for r in rows]))
        return
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    print("| stage | in | CPUs | stage s | bare s | load s | ratio | ratio with load | pictures/s | video s/s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for r in rows:
        print(
            f"| {r.stage} | {r.pictures} pictures, {r.video_seconds:.0f} s of video, {r.audio_seconds:.0f} s of audio "
            f"| {r.cpus} | {r.stage_seconds:.1f} | {r.bare_seconds:.1f} | {r.bare_load_seconds:.1f} | {r.ratio:.2f} "
            f"| {r.ratio_with_load:.2f} "
            f"| {r.pictures / r.stage_seconds:.1f} | {r.video_seconds / r.stage_seconds:.1f} |"
        )


def _pieces(build: Path, plan: Plan) -> list[Piece]:
    pieces: list[Piece] = []
    for i, path in enumerate(sorted((build / "samples").glob("*.parquet"))):
        ids = pq.read_table(path, columns=["sample_id"])["sample_id"].to_pylist()
        pieces += split(ids, plan.file.recipe.partition, path.relative_to(build).as_posix(), f"{i:05d}")
    return pieces


def _rows(build: Path, piece: Piece) -> Rows:
    rows: Rows = pq.read_table(build / piece.path).slice(piece.start, piece.rows).to_pylist()
    return rows


def _again(pieces: list[Piece], times: int) -> list[Piece]:
    """Every piece under other numbers too, so that each time it makes files of its own."""
    return [replace(p, number=f"{p.number}-{k}" if k else p.number) for k in range(times) for p in pieces]


def _side_by_side(
    work: Callable[[Path, Any, Sequence[Any]], tuple[float, float]],
    build: Path,
    what: Any,
    items: Sequence[Any],
    cpus: int,
) -> tuple[float, float]:
    """Mean (load, run) seconds of `cpus` processes that share the items and work at the same time."""
    with ProcessPoolExecutor(cpus, mp_context=get_context("spawn")) as pool:
        parts = [pool.submit(work, build, what, items[i::cpus]) for i in range(cpus)]
        took = [p.result() for p in parts]
    return sum(t[0] for t in took) / cpus, sum(t[1] for t in took) / cpus


def _row(stage: str, samples: Rows, times: int, cluster: Cluster, took: float, bare: tuple[float, float]) -> Row:
    """A row; the bare side was measured on every sample once."""
    seconds = {k: sum(s["duration"] or 0 for s in samples if s["kind"] == k) for k in ("video", "audio")}
    pictures = sum(s["kind"] == "image" for s in samples)
    video, audio = seconds["video"] * times, seconds["audio"] * times
    load, run = bare
    return Row(stage, len(samples) * times, pictures * times, video, audio, cluster.cpus, took, run * times, load)


def _annotate(build: Path, plan: Plan, pieces: list[Piece], cluster: Cluster, times: int) -> Row:
    samples = [row for p in pieces for row in _rows(build, p)]
    start = time.perf_counter()
    with Stage(console(), "annotate", len(samples) * times, "samples") as stage:
        annotating.annotate(Folder(build), _again(pieces, times), plan.signals, cluster, stage)
    took = time.perf_counter() - start
    bare = _side_by_side(_bare_signals, build, plan.signals, pieces, cluster.cpus)
    return _row("annotate", samples, times, cluster, took, bare)


def _bare_signals(build: Path, signals: list[Signal], pieces: Sequence[Piece]) -> tuple[float, float]:
    start = time.perf_counter()
    for signal in signals:
        signal.load()
    loaded = time.perf_counter()
    views = sorted({v for s in signals for v in s.needs}, key=view_name)
    for piece in pieces:
        rows = _rows(build, piece)
        arrays, failures = _decode(build, rows, views)
        alive = [i for i, f in enumerate(failures) if f is None]
        _signals([rows[i] for i in alive], {v: [a[i] for i in alive] for v, a in arrays.items()}, signals)
    return loaded - start, time.perf_counter() - loaded


def _decode(build: Path, rows: Rows, views: Sequence[View]) -> tuple[dict[View, list[Any]], list[MediaError | None]]:
    """All views of each sample, decoded in this process: no helper, nothing sent."""
    out: dict[View, list[Any]] = {view: [] for view in views}
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


def _signals(rows: Rows, arrays: dict[View, list[Any]], signals: list[Signal]) -> None:
    """Every signal of one piece, and nothing else."""
    columns = {name: [row.get(name) for row in rows] for name in CARRIED}
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


def _tokenize(build: Path, plan: Plan, pieces: list[Piece], cluster: Cluster, times: int) -> Row:
    files = annotating.SignalFiles(plan.signals)
    captions = plan.signals[-1]
    alive: dict[str, str | None] = {}
    for piece in pieces:
        table = pq.read_table(build / files.file(piece, captions)).to_pylist()
        alive |= {row["sample_id"]: row["caption"] for row in table if row["error"] is None}
    work = []
    for piece in _again(pieces, times):
        keep = [row["sample_id"] for row in _rows(build, piece) if row["sample_id"] in alive]
        if keep:
            work.append(tokenizing.TokenPiece.of(piece, keep, files.file(piece, captions), plan.streams))
    start = time.perf_counter()
    with Stage(console(), "tokenize", len(alive) * times, "samples") as stage:
        tokenizing.tokenize(Folder(build), work, plan.streams, cluster, stage)
    took = time.perf_counter() - start
    items = [[row for row in _rows(build, p) if row["sample_id"] in alive] for p in pieces]
    bare = _side_by_side(_bare_tokens, build, (plan.streams, alive), items, cluster.cpus)
    return _row("tokenize", [row for rows in items for row in rows], times, cluster, took, bare)


def _bare_tokens(build: Path, what: Any, pieces: Sequence[Rows]) -> tuple[float, float]:
    import torch

    torch.set_num_threads(1)  # as in the stage's workers
    streams, texts = what
    start = time.perf_counter()
    loaded = [(s, zoo.load(s.tokenizer)) for s in streams]
    ready = time.perf_counter()
    views = sorted({s.view for s in streams if s.view is not None}, key=view_name)
    for rows in pieces:
        arrays, _ = _decode(build, rows, views)
        for stream, tokenizer in loaded:
            captions = [texts[row["sample_id"]] for row in rows]
            sizes = [(row["width"], row["height"]) for row in rows]
            given = items_of(stream.card, arrays[stream.view] if stream.view is not None else [], captions, sizes)
            tokenizer.encode([item for item in given if item is not None])
    return ready - start, time.perf_counter() - ready


if __name__ == "__main__":
    main()
