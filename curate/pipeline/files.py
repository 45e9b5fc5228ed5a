"""Committed files: written beside their place, then put in place whole (law 7).

A piece's file carries the piece's name, which holds the digest of its input and of the code and options that made it.
So a file that is there is right, a rerun lists names, and a task that runs twice writes the same bytes.
"""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema.ids import digest
from curate.shards.place import placed


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file whole or not at all; equal tables give equal bytes."""
    with placed(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_named_table(build: Path, stem: str, table: pa.Table) -> str:
    """Write a Parquet file whose name ends in the digest of its bytes; its path relative to the build.

    So files of an earlier recipe stay as their manifest says until the new manifest is committed.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    path = f"{stem}-{digest(data)[:16]}.parquet"
    with placed(build / path) as temporary:
        temporary.write_bytes(data)
    return path


def remove_others(build: Path, keep: set[str]) -> int:
    """Remove files of `build` that are not in `keep` (relative paths), and empty folders; how many files."""
    removed = 0
    for path in sorted(build.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path.relative_to(build).as_posix() not in keep:
            path.unlink()
            removed += 1
    return removed
