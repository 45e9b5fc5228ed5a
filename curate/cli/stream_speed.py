"""`curate stream --bench`: how fast a build streams, beside reading the same files raw."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.reader import find_split
from curate.shards.rows import Ragged
from curate.shards.shuffle import Permutation
from curate.shards.token_stream import LOOK_AHEAD, TokenStream
from curate.shards.views import RawView
from curate.storage import Store, open_store

_TURNS = 6


def stream_speed(
    build: Store | Path | str, seconds: float = 5.0, split: str = "train", batch: int = 256
) -> dict[str, float]:
    """Time shuffled `RawView` batches and, in turn with them, two raw memory-mapped reads of the same shards.

    * shuffled: the files as if they were arrays of rows of one size, rows copied in an order drawn at random, 4,096
      looked ahead: what a loader of raw arrays could do at best. `ratio` is to this one.
    * sequential: the files copied from start to end in pieces of one batch's bytes: what the memory allows.

    One thread, warm page cache, wall clock; of several turns the fastest counts, as other work on the machine can only
    slow one down.

    Returns:
        samples_per_s, mb_per_s (ids and offsets handed out), raw_samples_per_s, raw_mb_per_s (shuffled),
        sequential_samples_per_s, sequential_mb_per_s, ratio (of samples_per_s to raw_samples_per_s), samples (of the
        split), batch. A MB is 10^6 bytes.

    Raises:
        CurateError: no finished build, no such split, or one without samples.
    """
    build = open_store(build)
    manifest = read_manifest(build)
    entry = find_split(manifest, split)
    if not entry.samples:
        raise CurateError(f"split {split!r} has no samples to stream")
    files = [np.memmap(build.local(path), np.uint8, "r") for path in entry.shards]
    row_bytes = sum(len(f) for f in files) / entry.samples
    tokens = TokenStream(build, split, RawView(), batch=batch)
    ways: dict[str, Callable[[], Iterator[tuple[int, float]]]] = {
        "sequential_": lambda: _sequential(files, row_bytes, batch),  # first: it warms the page cache
        "raw_": lambda: _shuffled(files, entry.shard_rows),
        "": lambda: _streamed(tokens),
    }
    best = dict.fromkeys(ways, (0.0, 0.0))
    for _ in range(_TURNS):
        for name, way in ways.items():
            best[name] = max(best[name], _rates(way, seconds / _TURNS / len(ways)))
    figures: dict[str, float] = {}
    for name in reversed(ways):
        figures[f"{name}samples_per_s"], figures[f"{name}mb_per_s"] = best[name]
    return figures | {"ratio": best[""][0] / best["raw_"][0], "samples": entry.samples, "batch": batch}


def _rates(way: Callable[[], Iterator[tuple[int, float]]], seconds: float) -> tuple[float, float]:
    """Samples and MB per second of whole passes, repeated for at least `seconds`."""
    samples = read = 0.0
    begun = perf_counter()
    while perf_counter() - begun < seconds or not samples:
        for count, size in way():
            samples += count
            read += size
    spent = perf_counter() - begun
    return samples / spent, read / spent / 1e6


def _streamed(tokens: TokenStream) -> Iterator[tuple[int, float]]:
    for item in tokens:
        yield (
            len(item["sample_id"]),
            sum(v.values.nbytes + v.offsets.nbytes for v in item.values() if isinstance(v, Ragged)),
        )


def _sequential(files: list[Any], row_bytes: float, batch: int) -> Iterator[tuple[int, float]]:
    piece = max(1, round(row_bytes * batch))
    for mapped in files:
        for start in range(0, len(mapped), piece):
            np.array(mapped[start : start + piece])
        yield round(len(mapped) / row_bytes), len(mapped)


def _shuffled(files: list[Any], rows: list[int]) -> Iterator[tuple[int, float]]:
    width = min(len(f) // n for f, n in zip(files, rows, strict=True))
    tables: list[NDArray[np.uint8]] = [f[: n * width].reshape(n, width) for f, n in zip(files, rows, strict=True)]
    firsts = np.cumsum([0, *rows])
    order = Permutation(int(firsts[-1]), "bench")
    for start in range(0, int(firsts[-1]), LOOK_AHEAD):
        wanted = np.sort(order(np.arange(start, min(start + LOOK_AHEAD, int(firsts[-1])))))
        edges = np.searchsorted(wanted, firsts)
        out = np.empty((len(wanted), width), np.uint8)
        for table, first, a, b in zip(tables, firsts[:-1], edges[:-1], edges[1:], strict=True):
            np.take(table, wanted[a:b] - first, axis=0, out=out[a:b], mode="clip")
        yield len(wanted), out.nbytes
