"""Parquet files in a store."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema.ids import digest
from curate.storage.base import Store


def read_table(store: Store, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns."""
    names = None if columns is None else list(columns)
    if store.remote:
        return pq.read_table(pa.BufferReader(store.read(path)), columns=names)
    return pq.read_table(store.local(path), columns=names)


def table_rows(store: Store, path: str) -> int:
    """Rows of a Parquet file, by its footer."""
    if store.remote:
        return int(pq.read_metadata(pa.BufferReader(store.read(path))).num_rows)
    return int(pq.read_metadata(store.local(path)).num_rows)


def write_table(store: Store, path: str, table: pa.Table) -> None:
    """Write a Parquet file whole or not at all; equal tables give equal bytes."""
    with store.placed(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def write_named_table(store: Store, stem: str, table: pa.Table) -> str:
    """Write a Parquet file whose name ends in the digest of its bytes; its path.

    So files of an earlier recipe stay as their manifest says until the new manifest is committed.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    path = f"{stem}-{digest(data)[:16]}.parquet"
    store.write(path, data)
    return path
