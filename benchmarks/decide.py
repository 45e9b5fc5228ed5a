"""How long do verdicts on a million samples take, and how much memory?

Records, samples and signals are made up, seeded, and written as a build holds them: one Parquet file for each piece and
signal, in the order of the listing, which is not that of the ids. There are four number signals, two absolute rules and
a percentile, 2 % records with the bytes of another, 1 % that are too small, 1 % failures in ingest and in each signal,
and an embedding of `tiny_image`'s length: overlapping topics, and 5 % copies of other samples at a cosine of 0.97 and
above.

Verdicts (`decide_records`, `decide_samples`, `assemble`, `conserve`) are made in a process of their own, which says its
peak resident memory after each step. "Read" are the bytes of the columns that verdicts are made from, in memory: ids,
what the ledger copies from records and samples, the fields in use, and embeddings.

    python benchmarks/decide.py                    # 100,000 and 1,000,000 samples, GB in a temporary folder
    python benchmarks/decide.py --rows 200000 --near none
    python benchmarks/decide.py --rows 20000 --ledger /tmp/ledger.parquet
    python benchmarks/decide.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter, process_time
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


def make(folder: Path, rows: int, dim: int, piece: int, seed: int) -> dict[str, Any]:
    """Write records, samples and signals of `rows` samples; what verdicts have to find."""
    import numpy as np

    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((max(2, min(rows // 100, 4096)), dim), dtype=np.float32)
    pool = np.empty((0, dim), np.float32)
    truth = {"samples": rows, "records": 0, "exact": 0, "near": 0, "read_bytes": 0}
    for number, start in enumerate(range(0, rows, piece)):
        count = min(piece, rows - start)
        truth["read_bytes"] += _about(folder, f"part-{number:05d}.parquet", rng, start, count, truth)
        vectors = _drawn(rng, topics, count)
        place = rng.permutation(count)
        if number:  # the first piece has nothing to copy
            copies = place[: count // 20]
            vectors[copies] = _turned(rng, pool[rng.integers(len(pool), size=len(copies))])
            truth["near"] += len(copies)
        pool = np.concatenate([pool, vectors[place[count // 20 :][: count // 10]]])[-POOL:]
        truth["read_bytes"] += _signals(folder, f"part-{number:05d}.parquet", rng, start, vectors)
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


def _about(folder: Path, name: str, rng: np.random.Generator, start: int, count: int, truth: dict[str, Any]) -> int:
    """Samples and their records, with more records that have no sample: copies, too small ones, failures."""
    import pyarrow as pa

    from curate.schema.ids import record_id
    from curate.schema.tables import RECORDS, SAMPLES

    samples, records = [], []
    for i in range(start, start + count):
        uri = f"https://images.example.org/{i % 997:03d}/{i:012d}.jpg"
        width, height = (int(v) for v in rng.integers(256, 2048, 2))
        video = i % 5 == 0
        both = {
            "record_id": record_id("synthetic", uri),
            "content_id": sample_name(i),
            "source": "synthetic",
            "uri": uri,
            "kind": "video" if video else "image",
            "text": f"a made-up caption of sample number {i}, as long as captions are",
            "media": f"media/{name}.tar",
            "member": f"{i:012d}.jpg",
            "bytes": 123_456,
            "offset": 512 + 123_456 * (i - start),
            "width": width,
            "height": height,
            "duration": float(rng.uniform(1, 10)) if video else None,
            "codec": "h264" if video else "jpeg",
        }
        samples.append({**both, "sample_id": both["content_id"], "start_us": 0, "end_us": 10**6 if video else 0})
        records.append({**both, "meta": "{}"})
        if i % 50 == 0:
            records.append({**records[-1], "record_id": record_id("synthetic", uri, 1), "text": None})
            truth["exact"] += 1
        if i % 100 == 0:
            small, gone = f"{uri}?small", f"{uri}?gone"
            records.append({**records[-1], "record_id": record_id("synthetic", small), "uri": small, "width": 64})
            records[-1]["content_id"] = records[-1]["record_id"]
            records.append(
                {"record_id": record_id("synthetic", gone), "source": "synthetic", "uri": gone, "meta": "{}"}
            )
            records[-1] |= _failure("ingest")
    truth["records"] += len(records)
    written = {"records": pa.Table.from_pylist(records, RECORDS), "samples": pa.Table.from_pylist(samples, SAMPLES)}
    for kind, table in written.items():
        _write(folder / kind / name, table)
    return sum(table.select([c for c in table.column_names if c in _READ]).nbytes for table in written.values())


_READ = ("record_id", "sample_id", "content_id", "source", "uri", "kind", "text", "start_us", "end_us", "width")
_READ += ("height", "stage", "error", "message", "attempt")


def _signals(folder: Path, name: str, rng: np.random.Generator, start: int, vectors: NDArray[np.float32]) -> int:
    """Signals of a piece: one file each; the bytes of all."""
    import numpy as np
    import pyarrow as pa

    from curate.schema.tables import FAILURE

    count, dim = vectors.shape
    ids = pa.array([sample_name(i) for i in range(start, start + count)], pa.string())
    read = 0
    for signal in (*NUMBERS, EMBEDDING):
        failed = rng.random(count) < 0.01
        why = [_failure(f"annotate:{signal}") if f else {} for f in failed]
        if signal == EMBEDDING:
            values = pa.FixedSizeListArray.from_arrays(vectors.ravel(), dim, mask=pa.array(failed))
        else:
            values = pa.array(rng.uniform(0, 10, count).astype(np.float32), mask=failed)
        columns = {f.name: pa.array([w.get(f.name) for w in why], f.type) for f in FAILURE}
        table = pa.table({"sample_id": ids, signal: values, **columns})
        _write(folder / signal / name, table)
        read += table.nbytes
    return read


def _failure(stage: str) -> dict[str, Any]:
    return {"stage": stage, "error": "MediaError", "message": "cannot decode: invalid data found", "attempt": 1}


def sample_name(i: int) -> str:
    """The id of the i-th sample."""
    from curate.schema.ids import content_id

    return content_id(f"sample {i}".encode())


def _write(path: Path, table: pa.Table) -> None:
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd")


def verdicts(folder: Path, near: str, dim: int, ledger: str | None) -> dict[str, Any]:
    """Decide on what `make` wrote; seconds and peak memory of each step, and what came out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.decide.ledger import assemble, conserve
    from curate.decide.near import near_duplicates
    from curate.decide.records import decide_records
    from curate.decide.samples import decide_samples
    from curate.schema.fields import SignalField
    from curate.schema.recipe import Decide, NearDuplicates, Rule

    fields = {name: SignalField(name, pa.float32(), "score", (0, 10)) for name in NUMBERS}
    fields[EMBEDDING] = SignalField(EMBEDDING, pa.list_(pa.float32(), dim), kinds=("image", "video"))
    spec = Decide(
        records=[Rule(field="width", min=256)],
        rules=[
            Rule(field="sharpness", min=0.5),
            Rule(field="aesthetic", min=0.5),
            Rule(field="clip_score", min_percentile=5),
        ],
        near_duplicates=[NearDuplicates(embedding=EMBEDDING, threshold=THRESHOLD, keep=["pixels", "brightness"])]
        if near == "cells"
        else [],
    )
    files = {kind.name: sorted(map(str, kind.iterdir())) for kind in folder.iterdir()}
    # libraries loaded: what they take is not what verdicts take
    import duckdb
    import faiss
    import numpy as np

    duckdb.connect(":memory:").close()
    near_duplicates(["a", "b"], np.eye(2), np.zeros((2, 0)), 0.5)
    assert faiss.__version__

    steps: list[dict[str, Any]] = []
    last = perf_counter(), process_time()

    def step(name: str) -> None:
        nonlocal last
        now = perf_counter(), process_time()
        seconds, cpu = (round(b - a, 2) for a, b in zip(last, now, strict=True))
        steps.append({"step": name, "seconds": seconds, "cpu_seconds": cpu, "peak_mib": round(peak_mib())})
        last = now

    step("start")
    records = decide_records(files["records"], spec.records)
    step("records")
    samples = decide_samples(files["samples"], {s: files[s] for s in (*NUMBERS, EMBEDDING)}, spec, fields, seed=0)
    step("samples")
    if ledger is not None:
        pq.write_table(pa.concat_tables([records, samples]), ledger)
    whole = assemble(records, samples)
    ledger_bytes = whole.nbytes
    del records, samples
    step("assemble")
    sums = conserve(whole)
    step("conserve")
    return {"steps": steps, "sums": sums, "ledger_mib": round(ledger_bytes / 2**20)}


