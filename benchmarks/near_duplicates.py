"""What do near duplicates by cells cost, and lose, against all pairs by FAISS?

Vectors are made up: topics that overlap (two rows of one topic have a cosine of about one half; `--topic 0` has no
topics at all, the worst case for cells), and copies of other rows turned by a random angle, half of them to either side
of the threshold. Both sides get the same vectors in the same process on the same number of threads:

* ours: `curate.decide.near.near_duplicates`, k-means and comparisons included, to groups and their keepers;
* FAISS: `IndexFlatIP.range_search` of all rows in all rows, to pairs.

Printed are the seconds of both, FAISS's seconds divided by ours, the share of FAISS's pairs whose rows share a cell
(only those are compared), and the share of the duplicates of FAISS's groups that are duplicates in ours.

    python benchmarks/near_duplicates.py
    python benchmarks/near_duplicates.py --rows 200000 --dim 512 --threads 2
    python benchmarks/near_duplicates.py --json
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def made_up(rows: int, dim: int, topic: float, copies: float, threshold: float, seed: int) -> NDArray[np.float32]:
    """Unit vectors, float32 `(rows, dim)`; a share `copies` of them are near the threshold with another row."""
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
    return vectors


def compare(
    rows: int, dim: int, topic: float, copies: float, threshold: float, threads: int, seed: int
) -> dict[str, Any]:
    """One run of both sides."""
    import faiss
    import numpy as np
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    from curate.decide.near import cells, default_cells, near_duplicates
    from curate.schema.ids import content_id

    faiss.omp_set_num_threads(threads)
    ids = sorted(content_id(str(i).encode()) for i in range(rows))
    vectors = made_up(rows, dim, topic, copies, threshold, seed)

    start = time.perf_counter()
    groups = near_duplicates(ids, vectors, np.zeros((rows, 0)), threshold, seed=seed, exact_rows=0)
    ours = time.perf_counter() - start

    start = time.perf_counter()
    index = faiss.IndexFlatIP(dim)
    index.add(vectors)
    limits, _, others = index.range_search(vectors, threshold)
    brute = time.perf_counter() - start

    i = np.repeat(np.arange(rows), (limits[1:] - limits[:-1]).astype(np.int64))
    pairs = np.stack([i, others], axis=1)[i < others]
    assigned = cells(ids, vectors, default_cells(rows), seed)
    shared = (assigned[pairs[:, 0], :, None] == assigned[pairs[:, 1], None, :]).any(axis=(1, 2))
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(rows, rows))
    _, label = connected_components(graph, directed=False)
    _, first = np.unique(label, return_index=True)
    truth = set(range(rows)) - set(first.tolist())
    at = {key: i for i, key in enumerate(ids)}
    found = {at[key] for key in groups.ids}
    return {
        "rows": rows,
        "dim": dim,
        "topic": topic,
        "threshold": threshold,
        "threads": threads,
        "cells": default_cells(rows),
        "ours_seconds": round(ours, 2),
        "faiss_seconds": round(brute, 2),
        "ratio": round(brute / ours, 2),
        "pairs": len(pairs),
        "pair_recall": round(float(shared.mean()), 4) if len(pairs) else None,
        "duplicates": len(truth),
        "duplicate_recall": round(len(truth & found) / len(truth), 4) if truth else None,
        "not_in_faiss": len(found - truth),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument(
        "--copies", type=float, default=0.1, help="share of rows that are copies of others, at most 0.5"
    )
    parser.add_argument("--topic", type=float, default=1.0, help="weight of the topic beside a row's own part")
    parser.add_argument("--threshold", type=float, default=0.95, help="cosine")
    parser.add_argument("--threads", type=int, default=1, help="for both sides (our k-means always takes one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    for library in ("OMP", "OPENBLAS", "MKL"):  # read when numpy and FAISS are imported, so before that
        os.environ[f"{library}_NUM_THREADS"] = str(args.threads)
    result = compare(args.rows, args.dim, args.topic, args.copies, args.threshold, args.threads, args.seed)
    if args.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:22} {value}")


if __name__ == "__main__":
    main()
