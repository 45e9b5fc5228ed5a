"""Parquet files in a store. Of a remote one only what is in use is read: the footer, and the columns asked for."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from curate.schema.ids import digest
from curate.schema.manifest import File
from curate.storage.base import Store

TAIL = 64 << 10
"""Bytes at the end of a remote file that are read at once: its footer, and often all of it."""


def read_table(store: Store, path: str, columns: Sequence[str] | None = None) -> pa.Table:
    """A Parquet file, or some of its columns, in the order asked for.

    Raises:
        FileNotFoundError, pa.ArrowException: no such file; not a whole Parquet file.
        KeyError: a column that it has not.
    """
    with _opened(store, path) as file:
        if columns is None:
            return file.read(use_threads=False)
        names = list(dict.fromkeys(columns))
        return file.read(columns=names, use_threads=False).select(names)


def table_rows(store: Store, path: str) -> int:
    """Rows of a Parquet file, by its footer."""
    with _opened(store, path) as file:
        return int(file.metadata.num_rows)


def _opened(store: Store, path: str) -> pq.ParquetFile:
    if store.remote:
        return pq.ParquetFile(pa.PythonFile(RemoteFile(store, path), mode="r"), pre_buffer=True)
    return pq.ParquetFile(pa.OSFile(str(store.local(path))))


class RemoteFile(io.RawIOBase):
    """A file of a store, to be read here and there; each read is a request, but those of its end.

    Its end is asked for first, in one request, which says its size too.
    """

    def __init__(self, store: Store, path: str) -> None:
        self._store, self._path = store, path
        self._tail, self._size = store.tail(path, TAIL)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._at + size, self._size)
        first = self._size - len(self._tail)
        if self._at >= first:
            data = self._tail[self._at - first : stop - first]
        else:
            data = self._store.read_range(self._path, self._at, stop - self._at)
        self._at += len(data)
        return data


def write_table(store: Store, path: str, table: pa.Table) -> File:
    """Write a Parquet file whole or not at all; equal tables give equal bytes. The manifest's entry of it."""
    with store.atomic_write(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
        return written(path, temporary, table.num_rows)


def written(path: str, temporary: Path, rows: int) -> File:
    """The manifest's entry of a file that is about to be put in place as `path`."""
    found = blake3().update_mmap(temporary)
    return File(path=path, digest=found.hexdigest(), bytes=temporary.stat().st_size, rows=rows)


def write_named_table(store: Store, stem: str, table: pa.Table) -> File:
    """Write a Parquet file whose name ends in the digest of its bytes; the manifest's entry of it.

    So files of an earlier recipe stay as their manifest says until the new manifest is committed.
    """
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    whole = digest(data)
    path = f"{stem}-{whole[:16]}.parquet"
    store.write(path, data)
    return File(path=path, digest=whole, bytes=len(data), rows=table.num_rows)
