"""MDS, the shards of MosaicML streaming (`streaming/base/format/mds`, version 2 of its index)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from curate.exports.base import Export, Sample, Selection, Written
from curate.exports.packed import encoded, write_packed
from curate.exports.records import MISSING, STRINGS, TIMES, Columns
from curate.storage import Store


class Mds(Export):
    """A `.mds` file a shard, and an `index.json` a split; columns are those of `records.Columns`, arrays with their
    shape and type, `missing` as JSON.

    `streaming.StreamingDataset(local=OUT, split="train")` reads it. The library's own writer is not used: it refuses
    arrays of no elements, such as an empty caption's, which its reader takes.
    """

    name: ClassVar[str] = "mds"
    suffix: ClassVar[str] = ".mds"

    def begin(self, selection: Selection) -> None:
        self._columns = Columns.of(selection)
        encodings = dict.fromkeys([*STRINGS, *self._columns.texts], "str") | dict.fromkeys(TIMES, "int")
        encodings |= {stream.name: f"ndarray:{stream.dtype}" for stream in self._columns.streams}
        encodings[MISSING] = "json"
        self._names = sorted(encodings)
        self._sizes = [8 if name in TIMES else None for name in self._names]
        self._config = {
            "column_encodings": [encodings[name] for name in self._names],
            "column_names": self._names,
            "column_sizes": self._sizes,
            "compression": None,
            "format": "mds",
            "hashes": [],
            "size_limit": None,
            "version": 2,
        }

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        packed = [self._encoded(self._columns.record(sample)) for sample in samples]
        write_packed(files[0], packed, json.dumps(self._config, sort_keys=True).encode())
        return len(packed)

    def finish(self, out: Store, written: Mapping[str, Sequence[Written]]) -> None:
        for split, shards in written.items():
            sizes = {file.path: file.bytes for file in out.files(split)}
            entries = [
                self._config
                | {
                    "raw_data": {"basename": path.rpartition("/")[2], "bytes": sizes[path], "hashes": {}},
                    "samples": shard.samples,
                    "zip_data": None,
                }
                for shard in shards
                for path in shard.paths
            ]
            index = json.dumps({"shards": entries, "version": 2}, sort_keys=True)
            out.write(f"{split}/index.json", index.encode())

    def _encoded(self, record: Mapping[str, Any]) -> bytes:
        """Sizes of the columns that have no fixed one, uint32, and all columns."""
        values = [encoded(record[name], _array) for name in self._names]
        varying = [len(value) for value, size in zip(values, self._sizes, strict=True) if size is None]
        return np.array(varying, "<u4").tobytes() + b"".join(values)


def _array(array: NDArray[Any]) -> bytes:
    """Axes and the width of their lengths in one byte, the lengths, the values in C order."""
    widths = [np.dtype(f"<u{1 << power}") for power in range(4)]
    power = next(p for p, width in enumerate(widths) if max(array.shape) <= np.iinfo(width).max)
    return bytes([array.ndim << 2 | power]) + np.array(array.shape, widths[power]).tobytes() + array.tobytes()
