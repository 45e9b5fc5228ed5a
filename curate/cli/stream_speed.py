"""`curate stream --bench`: how fast a build streams, beside reading the same files raw."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.dealing import LOOK_AHEAD
from curate.shards.reader import find_split
from curate.shards.rows import Ragged
from curate.shards.shuffle import Permutation
from curate.shards.token_stream import TokenStream
from curate.shards.views import RawView
from curate.storage import Store, open_store

_TURNS = 6


def stream_speed(
    build: Store | Path | str,
    seconds: float = 5.0,
    split: str = "train",
    batch: int = 256,
    step_ms: float | None = None,
) -> dict[str, float]:
    """Time shuffled `RawView` batches and, in turn with them, two raw memory-mapped reads of the same shards.

    * shuffled: the files as if they were arrays of rows of one size, rows copied in an order drawn at random, 4,096
      looked ahead: what a loader of raw arrays could do at best. `ratio` is to this one.
    * sequential: the files copied from start to end in pieces of one batch's bytes: what the memory allows.

    One thread, warm page cache, wall clock; of several turns the fastest counts, as other work on the machine can only
    slow one down.

    Args:
        step_ms: milliseconds of a training step, for the two shares of time that a trainer would wait.

    Returns:
        samples_per_s, tokens_per_s (ids), mb_per_s (ids and offsets handed out), batch_ms (to make one, in the mean),
        raw_samples_per_s, raw_mb_per_s (shuffled), sequential_samples_per_s, sequential_mb_per_s, ratio (of
        samples_per_s to raw_samples_per_s), samples (of the split), batch. A MB is 10^6 bytes. With `step_ms` that,
        wait_alone (0 to 1: the share of time that a trainer waits which makes batches itself) and wait_worker (whose
        DataLoader has one worker).

    Raises:
        CurateError: no finished build, no such split, or one without samples; a step of no time.
    """
    if step_ms is not None and not step_ms > 0:
        raise CurateError(f"a step of {step_ms} ms")
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
    figures |= {"ratio": best[""][0] / best["raw_"][0], "samples": entry.samples, "batch": batch}
    times, per_sample = _batches(tokens, seconds / _TURNS)
    figures |= {"tokens_per_s": figures["samples_per_s"] * per_sample, "batch_ms": 1e3 * sum(times) / len(times)}
    if step_ms is not None:
        figures |= {"step_ms": step_ms, "wait_alone": wait_alone(times, step_ms / 1e3)}
        figures |= {"wait_worker": wait_worker(times, step_ms / 1e3)}
    return figures


def wait_alone(times: Sequence[float], step: float) -> float:
    """The share of time, 0 to 1, that a trainer waits which makes its batches itself: nothing is made meanwhile.

    Args:
        times: seconds that each batch takes.
        step: seconds of a training step.
    """
    return sum(times) / (sum(times) + step * len(times))


def wait_worker(times: Sequence[float], step: float, ahead: int = 2) -> float:
    """The same where a process of its own makes batches, at most `ahead` more than were taken (torch's default).

    The first batch is not counted, as an epoch has many.
    """
    made, taken = [0.0], [0.0]
    waited = 0.0
    for i, needed in enumerate(times[1:], start=1):
        made.append(max(made[-1], taken[i - ahead - 1] if i > ahead else 0.0) + needed)
        ready = taken[-1] + step
        waited += max(0.0, made[-1] - ready)
        taken.append(max(ready, made[-1]))
    return waited / taken[-1] if taken[-1] else 0.0


def _batches(tokens: TokenStream, seconds: float) -> tuple[list[float], float]:
    """Seconds of each batch of whole epochs, and tokens of a sample in the mean."""
    times, samples, ids = list[float](), 0, 0
    begun = perf_counter()
    while perf_counter() - begun < seconds or len(times) < 2:
        last = perf_counter()
        for item in tokens:
            times.append(perf_counter() - last)
            samples += len(item["sample_id"])
            ids += sum(v.values.size for v in item.values() if isinstance(v, Ragged))
            last = perf_counter()
    return times, ids / samples


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
