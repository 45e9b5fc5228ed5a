"""Whole commands of what a user would pick instead, beside `curate run` over the same media.

    make peers                                      # installs the peers, in environments of their own
    python benchmarks/peers.py                      # 10,000 JPEGs and 60 clips
    python benchmarks/peers.py --images 1000 --clips 10 --json
    python benchmarks/peers.py --only video

* fetch: img2dataset (no resize, no re-encoding, WebDataset) from a table of urls on loopback; ours `--until ingest`,
  which also hashes.
* annotate: data-juicer `image_aspect_ratio_filter` and `image_deduplicator` (phash, equal hashes); ours with a rule on
  the probed width, `tiny_image` and near duplicates, `--until decide`.
* video: data-juicer `video_motion_score_filter` (its defaults: whole frames, 2 a second); ours with shots and `motion`,
  the whole run.

JPEGs of 512 x 384 have about 32 kB, clips 5 s of 640 x 360 with two shots. Wall and CPU seconds are of all processes of
a command, its start included, the web server left out. The ratio is the peer's over ours: above 1 we are ahead.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parts import process_tree
from parts.peers_media import make_clips, make_pictures, sample_list, served
from parts.process_tree import Measured
from parts.torchvision_cpu import mend_torchvision

ROOT = Path(__file__).resolve().parents[1]

PEERS = {
    "img2dataset": ["img2dataset==1.47.*"],
    # what follows data-juicer itself it imports and does not require, or installs while it runs
    "data-juicer": ["py-data-juicer==1.6.*", "aiohttp", "ray", "imagededup", "opencv-python-headless<5", "av"],
}
CONSTRAINTS = "torch==2.13.0\n"  # what pip finds here without CUDA; torch comes with imagededup

FETCH = """\
name: peers-fetch
sources:
  - {kind: table, name: web, path: %s, uri: url, text: caption, fetch: {allow_private: true}}
annotate: [{name: brightness}]
tokenize:
  streams: [{name: caption, tokenizer: text-bpe-8k}]
"""
IMAGES = """\
name: peers-images
sources:
  - {kind: folder, name: pictures, path: %s}
annotate: [{name: tiny_image}]
decide:
  records: [{field: width, min: 64}]
  near_duplicates: [{embedding: tiny_image, threshold: 0.98}]
tokenize:
  streams: [{name: caption, tokenizer: text-bpe-8k}]
"""
VIDEO = """\
name: peers-video
sources:
  - {kind: folder, name: clips, path: %s}
annotate: [{name: motion}]
decide:
  rules: [{field: motion, min: 0.001}]
tokenize:
  streams: [{name: caption, tokenizer: text-bpe-8k}]
"""
JUICER = """\
project_name: peers
dataset_path: %s
export_path: %s
np: %d
use_cache: false
open_tracer: false
process:
%s
"""


@dataclass
class Row:
    """One comparison; seconds. `counts` is what each says it did."""

    what: str
    peer: str
    peer_wall: float
    peer_cpu: float
    ours_wall: float
    ours_cpu: float
    counts: dict[str, Any]
    bar_wall: float
    bar_cpu: float | None = None

    @property
    def wall_ratio(self) -> float:
        return self.peer_wall / self.ours_wall

    @property
    def cpu_ratio(self) -> float:
        return self.peer_cpu / self.ours_cpu

    @property
    def ok(self) -> bool:
        return self.wall_ratio >= self.bar_wall and (self.bar_cpu is None or self.cpu_ratio >= self.bar_cpu)


def environment_of(peer: str, cache: Path) -> Path:
    """The folder of a peer's programs."""
    return cache / "peers" / peer / "bin"


