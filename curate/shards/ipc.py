"""Arrow IPC files: deterministic writing, memory-mapped reading.

Uncompressed, because a memory map of them reads at about half the speed of raw arrays, at random too, and any Arrow
implementation opens them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from curate.schema.errors import CurateError
from curate.storage import Store

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

    The file descriptor is closed on return; the mapping lives as long as an array of it does.

    Raises:
        CurateError: no such file, or not a whole Arrow IPC file.
    """
    try:
        with pa.memory_map(str(path), "r") as source, pa.ipc.open_file(source) as reader:
            return reader.schema, [reader.get_batch(i) for i in range(reader.num_record_batches)]
    except FileNotFoundError as exc:
        raise CurateError(f"{path}: there is no such file") from exc
    except (pa.ArrowException, OSError) as exc:
        raise CurateError(f"{path}: not a whole Arrow IPC file ({' '.join(str(exc).split())})") from exc
