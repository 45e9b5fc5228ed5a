"""Readers of formats whose libraries do not install beside this project's own: written from what the formats are
published as, and from nothing of `curate.exports`. `test_peers.py` has the libraries themselves read the same files.
"""

from __future__ import annotations

import io
import json
import sqlite3
import struct
import tarfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import yaml


def _samples(data: bytes) -> Iterator[bytes]:
    """Of a file of uint32 n, uint32 (n + 1) places, and n samples."""
    (count,) = struct.unpack_from("<I", data)
    places = struct.unpack_from(f"<{count + 1}I", data, 4)
    assert places[-1] == len(data)
    for at, end in pairwise(places):
        yield data[at:end]


def read_mds(folder: Path) -> Iterator[dict[str, Any]]:
    """MosaicML's MDS, version 2: `index.json`, then each shard's samples."""
    index = json.loads((folder / "index.json").read_text())
    assert index["version"] == 2
    for shard in index["shards"]:
        data = (folder / shard["raw_data"]["basename"]).read_bytes()
        assert len(data) == shard["raw_data"]["bytes"]
        assert (shard["format"], shard["compression"], shard["zip_data"]) == ("mds", None, None)
        count = 0
        for sample in _samples(data):
            at, sizes = 0, []
            for fixed in shard["column_sizes"]:
                sizes.append(fixed or struct.unpack_from("<I", sample, at)[0])
                at += 0 if fixed else 4
            record = {}
            for name, encoding, size in zip(shard["column_names"], shard["column_encodings"], sizes, strict=True):
                record[name] = _mds_value(encoding, sample[at : at + size])
                at += size
            assert at == len(sample)
            count += 1
            yield record
        assert count == shard["samples"]


def _mds_value(encoding: str, data: bytes) -> Any:
    if encoding == "str":
        return data.decode()
    if encoding == "int":
        return struct.unpack("<q", data)[0]
    if encoding == "json":
        return json.loads(data)
    kind, _, dtype = encoding.partition(":")
    assert kind == "ndarray"
    axes, width = data[0] >> 2, 1 << (data[0] & 3)
    shape = np.frombuffer(data[1 : 1 + axes * width], f"<u{width}")
    return np.frombuffer(data[1 + axes * width :], dtype).reshape(shape)


LITDATA_TYPES = ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")


def read_litdata(folder: Path) -> Iterator[dict[str, Any]]:
    """LitData's chunks: `index.json` names them, and the leaves of a sample in order of the pytree."""
    index = json.loads((folder / "index.json").read_text())
    protocol, spec = json.loads(index["config"]["data_spec"])
    assert (protocol, spec["type"], index["config"]["item_loader"]) == (1, "builtins.dict", "PyTreeLoader")
    names, formats = json.loads(spec["context"]), index["config"]["data_format"]
    assert len(spec["children_spec"]) == len(names) == len(formats)
    for chunk in index["chunks"]:
        data = (folder / chunk["filename"]).read_bytes()
        assert len(data) == chunk["chunk_bytes"]
        found = [_litdata_item(names, formats, sample) for sample in _samples(data)]
        assert len(found) == chunk["chunk_size"]
        yield from found


def _litdata_item(names: list[str], formats: list[str], sample: bytes) -> dict[str, Any]:
    sizes = struct.unpack_from(f"<{len(names)}I", sample)
    at, item = 4 * len(names), {}
    for name, kind, size in zip(names, formats, sizes, strict=True):
        leaf, at = sample[at : at + size], at + size
        if kind == "numpy":
            number, axes = struct.unpack_from("<2I", leaf)
            shape = struct.unpack_from(f"<{axes}I", leaf, 8)
            item[name] = np.frombuffer(leaf[8 + 4 * axes :], LITDATA_TYPES[number]).reshape(shape)
        else:
            item[name] = {"str": lambda b: b.decode(), "int": lambda b: struct.unpack("<q", b)[0]}[kind](leaf)
    assert at == len(sample)
    return item


def read_energon(folder: Path, split: str) -> Iterator[dict[str, Any]]:
    """Energon's data set: the shards of a split in `.nv-meta`, samples by the places in `.tar.idx`; `index.sqlite`
    finds the same bytes by key."""
    meta = folder / ".nv-meta"
    counts = json.loads((meta / ".info.json").read_text())["shard_counts"]
    with sqlite3.connect(meta / "index.sqlite") as index:
        for path in yaml.safe_load((meta / "split.yaml").read_text())["split_parts"][split]:
            tar = (folder / path).read_bytes()
            places = np.fromfile(folder / f"{path}.idx", np.uint64).tolist()
            assert len(places) == counts[path] + 1
            assert not any(tar[places[-1] :]), "nothing but the end follows the last sample"
            for at, end in pairwise(places):
                with tarfile.open(fileobj=io.BytesIO(tar[at:end])) as some:
                    parts = {member.name: some.extractfile(member).read() for member in some}  # type: ignore[union-attr]
                (key,) = {name.partition(".")[0] for name in parts}
                shard, row = index.execute(
                    "SELECT tar_file_id, sample_index FROM samples WHERE sample_key = ? AND byte_offset = ? AND "
                    "byte_size = ?", [key, at, end - at]
                ).fetchone()  # fmt: skip
                assert list(counts)[shard] == path
                for part, start, size in index.execute(
                    "SELECT part_name, content_byte_offset, content_byte_size FROM sample_parts "
                    "WHERE tar_file_id = ? AND sample_index = ?", [shard, row]
                ):  # fmt: skip
                    assert tar[start : start + size] == parts[f"{key}.{part}"]
                yield {"__key__": key, **{name.partition(".")[2]: data for name, data in parts.items()}}