def install(cache: Path) -> dict[str, str]:
    """Make the environments that are not there; why not, of each that could not be made."""
    failed = {}
    for peer, packages in PEERS.items():
        programs = environment_of(peer, cache)
        if (programs.parent / "ready").exists():
            continue
        print(f"installing {peer} into {programs.parent}", flush=True)
        programs.parent.mkdir(parents=True, exist_ok=True)
        constraints = programs.parent / "constraints.txt"
        constraints.write_text(CONSTRAINTS)
        subprocess.run([sys.executable, "-m", "venv", programs.parent], check=True)
        done = subprocess.run(
            [programs / "python", "-m", "pip", "install", "--quiet", "-c", constraints, *packages],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            failed[peer] = " ".join(errors) or done.stderr[-500:]
        else:
            mend_torchvision(programs)
            (programs.parent / "ready").touch()
    return failed


def checked(measured: Measured, what: str) -> Measured:
    if measured.code:
        raise SystemExit(f"{what} ended with {measured.code}:\n{measured.said}")
    return measured


def curate(recipe: str, work: Path, workers: int, until: str | None = None) -> Measured:
    """A run of this checkout's command, to its end or to that of a stage."""
    (work / "recipe.yaml").write_text(recipe)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "curate.cli.main",
        "run",
        work / "recipe.yaml",
        "--out",
        work / "build",
    ]
    command += ["--json", "--no-dashboard", "--workers", str(workers)]
    command += [] if until is None else ["--until", until]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return checked(process_tree.run(command, {"PYTHONPATH": os.pathsep.join(paths)}, work / "ours.log"), "curate run")


def counts_of(ours: Measured) -> dict[str, Any]:
    """What the last stage counted."""
    ended = next(m.event for m in reversed(ours.moments) if m.event.get("event") == "stage_end")
    return {name: ended[name] for name in ("stage", "total", "passed", "kept", "dropped", "duplicate", "failed")}


def fetch(programs: Path, args: argparse.Namespace, work: Path) -> list[Row]:
    """A table of urls to media."""
    pictures = make_pictures(args.cache, args.images)
    with served(pictures, work / "server") as (address, server):
        lines = [
            f'{address}/{path.name},"{path.with_suffix(".txt").read_text()}"' for path in sorted(pictures.glob("*.jpg"))
        ]
        table = work / "urls.csv"
        table.write_text("url,caption\n" + "\n".join(lines) + "\n")
        command: list[str | Path] = [programs / "img2dataset", "--url_list", table, "--output_folder", work / "peer"]
        command += ["--input_format", "csv", "--url_col", "url", "--caption_col", "caption"]
        command += ["--output_format", "webdataset", "--resize_mode", "no", "--skip_reencode", "True"]
        command += ["--processes_count", str(args.workers), "--thread_count", "32", "--number_sample_per_shard", "1000"]
        env = {"NO_ALBUMENTATIONS_UPDATE": "1", "PYTHONPATH": ""}
        peer = checked(process_tree.run(command, env, work / "peer.log"), "img2dataset")
        ours = curate(FETCH % json.dumps(str(table)), work, args.workers, until="ingest")
    stats = [json.loads(path.read_text()) for path in (work / "peer").glob("*_stats.json")]
    counts = {"server": server, "peer_successes": sum(s["successes"] for s in stats), **counts_of(ours)}
    return [Row("fetch", "img2dataset", peer.wall, peer.cpu, ours.wall, ours.cpu, counts, 1.0, 1.0)]


def juice(programs: Path, samples: str, process: str, work: Path, workers: int) -> tuple[Measured, int]:
    """data-juicer over a list of samples: what it cost, how many it kept."""
    (work / "samples.jsonl").write_text(samples)
    out = work / "peer" / "kept.jsonl"
    (work / "peer.yaml").write_text(JUICER % (work / "samples.jsonl", out, workers, process))
    env = {name: str(work / "peer-cache") for name in ("HF_HOME", "DATA_JUICER_CACHE_HOME", "DATA_JUICER_ASSETS_CACHE")}
    env |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "PYTHONPATH": ""}
    command: list[str | Path] = [programs / "dj-process", "--config", work / "peer.yaml"]
    peer = checked(process_tree.run(command, env, work / "peer.log"), "data-juicer")
    return peer, len(out.read_text().splitlines())


