"""How much of the bare cost of decoding and of models do `annotate` and `tokenize` keep?

The samples of a finished build go through both stages on Ray, and through the bare sum of their parts in this process:
decode, every signal, every tokenizer, one thread, nothing written, nothing sent. The ratio is bare seconds divided by
(stage seconds times CPUs): 1.00 would be no overhead and perfect use of every CPU. Starting Ray is left out of both
sides; starting workers and loading models is part of the stage's seconds, and printed by itself for the bare side, so
on a small build it weighs more than it would on a large one.

    curate run quickstart --out build/quickstart
    python benchmarks/stages.py build/quickstart
    python benchmarks/stages.py build/quickstart --json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from curate.media.views import View
from curate.pipeline import annotate as annotating
from curate.pipeline import tokenize as tokenizing
from curate.pipeline.blocks import view_name
from curate.pipeline.cluster import Cluster, connect
from curate.pipeline.decode_stage import decode_samples
from curate.pipeline.pieces import Piece, split
from curate.pipeline.plan import Plan, make_plan
from curate.pipeline.progress import Stage, console
from curate.schema.recipe import Recipe
from curate.schema.recipe_file import RecipeFile
from curate.shards.commit import read_manifest
from curate.signals.base import Batch, Signal
from curate.tokenizers import zoo


@dataclass
class Row:
    """One stage: what went in, what it took, and what its parts take alone."""

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
        return self.bare_seconds / (self.stage_seconds * self.cpus)

    @property
    def ratio_with_load(self) -> float:
        """As `ratio`, when each CPU's worker also loads the models once on the bare side."""
        return (self.bare_seconds + self.cpus * self.bare_load_seconds) / (self.stage_seconds * self.cpus)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=Path, help="a finished build whose media and samples are used")
    parser.add_argument("--workers", type=int, default=None, help="CPUs of the local Ray; default all")
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
        samples = [row for p in pieces for row in _rows(build, p)]
        with connect(None, args.workers) as cluster:
            rows = [_annotate(build, plan, pieces, samples, cluster), _tokenize(build, plan, pieces, samples, cluster)]
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


def _rows(build: Path, piece: Piece) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(build / piece.path).slice(piece.start, piece.rows).to_pylist()
    return rows


def _row(stage: str, samples: list[dict[str, Any]], cluster: Cluster, took: float, bare: float, load: float) -> Row:
    seconds = {k: sum(s["duration"] or 0 for s in samples if s["kind"] == k) for k in ("video", "audio")}
    pictures = sum(s["kind"] == "image" for s in samples)
    return Row(stage, len(samples), pictures, seconds["video"], seconds["audio"], cluster.cpus, took, bare, load)


def _annotate(build: Path, plan: Plan, pieces: list[Piece], samples: list[dict[str, Any]], cluster: Cluster) -> Row:
    start = time.perf_counter()
    with Stage(console(), "annotate", len(samples), "samples") as stage:
        annotating.annotate(build, pieces, plan.signals, cluster, stage)
    took = time.perf_counter() - start

    start = time.perf_counter()
    for signal in plan.signals:
        signal.load()
    load = time.perf_counter() - start
    start = time.perf_counter()
    views = sorted({v for s in plan.signals for v in s.needs}, key=view_name)
    for piece in pieces:
        rows = _rows(build, piece)
        arrays, failures = decode_samples(build, rows, views, "annotate")
        alive = [i for i, f in enumerate(failures) if f is None]
        _signals([rows[i] for i in alive], {v: [a[i] for i in alive] for v, a in arrays.items()}, plan.signals)
    return _row("annotate", samples, cluster, took, time.perf_counter() - start, load)


def _signals(rows: list[dict[str, Any]], arrays: dict[View, list[Any]], signals: list[Signal]) -> None:
    """Every signal of one piece, and nothing else."""
    columns = {name: [row.get(name) for row in rows] for name in annotating.CARRIED}
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


def _tokenize(build: Path, plan: Plan, pieces: list[Piece], samples: list[dict[str, Any]], cluster: Cluster) -> Row:
    files = annotating.SignalFiles(plan.signals)
    captions = plan.signals[-1]
    alive: dict[str, str | None] = {}
    for piece in pieces:
        table = pq.read_table(build / files.file(piece, captions)).to_pylist()
        alive |= {row["sample_id"]: row["caption"] for row in table if row["error"] is None}
    work = []
    for piece in pieces:
        keep = [row["sample_id"] for row in _rows(build, piece) if row["sample_id"] in alive]
        if keep:
            work.append(tokenizing.TokenPiece.of(piece, keep, files.file(piece, captions), plan.streams))
    start = time.perf_counter()
    with Stage(console(), "tokenize", len(alive), "samples") as stage:
        tokenizing.tokenize(build, work, plan.streams, cluster, stage)
    took = time.perf_counter() - start

    start = time.perf_counter()
    loaded = [(s, zoo.load(s.use.tokenizer)) for s in plan.streams]
    load = time.perf_counter() - start
    start = time.perf_counter()
    views = sorted({s.view for s in plan.streams if s.view is not None}, key=view_name)
    for piece in pieces:
        rows = [row for row in _rows(build, piece) if row["sample_id"] in alive]
        arrays, _ = decode_samples(build, rows, views, "tokenize")
        for stream, tokenizer in loaded:
            texts = [alive[row["sample_id"]] for row in rows]
            given = tokenizing.items(stream, texts, arrays[stream.view] if stream.view is not None else [])
            tokenizer.encode([item for item in given if item is not None])
    kept = [s for s in samples if s["sample_id"] in alive]
    return _row("tokenize", kept, cluster, took, time.perf_counter() - start, load)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)  # as in the workers
    sys.exit(main())
