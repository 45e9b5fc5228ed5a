"""Arrow IPC files: deterministic writing, memory-mapped reading.

Uncompressed where the recipe does not ask otherwise, because a memory map of them reads at about half the speed of raw
arrays, at random too, and any Arrow implementation opens them. Compressed ones are for the network: they are unpacked
once, when they are opened, and read in the same way from then on.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from curate.schema.errors import CurateError
from curate.storage import Store

_REMEDY = "restore it from a copy, or remove it and run the same command again"

BATCH_ROWS = 1024
"""Rows of a record batch; the last one of a file may hold fewer."""


def write_ipc(store: Store, path: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write an Arrow IPC file, whole or not at all. Equal batches give equal bytes.

    Returns:
        Rows written.
    """
    rows = 0
    with (
        store.atomic_write(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, schema) as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows


def open_ipc(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Map an Arrow IPC file into memory: its schema and its record batches, without copying or reading their data.

    The file descriptor is closed on return; the mapping lives as long as an array of it does. A compressed file is
    unpacked into a file without a name in the folder for temporary files (`TMPDIR`), which is mapped in its place.

    Raises:
        CurateError: no such file, not a whole Arrow IPC file, or no room to unpack it.
    """
    try:
        with pa.memory_map(str(path), "r") as source:
            data = source.read_buffer()
        with pa.ipc.open_file(data) as reader:
            first = [reader.get_batch(0)] if reader.num_record_batches else []
            if all(_lies_in(batch, data) for batch in first):
                return reader.schema, first + [reader.get_batch(i) for i in range(1, reader.num_record_batches)]
            unpacked = _unpacked(path, reader)
        with pa.ipc.open_file(unpacked) as reader:
            return reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except FileNotFoundError as exc:
        raise CurateError(f"{path}: there is no such file", _REMEDY) from exc
    except (pa.ArrowException, OSError) as exc:
        raise CurateError(f"{path}: not a whole Arrow IPC file ({' '.join(str(exc).split())})", _REMEDY) from exc


def _lies_in(batch: pa.RecordBatch, data: pa.Buffer) -> bool:
    """False if the file is compressed: then what was read of it lies elsewhere. pyarrow has no other way to tell."""
    buffers = (b for column in batch.columns for b in column.buffers() if b is not None and b.size)
    return all(data.address <= b.address < data.address + data.size for b in buffers)


def _unpacked(path: Path, reader: pa.ipc.RecordBatchFileReader) -> pa.Buffer:
    """The same file without compression: mapped, so that the kernel may drop and read it again."""
    try:
        with tempfile.TemporaryFile() as file:
            with pa.ipc.new_file(pa.PythonFile(file, "wb"), reader.schema) as writer:
                for i in range(reader.num_record_batches):
                    writer.write_batch(reader.get_batch(i))
            file.flush()
            return pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as exc:
        if isinstance(exc, pa.ArrowException):
            raise
        raise CurateError(
            f"{path}: it is compressed, and cannot be unpacked in {tempfile.gettempdir()} ({exc.strerror or exc})",
            "make room there, or set TMPDIR to a folder that has it",
        ) from exc
