"""How long do verdicts on a million samples take, and how much memory?

Fragments of records, samples and signals are made up, seeded, and written as a build holds them, a partition at a time.
There are four number signals in one group and an embedding in another, two absolute rules and a percentile; 2 % records
with the bytes of another, 1 % that are too small, 1 % failures in ingest and in each signal; embeddings are overlapping
topics, and 5 % are copies of others at a cosine of 0.97 and above.

`decide` runs twice on a local Ray: on fresh fragments, and again with one threshold moved. Printed are wall seconds of
both after Ray is up, CPU seconds of all processes, and the largest resident memory of the driver, of any worker, and of
Ray's own processes (the object store, which `--store` sizes, counts as one of these), sampled twice a second.

    python benchmarks/decide.py                    # 100,000 and 1,000,000 samples
    python benchmarks/decide.py --rows 10000000 --dim 16
    python benchmarks/decide.py --rows 200000 --near none --json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

NUMBERS = ("sharpness", "aesthetic", "clip_score", "brightness")
EMBEDDING = "tiny_image"
THRESHOLD = 0.95
POOL = 8192
"""So many samples at a time have copies made of them."""


def make(folder: Path, rows: int, dim: int, partition: int, seed: int) -> dict[str, Any]:
    """Write the fragments of `rows` samples; what verdicts have to find."""
    import numpy as np

    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((max(2, min(rows // 100, 4096)), dim), dtype=np.float32)
    pool = np.empty((0, dim), np.float32)
    truth = {"samples": rows, "records": 0, "exact": 0, "near": 0}
    for number, start in enumerate(range(0, rows, partition)):
        count = min(partition, rows - start)
        vectors = _drawn(rng, topics, count)
        place = rng.permutation(count)
        if number:  # the first partition has nothing to copy
            copies = place[: count // 20]
            vectors[copies] = _turned(rng, pool[rng.integers(len(pool), size=len(copies))])
            truth["near"] += len(copies)
        pool = np.concatenate([pool, vectors[place[count // 20 :][: count // 10]]])[-POOL:]
        _partition(folder, f"synthetic-{number:06d}", rng, start, vectors, truth)
    return truth


def _drawn(rng: np.random.Generator, topics: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Unit vectors, two of one topic at a cosine of about one half."""
    import numpy as np

    vectors = rng.standard_normal((count, topics.shape[1]), dtype=np.float32)
    vectors += topics[rng.integers(len(topics), size=count)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _turned(rng: np.random.Generator, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each unit vector turned by a random angle of a cosine of 0.97 to 1."""
    import numpy as np

    cosine = rng.uniform(0.97, 1, (len(vectors), 1)).astype(np.float32)
    off = rng.standard_normal(vectors.shape, dtype=np.float32)
    off -= (off * vectors).sum(axis=1, keepdims=True) * vectors
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    turned: NDArray[np.float32] = cosine * vectors + np.sqrt(1 - cosine**2) * off
    return turned


def _partition(
    folder: Path, name: str, rng: np.random.Generator, start: int, vectors: NDArray[np.float32], truth: dict[str, Any]
) -> None:
    """Fragments of one partition: its samples' records, and more of them that are copies, too small, or failed."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from curate.decide.keys import names_of
    from curate.schema.tables import FAILURE, RECORDS, SAMPLES

    n = len(vectors)
    number = np.arange(start, start + n)
    copy, small, gone = np.flatnonzero(number % 50 == 0), np.flatnonzero(number % 100 == 0), np.arange(0, n, 100)
    truth["records"] += n + len(copy) + len(small) + len(gone)
    truth["exact"] += len(copy)

    def ids(count: int) -> pa.Array:
        return names_of(np.frombuffer(rng.bytes(16 * count), "S16"))

    row = np.concatenate([np.arange(n), copy, small])  # of what is media
    media = len(row)
    total = media + len(gone)
    content = pa.concat_arrays([ids(n).take(pa.array(row[: n + len(copy)])), ids(len(small))])
    record = ids(total)
    some = pa.array(np.concatenate([row, gone]))
    uri = pc.binary_join_element_wise(
        "https://images.example.org/photos/", pa.array(number).take(some).cast(pa.string()), ".jpg", ""
    )
    video = (number % 5 == 0)[row]
    width, height = rng.integers(256, 2048, (2, n)).astype(np.int32)
    wide = width[row]
    wide[-len(small) :] = 64
    about: dict[str, pa.Array] = {
        "source": pa.repeat("synthetic", media),
        "uri": uri.slice(0, media),
        "kind": pa.array(["image", "video"]).take(pa.array(video.astype(int))),
        "text": pc.binary_join_element_wise("a made-up caption of sample ", pa.array(row).cast(pa.string()), ""),
        "media": pa.repeat(f"media/{name}.tar", media),
        "member": uri.slice(0, media),
        "bytes": pa.repeat(pa.scalar(123_456, pa.int64()), media),
        "offset": pa.array(512 + 123_456 * np.arange(media)),
        "width": pa.array(wide),
        "height": pa.array(height[row]),
        "duration": pa.array(rng.uniform(1, 10, n)[row], mask=~video),
        "codec": pa.array(["jpeg", "h264"]).take(pa.array(video.astype(int))),
        "content_id": content,
        "record_id": record.slice(0, media),
    }
    zero = pa.repeat(pa.scalar(0, pa.int64()), media)
    samples = {**about, "sample_id": content, "start_us": zero, "end_us": zero}
    failed = {f.name: [None] * media + [_FAILURE[f.name]] * len(gone) for f in FAILURE}
    records = {k: pa.concat_arrays([v, pa.nulls(len(gone), v.type)]) for k, v in about.items()}
    records |= {"record_id": record, "uri": uri, "source": pa.repeat("synthetic", total)}
    records |= {"meta": pa.repeat("{}", total), **{f.name: pa.array(failed[f.name], f.type) for f in FAILURE}}
    for kind, given, schema in (("records", records, RECORDS), ("samples", samples, SAMPLES)):
        columns = [given.get(f.name, pa.nulls(total if kind == "records" else media, f.type)) for f in schema]
        _write(folder / kind / f"{name}.parquet", pa.table(columns, names=schema.names).cast(schema))

    light: dict[str, pa.Array] = {"sample_id": content}
    for signal in (*NUMBERS, EMBEDDING):
        broken = (rng.random(n) < 0.01)[row]
        why = pa.array([_FAILURE if b else None for b in broken], pa.struct(FAILURE))
        if signal == EMBEDDING:
            values = pa.FixedSizeListArray.from_arrays(vectors[row].ravel(), vectors.shape[1], mask=pa.array(broken))
            table = pa.table({"sample_id": content, signal: values, f"failure:{signal}": why})
            _write(folder / "signals" / signal / f"{name}.parquet", table)
        else:
            light[signal] = pa.array(rng.uniform(0, 10, n).astype(np.float32)[row], mask=broken)
            light[f"failure:{signal}"] = why
    _write(folder / "signals" / "light" / f"{name}.parquet", pa.table(light))


_FAILURE = {"stage": "annotate", "error": "MediaError", "message": "cannot decode: invalid data found", "attempt": 1}


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def verdicts(folder: Path, near: str, dim: int, cpus: int, store: int) -> dict[str, Any]:
    """Decide on what `make` wrote, twice."""
    import pyarrow as pa
    import ray

    from curate.decide.decide import decide
    from curate.decide.ledger import checked_counts
    from curate.decide.partitions import PartitionFiles
    from curate.pipeline.engine import RayEngine
    from curate.schema.fields import SignalField
    from curate.schema.recipe import Decide, NearDuplicates, Rule
    from curate.storage import Folder

    fields = {name: SignalField(name, pa.float32(), "score", (0, 10)) for name in NUMBERS}
    fields[EMBEDDING] = SignalField(EMBEDDING, pa.list_(pa.float32(), dim), kinds=("image", "video"))
    homes = {**dict.fromkeys(NUMBERS, "light"), EMBEDDING: EMBEDDING}
    names = sorted(p.stem for p in (folder / "records").iterdir())
    partitions = [
        PartitionFiles(
            n,
            f"records/{n}.parquet",
            f"samples/{n}.parquet",
            {g: f"signals/{g}/{n}.parquet" for g in ("light", EMBEDDING)},
        )
        for n in names
    ]
    spec = NearDuplicates(embedding=EMBEDDING, threshold=THRESHOLD, keep=["pixels", "brightness"])
    ray.init(
        address="local",
        num_cpus=cpus,
        object_store_memory=store << 20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    engine = RayEngine(cpus)
    list(engine.map(_warm, [()] * cpus))
    out: dict[str, Any] = {}
    with peaks() as memory:
        for what, least in (("fresh", 0.5), ("moved", 0.6)):
            options = Decide(
                records=[Rule(field="width", min=256)],
                rules=[
                    Rule(field="sharpness", min=least),
                    Rule(field="aesthetic", min=0.5),
                    Rule(field="clip_score", min_percentile=5),
                ],
                near_duplicates=[spec] if near == "cells" else [],
            )
            start, cpu = perf_counter(), cpu_seconds()
            decided = decide(Folder(folder), partitions, options, fields, homes, homes, 0, engine)
            out[f"{what}_seconds"] = round(perf_counter() - start, 2)
            out[f"{what}_cpu_seconds"] = round(cpu_seconds() - cpu, 1)
            out[f"{what}_sums"] = checked_counts(f.counts for f in decided.fragments)
    return {**out, "partitions": len(names), "links_files": len(decided.pairs), "peak_mib": memory}


def _warm() -> None:
    """What a worker loads once."""
    import faiss  # noqa: F401
    import scipy.sparse.csgraph  # noqa: F401

    import curate.decide.decide  # noqa: F401


def processes() -> Iterator[tuple[str, Path]]:
    """This process and all below it, each with what it is: `driver`, `worker` or `ray`."""
    parent: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    for pid in parent:
        at: int | None = pid
        while at and at != os.getpid():
            at = parent.get(at)
        if at:
            try:
                title = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            kind = "driver" if pid == os.getpid() else "worker" if title.startswith("ray::") else "ray"
            yield kind, Path(f"/proc/{pid}")


def cpu_seconds() -> float:
    """CPU seconds of all processes."""
    ticks = 0
    for _, process in processes():
        try:
            ticks += sum(map(int, (process / "stat").read_text().rpartition(")")[2].split()[11:13]))
        except OSError:
            continue
    return ticks / os.sysconf("SC_CLK_TCK")


@contextmanager
def peaks() -> Iterator[dict[str, int]]:
    """The largest resident memory of any process of each kind, MiB, sampled twice a second; `own` is without files and
    without the pages of the object store that it has looked at."""
    most: dict[str, int] = {}
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.5):
            for kind, process in processes():
                try:
                    said = (process / "status").read_text()
                except OSError:
                    continue
                for key, name in (("VmRSS:", kind), ("RssAnon:", f"{kind} own")):
                    if key in said:
                        most[name] = max(most.get(name, 0), int(said.split(key)[1].split()[0]) >> 10)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def child(*arguments: str) -> dict[str, Any]:
    """The answer of this script in a process of its own."""
    libraries = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env={**os.environ, **libraries}, stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measure(folder: Path, rows: int, args: argparse.Namespace) -> dict[str, Any]:
    """One size: made (unless it is there already) and decided."""
    truth = folder / "truth.json"
    if not truth.exists():
        given = ["--dim", args.dim, "--partition", args.partition, "--seed", args.seed]
        made = child("--rows", str(rows), "--make", str(folder / "data"), *map(str, given))
        truth.write_text(json.dumps(made))
    given = ["--near", args.near, "--dim", args.dim, "--cpus", args.cpus, "--store", args.store]
    out = child("--verdicts", str(folder / "data"), *map(str, given))
    return {**json.loads(truth.read_text()), **out}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=64, help="length of the embedding")
    parser.add_argument("--partition", type=int, default=1024, help="samples of one fragment")
    parser.add_argument("--near", choices=("cells", "none"), default="cells", help="near duplicates, or without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--store", type=int, default=1024, help="MiB of Ray's object store; more than that is spilled")
    parser.add_argument("--folder", type=Path, help="keep what is made here, and use it again")
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--verdicts", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        print(json.dumps(make(args.make, args.rows[0], args.dim, args.partition, args.seed)))
        return
    if args.verdicts:
        print(json.dumps(verdicts(args.verdicts, args.near, args.dim, args.cpus, args.store)))
        return
    results = []
    with tempfile.TemporaryDirectory(prefix="curate-benchmark-") as scratch:
        for rows in args.rows:
            folder = (args.folder or Path(scratch)) / str(rows)
            folder.mkdir(parents=True, exist_ok=True)
            results.append(measure(folder, rows, args))
            print(_text(results[-1]), flush=True)
    if args.json:
        print(json.dumps({"runs": results}))


def _text(result: dict[str, Any]) -> str:
    memory = ", ".join(f"{kind} {mib} MiB" for kind, mib in sorted(result["peak_mib"].items()))
    return f"""\
{result["samples"]:,} samples, {result["records"]:,} records, {result["partitions"]:,} partitions
  fresh        {result["fresh_seconds"]:8.2f} s, {result["fresh_cpu_seconds"]:8.1f} s of CPU
  moved rule   {result["moved_seconds"]:8.2f} s, {result["moved_cpu_seconds"]:8.1f} s of CPU
  largest processes: {memory}
  made up: {result["exact"]:,} exact and {result["near"]:,} near duplicates
  found: {json.dumps(result["fresh_sums"])}
"""


if __name__ == "__main__":
    main()
