"""DuckDB over Parquet files, for questions whose answers are small: one place for connecting, naming and quoting."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from curate.schema.errors import CurateError

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

MEMORY = "384MiB"
"""What DuckDB holds before it spills."""

MEMORY_VARIABLE = "CURATE_SQL_MEMORY"
"""Environment variable that replaces `MEMORY`: not everything can spill."""

THREADS = 2
"""Of DuckDB, on any machine: each pins buffers of its own, so more threads need more memory."""


@contextmanager
def connect() -> Iterator[DuckDBPyConnection]:
    """A fresh DuckDB. What does not fit into `MEMORY` spills to a temporary folder (`TMPDIR` moves it).

    It downloads no extensions, and a name in SQL never means a variable of the calling Python code. Rows have no order
    but that which a query states.

    Raises:
        CurateError: the memory is too little, or no size.
    """
    import duckdb

    memory = os.environ.get(MEMORY_VARIABLE) or MEMORY
    with tempfile.TemporaryDirectory(prefix="curate-sql-") as spill:
        con = duckdb.connect(
            ":memory:",
            config={
                "temp_directory": spill,
                "threads": THREADS,
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
                f"reading the build's tables needs more than the {memory} of memory that it may take",
                f"set the environment variable {MEMORY_VARIABLE} to more, for example 2GiB",
            ) from exc
        finally:
            con.close()


def text(value: str) -> str:
    """`value` as a SQL string."""
    return "'" + value.replace("'", "''") + "'"


def quoted(column: str) -> str:
    """`column` as a SQL identifier: names of fields come from signals, which users write."""
    return '"' + column.replace('"', '""') + '"'


def scan(files: Sequence[str]) -> str:
    """A SQL table function over Parquet files of one schema. Paths are literal: `*`, `?` and `[` are no patterns."""
    if not files:
        raise ValueError("no Parquet files to read")
    exact = ("".join(f"[{c}]" if c in "*?[" else c for c in file) for file in files)
    # A folder called `kind=video` must not become a column.
    return f"read_parquet([{', '.join(map(text, exact))}], hive_partitioning = false)"
