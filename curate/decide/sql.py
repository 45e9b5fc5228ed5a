"""DuckDB over the Parquet files of a build: one place for connecting, naming files and quoting."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from curate.schema.errors import CurateError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


MEMORY = "1GiB"
"""What DuckDB holds of tables, sorts and joins before it spills; results handed over as Arrow come on top."""

MEMORY_VARIABLE = "CURATE_DECIDE_MEMORY"
"""Environment variable that replaces `MEMORY`. A million rows need 192MiB: not everything can spill."""

THREADS = 2
"""Of DuckDB, on any machine: each pins buffers of its own, so more threads need more memory."""


@contextmanager
def connect() -> Iterator[DuckDBPyConnection]:
    """A fresh DuckDB. What does not fit into `MEMORY` spills to a temporary folder (`TMPDIR` moves it).

    It downloads no extensions, and a name in SQL never means a variable of the calling Python code.

    Raises:
        CurateError: the memory is too little, or no size.
    """
    import duckdb

    memory = os.environ.get(MEMORY_VARIABLE) or MEMORY
    with tempfile.TemporaryDirectory(prefix="curate-decide-") as spill:
        con = duckdb.connect(
            ":memory:",
            config={
                "temp_directory": spill,
                "threads": THREADS,
                # tables have no order here: what is handed on is sorted by id
                "preserve_insertion_order": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
            },
        )
        try:
            con.execute("SET python_enable_replacements = false")
            con.execute("SET enable_progress_bar_print = false")  # it writes to stdout, where `--json` answers
            try:
                con.execute(f"SET memory_limit = {text(memory)}")
            except duckdb.ParserException as exc:
                raise CurateError(f"{MEMORY_VARIABLE} is {memory}, which is no size", "write it like 2GiB") from exc
            yield con
        except duckdb.OutOfMemoryException as exc:
            raise CurateError(
                f"deciding needs more than the {memory} of memory that it may take",
                f"set the environment variable {MEMORY_VARIABLE} to more, for example 4GiB",
            ) from exc
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
