"""Token pieces: what one task of `tokenize` commits. Shards are gathered from them in final order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.shards.ipc import BATCH_ROWS, open_ipc, write_ipc
from curate.shards.rows import Ragged, Rows, to_batch
from curate.shards.schema import StreamSpec, shard_schema
from curate.storage import Store

Place = tuple[str, int]
"""Where a sample's tokens lie: a piece's path in the build, and the row in it."""


@dataclass(frozen=True)
class Tokens:
    """One sample's ids. A stream that is absent from `ids`, or None there, is missing for this sample.

    Attributes:
        sample_id, content_id, kind: as in the table of samples.
        start_us, end_us: the span in microseconds; both 0 for a picture.
        ids: stream name to integer array in the stream's shape.
    """

    sample_id: str
    content_id: str
    kind: str
    start_us: int
    end_us: int
    ids: Mapping[str, NDArray[Any] | None]


def write_piece(store: Store, path: str, streams: Sequence[StreamSpec], samples: Sequence[Tokens]) -> int:
    """Write a piece, whole or not at all; equal samples give equal bytes. An empty piece is a valid file.

    Returns:
        Rows written.

    Raises:
        ValueError: ids that their stream cannot hold (`StreamSpec.check`), or an unknown stream; nothing is written.
            To let one bad sample fail alone, call `StreamSpec.check` on each sample before.
    """
    names = {s.name for s in streams}
    for sample in samples:
        if unknown := sorted(set(sample.ids) - names):
            raise ValueError(f"sample {sample.sample_id}: no such stream: {', '.join(unknown)}")
    schema = shard_schema(streams)
    parts = (samples[i : i + BATCH_ROWS] for i in range(0, len(samples), BATCH_ROWS))
    return write_ipc(store, path, schema, (to_batch(_rows(part, streams), schema, streams) for part in parts))


def index_pieces(store: Store, paths: Iterable[str]) -> dict[str, Place]:
    """Where each sample's tokens lie, from the `sample_id` columns of pieces.

    Raises:
        ValueError: a sample that lies in two places.
    """
    places: dict[str, Place] = {}
    for path in paths:
        for row, sample in enumerate(_sample_ids(store.local(path))):
            if sample in places:
                raise ValueError(f"sample {sample} lies in {places[sample][0]} and in {path}")
            places[sample] = (path, row)
    return places


def _sample_ids(path: Path) -> Iterator[str]:
    for batch in open_ipc(path)[1]:
        yield from batch.column("sample_id").to_numpy(zero_copy_only=False)


def _rows(samples: Sequence[Tokens], streams: Sequence[StreamSpec]) -> Rows:
    keys: dict[str, NDArray[Any]] = {
        name: np.array([getattr(s, name) for s in samples], dtype=object)
        for name in ("sample_id", "content_id", "kind", "start_us", "end_us")
    }
    return Rows(keys, {spec.name: _ragged([s.ids.get(spec.name) for s in samples], spec) for spec in streams})


def _ragged(ids: Sequence[NDArray[Any] | None], spec: StreamSpec) -> Ragged:
    flat = [np.empty(0, spec.numpy_dtype) if one is None else spec.check(one) for one in ids]
    steps = [len(one) // spec.unit for one in flat]
    offsets = np.concatenate(([0], np.cumsum(steps))).astype(np.int64)
    present = np.array([one is not None for one in ids], np.bool_)
    return Ragged(np.concatenate(flat).reshape(-1, *spec.fixed), offsets, present, spec.shape[0] is None)
