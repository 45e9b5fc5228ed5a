"""The tables of a build as DuckDB views. Aggregates run over the Parquet files; no table is loaded whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest
from curate.schema.tables import FAILURE_NAMES, LEDGER, RECORDS, SAMPLES
from curate.storage import Folder, Store


def quoted(name: str) -> str:
    """An SQL identifier: names of fields come from signals, which users write."""
    return '"' + name.replace('"', '""') + '"'


class Tables:
    """SQL over a build's `records`, `samples`, `ledger` and signals, by the manifest's list of files.

    Attributes:
        build: where it lies.
        manifest: as given; only files that it lists are ever read.
        fields: signal field to the name of the view that holds it.
        types: signal field to its Arrow type.
    """

    def __init__(self, build: Store, manifest: Manifest) -> None:
        self.build = build
        self.manifest = manifest
        self._listed = {f.path for f in manifest.files}
        # one thread: rows of equal sort keys and sums of floats come out the same everywhere (law 6)
        offline: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
        }
        self._sql = duckdb.connect(":memory:", config=offline)
        self._sql.execute("SET enable_progress_bar_print = false")  # stdout is for results
        self._view("records", self.files("records/", ".parquet"), RECORDS)
        self._view("samples", self.files("samples/", ".parquet"), SAMPLES)
        self._view("ledger", self.files("ledger/", ".parquet"), LEDGER)
        self.fields: dict[str, str] = {}
        self.types: dict[str, pa.DataType] = {}
        stages: dict[str, list[str]] = {}
        for path in self.files("signals/", ".parquet"):
            stages.setdefault(path.rpartition("/")[0], []).append(path)
        for i, (_, paths) in enumerate(sorted(stages.items())):
            schema = self._view(f"signals_{i}", paths, None)
            for field in schema:
                if field.name not in {"sample_id", *FAILURE_NAMES}:
                    self.fields[field.name] = f"signals_{i}"
                    self.types[field.name] = field.type

    def files(self, prefix: str, suffix: str) -> list[str]:
        """Paths of the manifest, relative to the build, in name order."""
        return sorted(p for p in self._listed if p.startswith(prefix) and p.endswith(suffix))

    def checked(self, relative: str) -> str:
        """The path of a file that the manifest lists.

        Raises:
            CurateError: the manifest does not list it, or it would lie outside the build (law 11).
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

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """The rows of a query as dicts."""
        cursor = self._sql.execute(sql, list(parameters))
        names = [column[0] for column in cursor.description or []]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def row(self, sql: str, parameters: Sequence[Any] = ()) -> dict[str, Any]:
        """The one row of a query."""
        [only] = self.rows(sql, parameters)
        return only

    def token_batches(self) -> Iterator[pa.RecordBatch]:
        """All token rows, shard by shard in name order, memory-mapped."""
        for path in self.files("tokens/", ".arrow"):
            with pa.memory_map(str(self.path(path))) as source:
                reader = pa.ipc.open_file(source)
                for i in range(reader.num_record_batches):
                    yield reader.get_batch(i)

    def _view(self, name: str, paths: list[str], schema: pa.Schema | None) -> pa.Schema:
        if paths:
            table: Any = ds.dataset(
                [str(p) for p in self.build.locals([self.checked(p) for p in paths])], schema=schema, format="parquet"
            )
        else:
            table = (schema or pa.schema([("sample_id", pa.string())])).empty_table()
        self._sql.register(name, table)
        return table.schema