def peak_mib() -> float:
    """The most memory that this process has had resident, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def child(*arguments: str) -> dict[str, Any]:
    """The answer of this script in a process of its own, whose peak starts from this small one's."""
    libraries = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    done = subprocess.run(
        [sys.executable, __file__, *arguments], env={**os.environ, **libraries}, stdout=subprocess.PIPE, check=True
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(folder: Path, rows: int, args: argparse.Namespace) -> dict[str, Any]:
    """One size: made (unless it is there already) and decided."""
    truth = folder / "truth.json"
    if not truth.exists():
        given = ["--dim", args.dim, "--piece", args.piece, "--seed", args.seed]
        made = child("--rows", str(rows), "--make", str(folder / "data"), *map(str, given))
        truth.write_text(json.dumps(made))
    start = perf_counter()
    ledger = ["--ledger", args.ledger] if args.ledger else []
    out = child("--verdicts", str(folder / "data"), "--near", args.near, "--dim", str(args.dim), *ledger)
    sizes = [f.stat().st_size for f in (folder / "data").rglob("*.parquet")]
    return {
        **json.loads(truth.read_text()),
        "files": len(sizes),
        "file_bytes": sum(sizes),
        "seconds": round(perf_counter() - start, 1),
        **out,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=768, help="length of the embedding")
    parser.add_argument("--piece", type=int, default=1024, help="samples of one file")
    parser.add_argument("--near", choices=("cells", "none"), default="cells", help="near duplicates, or without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="keep what is made here, and use it again")
    parser.add_argument("--ledger", help="write the ledger rows here, to compare two versions of the code")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--verdicts", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.make:
        print(json.dumps(make(args.make, args.rows[0], args.dim, args.piece, args.seed)))
        return
    if args.verdicts:
        print(json.dumps(verdicts(args.verdicts, args.near, args.dim, args.ledger)))
        return
    with tempfile.TemporaryDirectory(prefix="curate-benchmark-") as scratch:
        for rows in args.rows:
            folder = (args.folder or Path(scratch)) / str(rows)
            folder.mkdir(parents=True, exist_ok=True)
            result = measure(folder, rows, args)
            print(json.dumps(result) if args.json else _text(result), flush=True)


def _text(result: dict[str, Any]) -> str:
    peak, start = result["steps"][-1]["peak_mib"], result["steps"][0]["peak_mib"]
    read = result["read_bytes"] / 2**20
    steps = "\n".join(
        f"  {s['step']:10} {s['seconds']:8.2f} s, {s['cpu_seconds']:8.2f} s of CPU, peak {s['peak_mib']:6} MiB"
        for s in result["steps"]
    )
    files = f"{result['files']:,} files, {result['file_bytes'] / 2**20:,.0f} MiB"
    return f"""\
{result["samples"]:,} samples, {result["records"]:,} records, {files}
{steps}
  peak less the libraries: {peak - start} MiB, {(peak - start) / read:.2f} of the {read:,.0f} MiB read
  the ledger: {result["ledger_mib"]} MiB
  made up: {result["exact"]:,} exact and {result["near"]:,} near duplicates
  found: {json.dumps(result["sums"])}
"""


if __name__ == "__main__":
    main()