def annotate(programs: Path, args: argparse.Namespace, work: Path) -> list[Row]:
    """Pictures to those that are kept, by shape and by being no copy."""
    pictures = make_pictures(args.cache, args.images)
    process = "  - image_aspect_ratio_filter: {min_ratio: 0.333, max_ratio: 3.0}\n"
    process += "  - image_deduplicator: {method: phash}"
    peer, kept = juice(programs, sample_list(pictures, "images", "<__dj__image>"), process, work, args.workers)
    ours = curate(IMAGES % json.dumps(str(pictures)), work, args.workers, until="decide")
    counts = {"peer_kept": kept, **counts_of(ours)}
    return [Row("annotate", "data-juicer", peer.wall, peer.cpu, ours.wall, ours.cpu, counts, 1.5)]


def video(programs: Path, args: argparse.Namespace, work: Path) -> list[Row]:
    """Clips to those in which something moves."""
    clips = make_clips(args.cache, args.clips)
    process = "  - video_motion_score_filter: {min_score: 0.25}"
    peer, kept = juice(programs, sample_list(clips, "videos", "<__dj__video>"), process, work, args.workers)
    ours = curate(VIDEO % json.dumps(str(clips)), work, args.workers)
    counts = {"peer_kept": kept, **counts_of(ours)}
    return [Row("video, our whole run", "data-juicer", peer.wall, peer.cpu, ours.wall, ours.cpu, counts, 5.0)]


TASKS: dict[str, tuple[str, Callable[[Path, argparse.Namespace, Path], list[Row]]]] = {
    "fetch": ("img2dataset", fetch),
    "annotate": ("data-juicer", annotate),
    "video": ("data-juicer", video),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install", action="store_true", help="make the peers' environments, and no more")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--only", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="processes, of ours and of the peers'")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object of all figures")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep outputs and logs there, a folder a task")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "curate-benchmarks"
    parser.add_argument("--cache", type=Path, default=cache, help="media and environments (default: %(default)s)")
    args = parser.parse_args()
    if args.install:
        failed = install(args.cache)
        for peer, why in failed.items():
            print(f"{peer} cannot be installed: {why}")
        sys.exit(1 if failed else 0)
    if args.keep is not None and args.keep.exists() and any(args.keep.iterdir()):
        parser.error(f"--keep {args.keep} is not empty: a build that is there would be gone on with")
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="peers-") as temporary:
        for name in args.only:
            peer, task = TASKS[name]
            programs = environment_of(peer, args.cache)
            if not (programs.parent / "ready").exists():
                skipped[name] = f"{peer} is not installed: `make peers`"
                print(f"{name}: skipped, {skipped[name]}")
                continue
            work: Path = (args.keep or Path(temporary)).resolve() / name
            work.mkdir(parents=True)
            found = task(programs, args, work)
            rows += found
            print(f"{name}: {json.dumps(found[0].counts)}", flush=True)
    print(f"\n{'':<32}{'peer':<13}{'wall s':>8}{'ours':>8}{'ratio':>7}  {'CPU s':>8}{'ours':>8}{'ratio':>7}  bar")
    for row in rows:
        bar = f"{'ok' if row.ok else 'MISS'} (at least {row.bar_wall:g})" if row.bar_wall else ""
        print(f"{row.what:<32}{row.peer:<13}{row.peer_wall:8.1f}{row.ours_wall:8.1f}{row.wall_ratio:7.2f}", end="  ")
        print(f"{row.peer_cpu:8.1f}{row.ours_cpu:8.1f}{row.cpu_ratio:7.2f}  {bar}")
    if args.json:
        told = [{**asdict(r), "wall_ratio": r.wall_ratio, "cpu_ratio": r.cpu_ratio, "ok": r.ok} for r in rows]
        print(json.dumps({"images": args.images, "clips": args.clips, "rows": told, "skipped": skipped}))


if __name__ == "__main__":
    main()
