"""Tokenized fragments: one token stream's ids for samples of one partition, keyed by sample (law 9).

`tokenized/<stream>/<partition>-<fp>-<ids16>.arrow` holds the key columns, the stream's column (null: the sample has no
such modality, or failed) and failure columns. It serves whatever subset of its partition is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.tables import FAILURE, FAILURE_NAMES
from curate.schema.verdict import Failure
from curate.shards.ipc import BATCH_ROWS, open_ipc, write_ipc
from curate.shards.rows import Ragged, to_list
from curate.shards.schema import KEYS, StreamSpec, shard_schema
from curate.storage import Store

Ids: TypeAlias = "Sequence[NDArray[Any] | None] | pa.ListArray"
"""A stream's column before it is checked: arrays in the stream's shape, or flat in C order; None where missing."""


def fragment_schema(spec: StreamSpec) -> pa.Schema:
    """The schema of a fragment: that of a shard with one stream, and failure columns."""
    one = shard_schema([spec])
    return pa.schema([*one, *FAILURE], metadata=one.metadata)


def write_fragment(
    store: Store, path: str, spec: StreamSpec, keys: pa.Table, ids: Ids, failures: Sequence[Failure | None]
) -> int:
    """Write a fragment, whole or not at all; equal columns give equal bytes. One without rows is a valid file.

    Args:
        keys: the key columns (others are left out), one row a sample.
        ids: of each row.
        failures: of each row; None where nothing failed.

    Returns:
        Rows written.

    Raises:
        ValueError: columns of different lengths, ids of a sample that failed, or ids that the stream cannot hold
            (`StreamSpec.check`); nothing is written. To let one bad sample fail alone, check each sample before.
    """
    n = keys.num_rows
    if len(ids) != n or len(failures) != n:
        raise ValueError(f"stream {spec.name!r}: {n} keys, {len(ids)} rows of ids, {len(failures)} of failures")
    column = check_column(spec, ids)
    failed = np.fromiter((f is not None for f in failures), np.bool_, n)
    if (both := np.flatnonzero(failed & column.present)).size:
        raise ValueError(f"stream {spec.name!r}: row {both[0]} failed and has ids")
    schema = fragment_schema(spec)
    # `take` lays a column's buffers out anew, so bytes do not depend on how the caller's table came about
    known = [keys.column(f.name).cast(f.type) for f in KEYS]
    known += [pa.chunked_array([[f and getattr(f, c.name) for f in failures]], c.type) for c in FAILURE]

    def batch(start: int) -> pa.RecordBatch:
        stop = min(start + BATCH_ROWS, n)
        index = pa.array(np.arange(start, stop))
        parts = [c.take(index).combine_chunks() for c in known]
        parts.insert(len(KEYS), to_list(column.part(start, stop), spec))
        return pa.RecordBatch.from_arrays(parts, schema=schema)

    return write_ipc(store, path, schema, (batch(start) for start in range(0, n, BATCH_ROWS)))


def read_fragment(store: Store, path: str, spec: StreamSpec | None = None) -> pa.Table:
    """A whole fragment, mapped into memory where it lies on a disk.

    Raises:
        CurateError: it is not whole, no fragment, or (where `spec` is given) one of another stream or codec.
        FileNotFoundError: a remote store has no such file.
    """
    schema, batches = open_fragment(store.local(path), store.name(path), spec)
    return pa.Table.from_batches(batches, schema)


def read_ids(store: Store, path: str) -> pa.Array:
    """The ids of the samples that a fragment holds, failed ones too; raises as `read_fragment`."""
    return read_fragment(store, path).column("sample_id").combine_chunks()


def read_failed(store: Store, path: str) -> pa.Array:
    """The ids of the samples that failed in a fragment; raises as `read_fragment`."""
    table = read_fragment(store, path)
    return table.column("sample_id").filter(table.column("error").is_valid()).combine_chunks()


def open_fragment(place: Path, name: str, spec: StreamSpec | None = None) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """Schema and record batches of a fragment that lies at `place`; raises as `read_fragment`.

    Args:
        name: what messages call it.
    """
    schema, batches = open_ipc(place)
    names = schema.names
    if names != [*(f.name for f in KEYS), *names[len(KEYS) : len(KEYS) + 1], *FAILURE_NAMES]:
        raise CurateError(f"{name}: not a tokenized fragment", "remove it and run the same command again")
    if spec is not None and not schema.equals(fragment_schema(spec), check_metadata=True):
        raise CurateError(
            f"{name}: holds another stream, or one of another codec, than {spec.name!r}",
            "remove it and run the same command again",
        )
    return schema, batches


def check_column(spec: StreamSpec, ids: Ids) -> Ragged:
    """A stream's ids of some rows, checked as `StreamSpec.check` does and as they are stored; whole columns at once.

    Raises:
        ValueError: as `StreamSpec.check`, of the first row that does not fit.
    """
    if isinstance(ids, pa.Array):
        return _check_list(spec, ids)
    present = np.fromiter((one is not None for one in ids), np.bool_, len(ids))
    arrays = [np.asarray(one) for one in ids if one is not None]
    for one in arrays:
        spec.check_type(one.dtype)
        spec.check_shape(one.shape)
    if len({one.dtype for one in arrays}) > 1:  # numpy would make floats of int64 and uint64
        arrays = [spec.check_values(one) for one in arrays]
    sizes = np.zeros(len(ids), np.int64)
    sizes[present] = [one.size for one in arrays]
    flat = np.concatenate([one.reshape(-1) for one in arrays]) if arrays else np.empty(0, spec.numpy_dtype)
    return _ragged(spec, flat, sizes, present)


def _check_list(spec: StreamSpec, ids: pa.Array) -> Ragged:
    present = ids.is_valid().to_numpy(zero_copy_only=False)
    sizes = pc.fill_null(pc.list_value_length(ids), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    values = ids.flatten()  # without what lies under nulls
    if values.null_count:
        raise ValueError(f"stream {spec.name!r}: an id is null")
    flat = values.to_numpy(zero_copy_only=False)
    spec.check_type(flat.dtype)
    for size in np.unique(sizes[present]):
        spec.check_shape((int(size),))
    return _ragged(spec, flat, sizes, present)


def _ragged(spec: StreamSpec, flat: NDArray[Any], sizes: NDArray[np.int64], present: NDArray[np.bool_]) -> Ragged:
    values = spec.check_values(flat)
    offsets = np.concatenate(([0], np.cumsum(sizes // spec.unit))).astype(np.int64)
    return Ragged(values.reshape(-1, *spec.fixed), offsets, present, spec.shape[0] is None)
