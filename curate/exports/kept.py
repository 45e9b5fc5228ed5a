"""What the tables of a build say of its kept samples, in the order of shards: for exports that go back to the media."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.exports.base import Sample, Selection
from curate.schema.errors import CurateError
from curate.schema.ids import content_id
from curate.shards.ipc import BATCH_ROWS, open_ipc
from curate.shards.lists import files_below, read_files
from curate.shards.tables import CHUNK_ROWS, LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, Tables, open_tables
from curate.storage.sql import quoted, scan, text


class Kept:
    """Rows of the kept samples of some splits: the columns of `samples`, `whole` (true if the sample is all of its
    medium), and signals that are no vectors.

    Attributes:
        signals: names of their columns.
        kinds: of the samples.

    Partitions are read once, some at a time, and sorted on disk, in a temporary folder that goes with the object; of
    one shard's rows all are held.
    """

    def __init__(self, selection: Selection) -> None:
        self._kept = TemporaryDirectory(prefix="curate-export-")
        self._starts: dict[str, tuple[int, int]] = {}
        self._build = selection.build
        self._media = {file.path for file in files_below(selection.build, selection.manifest, "media/")}
        self.signals: list[str] = []
        self.kinds: set[str] = set()
        with TemporaryDirectory(prefix="curate-export-") as folder:
            places = self._places(selection, Path(folder))
            files = read_files(selection.build, selection.manifest)
            with open_tables(selection.build, selection.manifest, files) as tables:
                self._sort(tables, Path(folder), places)

    def beside(self, samples: Iterator[Sample]) -> Iterator[tuple[Sample, dict[str, Any]]]:
        """The samples of a shard, each with its row.

        Raises:
            CurateError: the tables hold no such sample.
        """
        first = next(samples, None)
        if first is None:
            return
        start, count = self._starts[first.sample_id]
        place = pa.compute.field("place")
        found = pq.read_table(self._file, filters=(place >= start) & (place < start + count)).sort_by("place")
        rows = (row for batch in found.to_batches(BATCH_ROWS) for row in batch.to_pylist())
        for sample in chain([first], samples):
            row = next(rows, None)
            if row is None or row["sample_id"] != sample.sample_id:
                raise CurateError(f"the tables hold no sample {sample.sample_id}", "check the build: curate verify")
            yield sample, row

    def media(self, row: dict[str, Any]) -> bytes:
        """The medium of a row, as it came.

        Raises:
            CurateError: its tar is not part of the build, or does not hold these bytes any more.
        """
        path = row["media"]
        data = self._build.read_range(path, row["offset"], row["bytes"]) if path in self._media else b""
        if content_id(data) != row["content_id"]:
            raise CurateError(f"{self._build.name(path)} does not hold {row['member']}", "check it: curate verify")
        return data

    @property
    def _file(self) -> Path:
        return Path(self._kept.name) / "kept.parquet"

    def _places(self, selection: Selection, folder: Path) -> list[str]:
        """Ids of the shards' samples with their numbers, in a file a shard."""
        files: list[str] = []
        at = 0
        for split in selection.splits:
            for shard in split.shards:
                ids = pa.chunked_array([b.column("sample_id") for b in open_ipc(selection.build.local(shard))[1]])
                file = str(folder / f"ids-{len(files)}.parquet")
                pq.write_table(pa.table({"wanted": ids, "place": np.arange(at, at + len(ids))}), file)
                files.append(file)
                self._starts[ids[0].as_py()] = (at, len(ids))
                at += len(ids)
        return files

    def _sort(self, tables: Tables, folder: Path, places: list[str]) -> None:
        groups: dict[str, dict[str, str]] = {}
        for field, group in tables.fields.items():
            if not pa.types.is_nested(tables.types[field]):
                groups.setdefault(group, {})[field] = quoted(field)
                self.signals.append(field)
        if not places:
            return
        tables.execute(f"CREATE TEMP TABLE wanted AS SELECT wanted, place FROM {scan(places)}")
        parts = []
        for number, some in enumerate(tables.chunks(CHUNK_ROWS)):
            parts.append(str(folder / f"part-{number}.parquet"))
            with tables.look(some, [LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, *groups]):
                tables.execute(_kept(tables, groups, parts[-1]))
        every = f"SELECT * FROM {scan(parts)} ORDER BY place"
        tables.execute(f"COPY ({every}) TO {text(str(self._file))} (FORMAT parquet, ROW_GROUP_SIZE 2048)")
        self.kinds = {row["kind"] for row in tables.rows(f"SELECT DISTINCT kind FROM {scan([str(self._file)])}")}


def _kept(tables: Tables, groups: dict[str, dict[str, str]], file: str) -> str:
    """SQL that writes the kept samples of what is looked at; times in the tables are seconds, spans microseconds."""
    samples = tables.with_signals("s.* EXCLUDE (part, file_row_number, stage, unseen), s.part AS part", groups)
    whole = "start_us = 0 AND coalesce(abs(r.duration * 1e6 - end_us) < 2, end_us = 0) AS whole"
    return f"""
        COPY (
            SELECT place, {whole}, k.* EXCLUDE (part)
            FROM ({samples}) k
            JOIN wanted ON wanted = k.sample_id
            LEFT JOIN records r ON r.part = k.part AND r.record_id = k.record_id
            WHERE k.outcome = 'kept'
        ) TO {text(file)} (FORMAT parquet)
    """
