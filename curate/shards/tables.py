"""The tables of a build in DuckDB, a few partitions at a time: what is held does not grow with samples.

Views are made over the fragments of the partitions that are looked at (`Tables.look`), so that a pass over all of a
build opens each file once, and a question about a few rows opens the partitions that hold them and no others.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema.errors import CurateError
from curate.schema.manifest import File, Manifest
from curate.schema.tables import LEDGER, RECORDS, SAMPLES
from curate.storage import Folder, Store
from curate.storage.sql import connect, quoted, scan, text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

CHUNK_ROWS, CHUNK_FILES = 1 << 15, 256
"""Rows and partitions that are looked at together; a partition is never divided."""

LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES = "verdicts", "records", "samples"
_SCHEMAS = {LEDGER_FILES: LEDGER, RECORDS_FILES: RECORDS, SAMPLES_FILES: SAMPLES}
FAILURE_PREFIX = "failure:"


class Tables:
    """SQL over a build's fragments, by the list of its files.

    Views, while partitions are looked at; each has `part`, the number of the row's partition:
        ledger: LEDGER.
        records: RECORDS.
        samples: SAMPLES, `outcome` and `stage` of the verdict, and `unseen`: the second look did not look at it.
            Samples of records that were dropped or are duplicates lie in the same fragments, have no verdict and are
            left out.

    Attributes:
        build: where it lies.
        manifest: as given.
        files: all that belongs to the build, by path; nothing else is ever read.
        partitions: names of all partitions; `part` is a place in this list.
        fields: signal field to the group of signals that holds it.
        types: signal field to its Arrow type.
        failures: signals whose failures a group holds, with the group.
        groups: all groups of signals.
    """

    def __init__(self, con: DuckDBPyConnection, build: Store, manifest: Manifest, files: Iterable[File]) -> None:
        self._con = con
        self._local: dict[str, list[str]] = {}
        self._sources: dict[str, str] = {}
        self.build = build
        self.manifest = manifest
        self.files = sorted(files, key=lambda f: f.path)
        self._listed = {f.path for f in self.files}
        self._fragments: dict[str, dict[str, File]] = defaultdict(dict)
        for file in self.files:
            stage, _, name = file.path.rpartition("/")
            if name.endswith(".parquet"):
                self._fragments[stage][name.rpartition("-")[0]] = file
        self.partitions = sorted(self._fragments[LEDGER_FILES])
        self.fields: dict[str, str] = {}
        self.types: dict[str, pa.DataType] = {}
        self.failures: dict[str, str] = {}
        self.groups = sorted(stage for stage in self._fragments if stage.startswith("signals/"))
        for group in self.groups:
            for field in pq.read_schema(self.path(next(iter(self._fragments[group].values())).path)):
                if field.name.startswith(FAILURE_PREFIX):
                    self.failures[field.name.removeprefix(FAILURE_PREFIX)] = group
                elif field.name not in ("sample_id", "record_id"):
                    self.fields[field.name] = group
                    self.types[field.name] = field.type
        for stage, schema in _SCHEMAS.items():
            con.register(f"no_{stage}", schema.append(pa.field("file_row_number", pa.int64())).empty_table())

    def named(self, prefix: str, suffix: str) -> list[str]:
        """Paths of the build's files, in name order."""
        return [f.path for f in self.files if f.path.startswith(prefix) and f.path.endswith(suffix)]

    def by_partition(self, folder: str) -> dict[str, str]:
        """Paths of the fragments of a folder, such as `samples`, by the name of their partition."""
        return {path.rpartition("/")[2].rpartition("-")[0]: path for path in self.named(f"{folder}/", ".parquet")}

    def checked(self, relative: str) -> str:
        """The path of a file that belongs to the build.

        Raises:
            CurateError: it is not listed, or it would lie outside the build (law 11).
        """
        inside = True
        if isinstance(self.build, Folder):
            inside = (self.build.root / relative).resolve().is_relative_to(self.build.root.resolve())
        if relative not in self._listed or not inside:
            raise CurateError(
                f"{relative!r} is not a file of this build", "curate verify BUILD says what else is wrong"
            )
        return relative

    def path(self, relative: str) -> Path:
        """A local file with the bytes of a listed one; raises CurateError as `checked`."""
        return self.build.local(self.checked(relative))

    def rows(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query as dicts; for queries whose rows are few by what they ask."""
        cursor = self._con.execute(sql, parameters if isinstance(parameters, Mapping) else list(parameters))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> dict[str, Any]:
        """The one row of a query."""
        [only] = self.rows(sql, parameters)
        return only

    def having(self, sql: str, where: str, column: str) -> pa.ChunkedArray:
        """The distinct values of a column of a query's rows of which an expression is true."""
        return self._con.sql(sql).filter(where).project(quoted(column)).distinct().to_arrow_table().column(0)

    def execute(self, sql: str) -> None:
        """Run a statement that makes or fills a table."""
        self._con.execute(sql)

    def chunks(self, most_rows: int) -> Iterator[list[int]]:
        """All partitions, in pieces to be looked at one after the other; one empty piece where there are none."""
        chunk, rows = list[int](), 0
        for part, name in enumerate(self.partitions):
            held = [self._fragments[s][name].rows for s in (LEDGER_FILES, SAMPLES_FILES) if name in self._fragments[s]]
            if chunk and (rows + max(held) > most_rows or len(chunk) == CHUNK_FILES):
                yield chunk
                chunk, rows = [], 0
            chunk.append(part)
            rows += max(held)
        if chunk or not self.partitions:
            yield chunk

    @contextmanager
    def look(self, parts: Sequence[int], stages: Iterable[str]) -> Iterator[None]:
        """Have the fragments of some partitions at hand.

        Args:
            stages: `verdicts` (the view `ledger`), `records`, `samples` (needs `verdicts`), and groups of signals.
        """
        found = {stage: self._of(stage, parts) for stage in stages}
        paths = [self.checked(file.path) for _, files in found.values() for file in files]
        with self.build.pinned(paths) as local:
            there = dict(zip(paths, map(str, local), strict=True))
            self._local = {stage: [there[file.path] for file in files] for stage, (_, files) in found.items()}
            self._sources = {s: _source(s, numbers, self._local[s]) for s, (numbers, _) in found.items()}
            if RECORDS_FILES in found:
                self.execute(f"CREATE OR REPLACE TEMP VIEW records AS SELECT * FROM {self._sources[RECORDS_FILES]}")
            if LEDGER_FILES in found:  # builds of before rules on words have no column for these
                source = f"{self._sources[LEDGER_FILES]} UNION ALL BY NAME SELECT value_text FROM no_{LEDGER_FILES}"
                self.execute(f"CREATE OR REPLACE TEMP VIEW ledger AS SELECT * FROM {source}")
            if SAMPLES_FILES in found:
                self.execute(
                    f"""
                    CREATE OR REPLACE TEMP VIEW samples AS
                    SELECT s.*, l.outcome, l.stage, l.not_evaluated IS NOT NULL AS unseen
                    FROM {self._sources[SAMPLES_FILES]} s
                    JOIN ledger l ON l.level = 'sample' AND l.part = s.part
                        AND l.id = s.sample_id AND l.record_id = s.record_id
                    """
                )
            yield

    def over_ledger(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()) -> Iterator[dict[str, Any]]:
        """The rows of a query on `ledger`, asked of some hundred fragments at a time."""
        for parts in self.chunks(sys.maxsize):
            with self.look(parts, [LEDGER_FILES]):
                yield from self.rows(sql, parameters)

    def filled(self, field: str) -> str:
        """SQL that is true where a signal field of what is looked at has a value.

        Embeddings are most of a build's tables: where the fragments' footers say that none is null, none is read.
        """
        found = self.row(
            "SELECT bool_and(stats_null_count IS NOT DISTINCT FROM 0) AS whole "
            "FROM parquet_metadata($files) WHERE split_part(path_in_schema, ', ', 1) = $field",
            {"files": self._local[self.fields[field]], "field": field},
        )
        return "true" if found["whole"] else f"{quoted(field)} IS NOT NULL"

    def with_signals(
        self, columns: str, signals: Mapping[str, Mapping[str, str]], only: Sequence[str] | None = None
    ) -> str:
        """A query of samples, a row each, with columns of signals; null where a group has no row of a sample.

        Args:
            columns: SQL of what is wanted of `samples s`.
            signals: for each group that is looked at, the names of columns wanted and their SQL over the group's.
            only: ids of the samples that are wanted, where they are few.
        """
        few = "" if only is None else f" WHERE sample_id IN ({', '.join(map(text, only)) or 'NULL'})"
        wanted, joined = [columns], [f"(SELECT * FROM samples{few}) s"]
        for i, (group, values) in enumerate(signals.items()):
            said = "".join(f", {sql} AS {quoted(name)}" for name, sql in values.items())
            rows = f"SELECT part, sample_id, file_row_number{said} FROM {self._sources[group]}{few}"
            twice = f"SELECT part, sample_id FROM {self._sources[group]}{few} GROUP BY ALL HAVING count(*) > 1"
            wanted += [f"g{i}.{quoted(name)}" for name in values]
            # the same bytes twice in a partition have one sample id, and text of their own: rows are in one order
            joined.append(
                f"LEFT JOIN (SELECT r.*, t.part IS NULL AS once FROM ({rows}) r LEFT JOIN ({twice}) t "
                f"ON t.part = r.part AND t.sample_id = r.sample_id) g{i} ON g{i}.part = s.part "
                f"AND g{i}.sample_id = s.sample_id AND (g{i}.once OR g{i}.file_row_number = s.file_row_number)"
            )
        return f"SELECT {', '.join(wanted)} FROM {' '.join(joined)}"

    def _of(self, stage: str, parts: Sequence[int]) -> tuple[list[int], list[File]]:
        """A stage's fragments of some partitions, with their numbers. Where it has none of these, one of another,
        without a number: for its columns."""
        fragments = self._fragments[stage]
        there = [part for part in parts if self.partitions[part] in fragments]
        return there, [fragments[self.partitions[part]] for part in there] or list(fragments.values())[:1]


def _source(stage: str, numbers: Sequence[int], files: Sequence[str]) -> str:
    """SQL of the rows of fragments, with `part` and `file_row_number`."""
    if not files:
        return f"(SELECT *, 0 AS part FROM no_{stage})"
    part = f"([{', '.join(map(str, numbers or [0]))}])[file_index::BIGINT + 1]"
    none = "" if numbers else " WHERE false"
    return f"(SELECT *, {part} AS part, file_row_number FROM {scan(files)}{none})"


@contextmanager
def open_tables(build: Store, manifest: Manifest, files: Iterable[File]) -> Iterator[Tables]:
    """The tables of a build, for as long as the block lasts; what does not fit into memory spills to disk."""
    with connect() as con:
        yield Tables(con, build, manifest, files)
