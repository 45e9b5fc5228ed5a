"""DuckDB over the Parquet files of a build: one place for connecting, naming files and quoting."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curate.schema.errors import CurateError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


@contextmanager
def connect() -> Iterator[DuckDBPyConnection]:
    """A fresh in-memory DuckDB. What does not fit into memory spills to a temporary folder (`TMPDIR` moves it).

    It downloads no extensions, and a name in SQL never means a variable of the calling Python code.
    """
    import duckdb

    with tempfile.TemporaryDirectory(prefix="curate-decide-") as spill:
        con = duckdb.connect(
            ":memory:",
            config={
                "temp_directory": spill,
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            },
        )
        try:
            con.execute("SET python_enable_replacements = false")
            yield con
        finally:
            con.close()


def text(value: str) -> str:
    """`value` as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def name(column: str) -> str:
    """`column` as a SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def scan(files: Sequence[str]) -> str:
    """A SQL table function over Parquet files of one schema. Paths are literal: `*`, `?` and `[` are no patterns."""
    if not files:
        raise ValueError("no Parquet files to read")
    exact = ("".join(f"[{c}]" if c in "*?[" else c for c in file) for file in files)
    # A folder called `kind=video` must not become a column.
    return f"read_parquet([{', '.join(map(text, exact))}], hive_partitioning = false)"


def one_row(con: DuckDBPyConnection, query: str) -> tuple[Any, ...]:
    """The only row of an aggregate query."""
    (row,) = con.execute(query).fetchall()
    return tuple(row)


def refuse_any(con: DuckDBPyConnection, query: str, sentence: str, hint: str) -> None:
    """Raise CurateError with a count and the first id if `query`, which selects an `id`, finds any row."""
    found, first = one_row(con, f"SELECT count(*), min(id) FROM ({query})")
    if found:
        raise CurateError(f"{found} {sentence}, the first {first}", hint)
