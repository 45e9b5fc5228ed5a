"""What do near duplicates by cells cost, and lose, against all pairs by FAISS?

Vectors are made up: topics that overlap (two rows of one topic have a cosine of about one half; `--topic 0` has no
topics at all, the worst case for cells), and copies of other rows turned by a random angle, half of them to either side
of the threshold. Both sides get the same vectors in the same process on the same number of threads:

* ours: links from fragments on disk (`curate.decide.near.Cosine`: reading, k-means, cells, comparing, writing the
  links) and their groups (`curate.decide.groups.read_links`), one task after the other;
* FAISS: `IndexFlatIP.range_search` in all rows, of `--queries` rows drawn at random; its seconds are scaled by rows /
  queries, since a flat search takes the same for each. `--full` searches for all rows.

Printed are the seconds of both, FAISS's seconds divided by ours, and how much of it we find: of the pairs that FAISS
finds, of the planted pairs that reach the threshold, and of both together (`recall`) the share whose rows are in one
group of ours. `--full` adds the share of the duplicates (its groups' rows but one each) that ours has too, and the rows
that are linked by us alone.

    python benchmarks/near_duplicates.py
    python benchmarks/near_duplicates.py --rows 200000 --dim 512 --threads 1
    python benchmarks/near_duplicates.py --full --json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from curate.decide.methods import Material

PARTITION = 1024


def made_up(
    rows: int, dim: int, topic: float, copies: float, threshold: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors, float32 `(rows, dim)`; a share `copies` of them are near the threshold with another row, and those
    that reach it come with that row, `(n, 2)`."""
    import numpy as np

    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((max(2, rows // 100), dim), dtype=np.float32)
    vectors = rng.standard_normal((rows, dim), dtype=np.float32)
    vectors += np.float32(topic) * topics[rng.integers(len(topics), size=rows)]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    copy, original = rng.permutation(rows)[: 2 * int(rows * copies)].reshape(2, -1)
    cosine = rng.uniform(2 * threshold - 1, 1, (len(copy), 1)).astype(np.float32)
    off = rng.standard_normal((len(copy), dim), dtype=np.float32)
    off -= (off * vectors[original]).sum(axis=1, keepdims=True) * vectors[original]
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    vectors[copy] = cosine * vectors[original] + np.sqrt(1 - cosine**2) * off
    reached = (vectors[copy] * vectors[original]).sum(axis=1) >= threshold
    return vectors, np.stack([copy, original], axis=1)[reached]


def material(folder: Path, vectors: NDArray[np.float32], seed: int) -> Material:
    """A build of these vectors: the i-th sample has the number i as id."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from curate.decide.decide import GROUP
    from curate.decide.engine import LocalEngine
    from curate.decide.keys import names_of
    from curate.decide.methods import Material
    from curate.decide.partitions import PartitionFiles, Wanted, load
    from curate.schema.fields import SignalField
    from curate.schema.tables import FAILURE, RECORDS, SAMPLES
    from curate.storage import Folder

    n, dim = vectors.shape
    ids = names_of(np.stack([np.zeros(n, np.int64), np.arange(n)], axis=1).astype(">u8").view("S16").ravel())
    files = []
    for start in range(0, n, PARTITION):
        some = ids.slice(start, PARTITION)
        said = {"record_id": some, "sample_id": some, "content_id": some, "kind": pa.repeat("image", len(some))}
        look = pa.FixedSizeListArray.from_arrays(vectors[start : start + PARTITION].ravel(), dim)
        failure = pa.nulls(len(some), pa.struct(FAILURE))
        paths = {}
        for kind, schema in (("records", RECORDS), ("samples", SAMPLES), ("look", None)):
            if schema is None:
                table = pa.table({"sample_id": some, "look": look, "failure:look": failure})
            else:
                filled = {pa.string(): "x", pa.int64(): 0}
                blank = {
                    f.name: pa.nulls(len(some), f.type) if f.nullable else pa.repeat(filled[f.type], len(some))
                    for f in schema
                }
                table = pa.table([(blank | said)[f.name] for f in schema], schema=schema)
            paths[kind] = f"{kind}/{start:09d}.parquet"
            (folder / kind).mkdir(exist_ok=True)
            pq.write_table(table, folder / paths[kind], compression="zstd")
        files.append(PartitionFiles(f"{start:09d}", paths["records"], paths["samples"], {"look": paths["look"]}))
    build, engine = Folder(folder), LocalEngine()
    groups = [files[i : i + GROUP[0]] for i in range(0, len(files), GROUP[0])]
    wanted = Wanted((), (), {"look": ()}, {"look": "look"})
    loaded = engine.hold(load, [(build, wanted, group, {}) for group in groups])
    field = SignalField("look", pa.list_(pa.float32(), dim))
    return Material(build, groups, loaded, {"image": n}, "look", field, seed, engine)


def compare(
    rows: int,
    dim: int,
    topic: float,
    copies: float,
    threshold: float,
    threads: int,
    seed: int,
    queries: int,
    folder: Path,
) -> dict[str, Any]:
    """One run of both sides."""
    import faiss
    import numpy as np

    from curate.decide.forest import components
    from curate.decide.groups import read_links
    from curate.decide.keys import words
    from curate.decide.near import Cosine, default_cells
    from curate.schema.recipe import NearDuplicates

    vectors, planted = made_up(rows, dim, topic, copies, threshold, seed)
    made = material(folder, vectors, seed)
    faiss.omp_set_num_threads(threads)

    start = time.perf_counter(), time.process_time()
    links = Cosine().links(made, NearDuplicates(embedding="look", threshold=threshold))
    linked = read_links(made.build, True, [(path, threshold) for path in links])
    ours, ours_cpu = time.perf_counter() - start[0], time.process_time() - start[1]

    full = queries >= rows
    asked = np.arange(rows) if full else np.sort(np.random.default_rng(seed).choice(rows, queries, replace=False))
    index = faiss.IndexFlatIP(dim)
    index.add(vectors)
    looked_for = vectors[asked]
    start = time.perf_counter(), time.process_time()
    limits, _, others = index.range_search(looked_for, threshold)
    scale = rows / len(asked)
    brute, brute_cpu = (time.perf_counter() - start[0]) * scale, (time.process_time() - start[1]) * scale

    i = asked[np.repeat(np.arange(len(asked)), (limits[1:] - limits[:-1]).astype(np.int64))]
    pairs = np.stack([i, others], axis=1)[i != others]
    group = np.arange(rows) + len(linked.key)
    group[words(linked.key)[1].astype(np.int64)] = linked.group

    def found(pairs: NDArray[np.int64]) -> float | None:
        return round(float((group[pairs[:, 0]] == group[pairs[:, 1]]).mean()), 5) if len(pairs) else None

    out = {
        "rows": rows,
        "dim": dim,
        "topic": topic,
        "threshold": threshold,
        "threads": threads,
        "cells": default_cells(rows),
        "faiss_queries": len(asked),
        "faiss_scaled_by": round(scale, 3),
        "ours_seconds": round(ours, 2),
        "faiss_seconds": round(brute, 2),
        "ratio": round(brute / ours, 2),
        "ours_cpu_seconds": round(ours_cpu, 2),
        "faiss_cpu_seconds": round(brute_cpu, 2),
        "cpu_ratio": round(brute_cpu / ours_cpu, 2),
        "pairs": len(pairs),
        "pair_recall": found(pairs),
        "planted": len(planted),
        "planted_recall": found(planted),
        "recall": found(np.unique(np.sort(np.concatenate([pairs, planted]), axis=1), axis=0)),
    }
    if full:
        label = components(rows, pairs[:, 0], pairs[:, 1])
        _, size = np.unique(label, return_counts=True)
        duplicates = int((size - 1).sum())
        both = np.unique(np.stack([label, group]), axis=1).shape[1]
        out |= {
            "duplicates": duplicates,
            "duplicates_recall": round((rows - both) / duplicates, 5) if duplicates else None,
            "only_ours": both - len(np.unique(group)),
        }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument(
        "--copies", type=float, default=0.1, help="share of rows that are copies of others, at most 0.5"
    )
    parser.add_argument("--topic", type=float, default=1.0, help="weight of the topic beside a row's own part")
    parser.add_argument("--threshold", type=float, default=0.95, help="cosine")
    parser.add_argument("--threads", type=int, default=1, help="for both sides (our k-means always takes one)")
    parser.add_argument("--queries", type=int, default=4000, help="rows that FAISS looks for")
    parser.add_argument("--full", action="store_true", help="FAISS looks for all rows")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    args = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):  # read when numpy and FAISS are imported, so before that
        os.environ[f"{library}_NUM_THREADS"] = str(args.threads)
    with tempfile.TemporaryDirectory(prefix="curate-benchmark-") as folder:
        result = compare(
            args.rows,
            args.dim,
            args.topic,
            args.copies,
            args.threshold,
            args.threads,
            args.seed,
            args.rows if args.full else args.queries,
            Path(folder),
        )
    for name, value in result.items():
        print(f"{name:22} {value}")
    if args.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
