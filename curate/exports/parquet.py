"""Parquet for the Hugging Face Hub, with a dataset card: `datasets.load_dataset` reads the folder as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from curate.exports.base import Export, Sample, Selection, Written
from curate.exports.records import STRINGS, TIMES, Columns
from curate.schema.errors import CurateError
from curate.shards.ipc import BATCH_ROWS
from curate.shards.schema import StreamSpec
from curate.storage import Store

CARD = "card/README.md"
"""The build's own card, whose front matter and sections the export's takes over where it is there."""


class Parquet(Export):
    """A `.parquet` a shard and a `README.md`. Columns are `sample_id`, `content_id`, `kind`, `start_us`, `end_us`,
    `STREAM_text` of each text stream, and each stream as nested lists in its shape and type; null where the sample
    lacks it.

    `datasets.load_dataset(OUT, split="train")` reads it, and so does the Hub's viewer.
    """

    name: ClassVar[str] = "parquet"
    suffix: ClassVar[str] = ".parquet"

    def begin(self, selection: Selection) -> None:
        if wrong := [split.name for split in selection.splits if not re.fullmatch(r"\w+(\.\w+)*", split.name)]:
            raise CurateError(
                f"a split of the Hub cannot be called {wrong[0]!r}", "letters, digits, _ and single dots are allowed"
            )
        self._selection, self._columns = selection, Columns.of(selection)
        fields = [(name, pa.string()) for name in STRINGS] + [(name, pa.int64()) for name in TIMES]
        fields += [(name, pa.string()) for name in self._columns.texts]
        self._schema = pa.schema(fields + [(stream.name, _type(stream)) for stream in selection.streams])

    def shard(self, samples: Iterator[Sample], *files: Path) -> int:
        written = 0
        with pq.ParquetWriter(files[0], self._schema, compression="zstd") as out:
            while some := list(islice(samples, BATCH_ROWS)):
                out.write_batch(self._batch(some))
                written += len(some)
        return written

    def finish(self, out: Store, written: Mapping[str, Sequence[Written]]) -> None:
        manifest, (front, sections) = self._selection.manifest, self._card()
        files = [{"split": split, "path": f"{split}/*.parquet"} for split, shards in written.items() if shards]
        front |= {"configs": [{"config_name": "default", "data_files": files}]}
        rows = [f"| `{field.name}` | {field.type} | {self._said(field.name)} |" for field in self._schema]
        lines = [
            *("---", yaml.safe_dump({"pretty_name": manifest.name, **front}, sort_keys=False).rstrip(), "---", ""),
            *(f"# {manifest.name}", "", "Token streams of a build of `curate`, a row a sample.", ""),
            *("```python", "import datasets", "", f'rows = datasets.load_dataset("REPO", split="{files[0]["split"]}")')
            * bool(files),
            *("```", "") * bool(files),
            *("| column | type | holds |", "| --- | --- | --- |", *rows, "", sections),
        ]
        out.write("README.md", "\n".join(lines).encode())

    def _batch(self, samples: Sequence[Sample]) -> pa.RecordBatch:
        columns = [pa.array([getattr(one, name) for one in samples], self._schema.field(name).type) for name in _KEYS]
        for stream in self._columns.texts.values():
            columns.append(pa.array([one.text.get(stream) for one in samples], pa.string()))
        for spec in self._columns.streams:
            columns.append(_lists([one.ids.get(spec.name) for one in samples], spec))
        return pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def _card(self) -> tuple[dict[str, Any], str]:
        """Front matter, and everything from the first section on, of the build's own card."""
        build = self._selection.build
        text = build.read(CARD).decode() if build.stat(CARD) is not None else ""
        found = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        front: dict[str, Any] = yaml.safe_load(found[1]) if found else {"tags": ["curate", "discrete-tokens"]}
        return front, "".join(text.partition("\n## ")[1:])

    def _said(self, column: str) -> str:
        if column in self._columns.texts:
            return f"what the ids of `{self._columns.texts[column]}` say"
        for stream in self._selection.manifest.streams:
            if stream.name == column and stream.vocabulary:
                return f"ids of {stream.tokenizer}, 0 to {stream.vocabulary - 1}"
            if stream.name == column:
                return f"features of {stream.tokenizer}"
        return {"start_us": "where it begins in its medium, microseconds", "end_us": "where it ends"}.get(column, "")


_KEYS = (*STRINGS, *TIMES)


def _type(stream: StreamSpec) -> pa.DataType:
    inner = pa.from_numpy_dtype(stream.numpy_dtype)
    for length in reversed(stream.shape[1:]):
        inner = pa.list_(inner, length)
    return pa.list_(inner)


def _lists(rows: Sequence[Any], stream: StreamSpec) -> pa.ListArray:
    there = [row for row in rows if row is not None]
    steps = [0 if row is None else len(row) for row in rows]
    values = pa.array(np.concatenate([row.reshape(-1) for row in there] or [np.empty(0, stream.numpy_dtype)]))
    for length in reversed(stream.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, length)
    offsets = pa.array(np.cumsum([0, *steps]), pa.int32())
    return pa.ListArray.from_arrays(offsets, values, mask=pa.array([row is None for row in rows]))
