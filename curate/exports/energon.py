"""Megatron-Energon's data sets: WebDataset tars with an index beside each, and what `energon prepare` writes."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar, NamedTuple
from uuid import UUID

import numpy as np
import yaml

from curate.exports.base import Export, Sample, Written
from curate.exports.webdataset import members, write_tar
from curate.schema.ids import key_of
from curate.storage import Store

META = ".nv-meta"


class Energon(Export):
    """A tar as `webdataset` writes it and its `.tar.idx` a shard; `.nv-meta/` with the counts of shards, the splits,
    `index.sqlite` of keys and places, and a `dataset.yaml` that gives samples as they are (`CrudeWebdataset`).

    `megatron.energon.get_train_dataset(OUT, split_part="train", ...)` reads it, with a cooker of one's own.
    """

    name: ClassVar[str] = "energon"

    def paths(self, split: str, shard: str) -> Sequence[str]:
        return [f"{split}/{shard}.tar", f"{split}/{shard}.tar.idx"]

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        written = write_tar(files[0], (members(sample) for sample in samples))
        placed = list(_layout(files[0]))
        places = [one.start for one in placed] + [one.end for one in placed[-1:]]
        files[1].write_bytes(np.array(places, "<u8").tobytes())
        return written

    def finish(self, out: Store, written: Mapping[str, Sequence[Written]]) -> None:
        splits = {split: [shard.paths[0] for shard in shards] for split, shards in written.items()}
        counts = {shard.paths[0]: shard.samples for shards in written.values() for shard in shards}
        with out.atomic_write(f"{META}/index.sqlite") as file:
            _write_index(file, out, list(counts))
        out.write(f"{META}/index.uuid", str(UUID(hex=key_of(list(counts)))).encode())
        crude = {"__module__": "megatron.energon", "__class__": "CrudeWebdataset"}
        out.write(f"{META}/dataset.yaml", yaml.safe_dump(crude, sort_keys=False).encode())
        out.write(f"{META}/split.yaml", yaml.safe_dump({"exclude": [], "split_parts": splits}).encode())
        out.write(f"{META}/.info.json", json.dumps({"shard_counts": counts}, indent=1).encode())


class _Placed(NamedTuple):
    """Where a sample is in a tar, and where its parts are: name, first byte, bytes."""

    key: str
    start: int
    parts: list[tuple[str, int, int]]

    @property
    def end(self) -> int:
        """Where the next one begins: members are filled up to whole blocks."""
        _, at, size = self.parts[-1]
        return -(-(at + size) // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _layout(file: Path) -> Iterator[_Placed]:
    now: _Placed | None = None
    with tarfile.open(file, "r:") as tar:
        for member in tar:
            key, _, part = member.name.partition(".")
            if now is None or now.key != key:
                if now is not None:
                    yield now
                now = _Placed(key, member.offset, [])
            now.parts.append((part, member.offset_data, member.size))
    if now is not None:
        yield now


def _write_index(file: Path, out: Store, shards: Sequence[str]) -> None:
    """The tables that Energon finds samples and parts by; only one shard's rows are held."""
    with closing(sqlite3.connect(file)) as index, index:
        index.execute("CREATE TABLE samples (tar_file_id INTEGER NOT NULL, sample_key TEXT NOT NULL UNIQUE, "
                      "sample_index INTEGER NOT NULL, byte_offset INTEGER, byte_size INTEGER)")  # fmt: skip
        index.execute("CREATE TABLE sample_parts (tar_file_id INTEGER, sample_index INTEGER, part_name TEXT, "
                      "content_byte_offset INTEGER, content_byte_size INTEGER)")  # fmt: skip
        for shard, path in enumerate(shards):
            samples = list(_layout(out.local(path)))
            index.executemany(
                "INSERT INTO samples VALUES (?, ?, ?, ?, ?)",
                [(shard, s.key, i, s.start, s.end - s.start) for i, s in enumerate(samples)],
            )
            index.executemany(
                "INSERT INTO sample_parts VALUES (?, ?, ?, ?, ?)",
                [(shard, i, *part) for i, sample in enumerate(samples) for part in sample.parts],
            )
        for name, columns in {
            "idx_samples_by_tar_and_idx": "samples(tar_file_id, sample_index)",
            "idx_sample_parts_seq": "sample_parts(tar_file_id, sample_index, content_byte_offset)",
            "idx_sample_parts_full": "sample_parts(tar_file_id, sample_index, part_name, content_byte_offset, "
            "content_byte_size)",
        }.items():
            index.execute(f"CREATE INDEX {name} ON {columns}")
