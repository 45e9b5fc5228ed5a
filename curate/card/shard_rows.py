"""Token shards, a record batch at a time, and rows of a few samples out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.schema.recipe import Recipe
from curate.shards.order import order_keys, shard_of
from curate.shards.tables import Tables


def token_batches(tables: Tables) -> Iterator[pa.RecordBatch]:
    """All token rows, shard by shard in name order. Read, not mapped: the pages of a map would all stay resident."""
    for path in tables.named("tokens/", ".arrow"):
        with pa.OSFile(str(tables.path(path))) as source:
            reader = pa.ipc.open_file(source)
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)


@dataclass(frozen=True)
class ShardRow:
    """A sample's row in a shard.

    Attributes:
        path, row: where it is.
        ids: flat ids by stream; a missing modality has no entry.
    """

    path: str
    row: int
    ids: dict[str, NDArray[Any]]


def shard_rows(tables: Tables, samples: Sequence[str]) -> dict[str, ShardRow]:
    """Rows of samples in the shards.

    Where the order is a hash, the shard that must hold a sample is opened and no other; else columns of sample ids are
    read, batch by batch, until all are found.
    """
    out: dict[str, ShardRow] = {}
    wanted = set(samples)
    for path in _paths(tables, sorted(wanted)):
        if not wanted:
            break
        for row in _in_shard(tables, path, wanted):
            out[row[0]] = row[1]
        wanted -= out.keys()
    return out


def _paths(tables: Tables, samples: Sequence[str]) -> Iterator[str]:
    """Shards, those first in which the samples lie if the order is a hash."""
    keys = order_keys(tables.manifest.seed, pa.array(samples, pa.string()))
    size = Recipe.model_validate(tables.manifest.recipe).pack.shard_samples
    first = []
    for split in tables.manifest.splits:
        if split.samples:
            holding = set(shard_of(keys, -(-split.samples // size)).tolist())
            first += [path for path in split.shards if _number(path) in holding]
    yield from first
    seen = set(first)
    yield from (path for split in tables.manifest.splits for path in split.shards if path not in seen)


def _number(path: str) -> int:
    """Of a shard `.../shard-00012-<digest>.arrow`, 12: a range of keys that no sample falls into has no shard."""
    return int(path.rpartition("/")[2].removesuffix(".arrow").split("-")[1])


def _in_shard(tables: Tables, path: str, wanted: set[str]) -> Iterator[tuple[str, ShardRow]]:
    names = [s.name for s in tables.manifest.streams]
    ids = pa.array(sorted(wanted), pa.string())
    with pa.memory_map(str(tables.path(path))) as source:
        reader = pa.ipc.open_file(source)
        start = 0
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            column = batch.column("sample_id")
            for i in pc.indices_nonzero(pc.is_in(column, value_set=ids)).to_numpy().tolist():
                values = {n: batch.column(n)[i] for n in names}
                # copied: the memory map is closed after its shard
                flat = {n: v.values.to_numpy(zero_copy_only=False).copy() for n, v in values.items() if v.is_valid}
                yield column[i].as_py(), ShardRow(path, start + i, flat)
            start += batch.num_rows
