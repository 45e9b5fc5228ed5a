"""LitData's chunks (`litdata.optimize` writes them, `litdata.StreamingDataset` reads them)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from curate.exports.base import Export, Sample, Selection, Written
from curate.exports.packed import encoded, write_packed
from curate.exports.records import MISSING, TIMES, Columns
from curate.storage import Store

_TYPES = {"uint8": 4, "uint16": 5, "uint32": 6, "float16": 8}
"""LitData's numbers of numpy's types."""

_LEAF: dict[str, Any] = {"type": None, "context": None, "children_spec": []}


class LitData(Export):
    """A chunk a shard, and an `index.json` a split: dicts of the columns of `records.Columns`, `missing` as JSON.

    `litdata.StreamingDataset("OUT/train")` reads it.
    """

    name: ClassVar[str] = "litdata"
    suffix: ClassVar[str] = ".bin"

    def begin(self, selection: Selection) -> None:
        self._columns = Columns.of(selection)
        arrays = [stream.name for stream in self._columns.streams]
        formats = dict.fromkeys(["sample_id", "content_id", "kind", *self._columns.texts, MISSING], "str")
        formats |= dict.fromkeys(TIMES, "int") | dict.fromkeys(arrays, "numpy")
        self._names = sorted(formats)
        # how torch.utils._pytree writes the shape of a dict down
        spec = {"type": "builtins.dict", "context": json.dumps(self._names), "children_spec": [_LEAF] * len(formats)}
        self._config = {
            "chunk_bytes": None,
            "compression": None,
            "data_format": [formats[name] for name in self._names],
            "data_spec": json.dumps([1, spec]),
            "encryption": None,
            "item_loader": "PyTreeLoader",
        }

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        packed = [self._encoded(self._columns.record(sample)) for sample in samples]
        write_packed(files[0], packed)
        return len(packed)

    def finish(self, out: Store, written: Mapping[str, Sequence[Written]]) -> None:
        for split, shards in written.items():
            sizes = {file.path: file.bytes for file in out.files(split)}
            chunks = [
                {"chunk_bytes": sizes[path], "chunk_size": one.samples, "dim": None, "filename": path.split("/")[-1]}
                for one in shards
                for path in one.paths
            ]
            config = {**self._config, "chunk_size": max((one.samples for one in shards), default=0)}
            out.write(f"{split}/index.json", json.dumps({"chunks": chunks, "config": config}, sort_keys=True).encode())

    def _encoded(self, record: Mapping[str, Any]) -> bytes:
        """Sizes of all columns, uint32, and the columns."""
        values = [encoded(record[name], _array) for name in self._names]
        return np.array([*map(len, values)], "<u4").tobytes() + b"".join(values)


def _array(array: NDArray[Any]) -> bytes:
    """The number of its type, of its axes, and their lengths, uint32 each; the values in C order."""
    head = [_TYPES[array.dtype.name], array.ndim, *array.shape]
    return np.array(head, "<u4").tobytes() + array.tobytes()
