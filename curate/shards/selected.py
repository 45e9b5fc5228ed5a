"""Samples of a split that a condition on signals, verdicts and sources is true of; chosen where it is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.decide.keys import EMPTY, Keys, keys_of, look_up
from curate.schema.errors import CurateError
from curate.schema.ids import digest_of_rows
from curate.shards.lists import read_files
from curate.shards.memory import Ints
from curate.shards.parts import BuildPart
from curate.shards.reader import Reader
from curate.shards.rows import Rows
from curate.shards.tables import CHUNK_ROWS, LEDGER_FILES, SAMPLES_FILES, Tables, open_tables
from curate.storage.sql import quoted


class Selected:
    """The samples of a split of which a condition is true, as a `Part`.

    While it is evaluated 16 bytes are held for each sample that fits, and 8 afterwards.

    Args:
        part: the split.
        where: an SQL expression (DuckDB's) over the columns of samples (`kind`, `source`, `uri`, `licence`, `text`,
            `width`, ...) and the fields of signals, e.g. `clip_score > 0.28 AND kind = 'image'`.

    Raises:
        CurateError: a condition that cannot be understood, or names what the build does not have.
    """

    def __init__(self, part: BuildPart, where: str) -> None:
        self._part = part
        self.name, self.split, self.manifest = f"{part.name} where {where}", part.split, part.manifest
        self.row_bytes = part.row_bytes
        self.digest = digest_of_rows([part.digest, where])
        keys = np.unique(np.concatenate([EMPTY, *_fitting(part, where)]))
        rows, first = [np.empty(0, np.int64)], 0
        for ids in part.column("sample_id"):
            rows.append(first + np.flatnonzero(look_up(keys, keys_of(ids)) >= 0))
            first += len(ids)
        self._rows: Ints = np.concatenate(rows)
        self.samples = len(self._rows)
        self.shard_rows = np.diff(np.searchsorted(self._rows, np.cumsum([0, *part.shard_rows]))).tolist()

    def column(self, key: str) -> Iterator[pa.Array]:
        """A key column of its samples in stored order, a record batch of the split at a time."""
        first = 0
        for values in self._part.column(key):
            begin, end = np.searchsorted(self._rows, (first, first + len(values)))
            yield values.take(pa.array(self._rows[begin:end] - first))
            first += len(values)

    def open(self, streams: Sequence[str]) -> SelectedRows:
        return SelectedRows(self._part.open(streams), self._rows)


class SelectedRows:
    """Some of a reader's rows, by their number among them."""

    def __init__(self, reader: Reader, rows: Ints) -> None:
        self._reader, self._rows = reader, rows

    def take(self, index: Ints) -> Rows:
        return self._reader.take(self._rows[index])

    def readable(self, index: Ints) -> NDArray[np.bool_]:
        return self._reader.readable(self._rows[index])

    @property
    def damaged(self) -> dict[str, str]:
        return self._reader.damaged

    def steps(self, index: Ints) -> Ints:
        return self._reader.steps(self._rows[index])

    def names(self, index: Ints) -> NDArray[np.str_]:
        return self._reader.names(self._rows[index])

    def fetch(self, shards: Iterable[int]) -> None:
        self._reader.fetch(shards)


def _fitting(part: BuildPart, where: str) -> Iterator[Keys]:
    """Ids of kept samples that fit, some partitions at a time."""
    import duckdb

    with open_tables(part.build, part.manifest, read_files(part.build, part.manifest)) as tables:
        named = {name: group for name, group in tables.fields.items() if re.search(rf"\b{re.escape(name)}\b", where)}
        signals: dict[str, dict[str, str]] = {}
        for name, group in named.items():
            signals.setdefault(group, {})[name] = quoted(name)
        for parts in tables.chunks(CHUNK_ROWS):
            with tables.look(parts, [LEDGER_FILES, SAMPLES_FILES, *signals]):
                kept = f"SELECT * FROM ({tables.with_signals('s.*', signals)}) WHERE outcome = 'kept'"
                try:
                    found = tables.having(kept, where, "sample_id")
                except duckdb.Error as exc:
                    raise _not_understood(tables, where, exc) from exc
            yield keys_of(found)


def _not_understood(tables: Tables, where: str, error: Exception) -> CurateError:
    said = str(error).strip().splitlines()[0]
    fields = ", ".join(sorted(tables.fields)) or "none"
    return CurateError(f"where: {where!r}: {said}", f"fields of signals: {fields}")
