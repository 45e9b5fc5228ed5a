"""Ray blocks of samples: Arrow tables, one row a sample, that carry small views and results between operators.

A view crosses as raw bytes, a shape and a dtype, so that readers map it without a copy and images of different sizes
share a column. Views that no later operator needs do not cross.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.media.requests import Array, Audio, DecodeRequest, Energy
from curate.schema.tables import FAILURE
from curate.schema.verdict import Failure

FAIL = "failure:"
"""Before a signal's name: its failures, a column of FAILURE_TYPE."""
VIEW = "view:"
"""Before a view's name: its arrays, a column of structs of bytes, shape and dtype."""
LOST = "lost:"
"""Before a view's name: why a sample does not have it though it should, a column of FAILURE_TYPE."""


def view_name(view: DecodeRequest) -> str:
    """A column name for a view: equal views, equal names (so 1 frame a second is also 1.0)."""
    if isinstance(view, Audio):
        return f"audio-{view.rate}"
    if isinstance(view, Energy):
        return "energy"
    if isinstance(view, Array):
        return "array"
    name = f"frames-{view.size}-{view.fps:g}-{view.max_frames}-{'square' if view.crop else 'whole'}"
    if view.stride:
        name += f"-{'pad' if view.pad else 'trim'}{view.stride}"
    if view.resample != "lanczos":
        name += f"-{view.resample}"
    return f"{name}-crops{view.crops}" if view.crops > 1 else name


def pack_view(arrays: Sequence[NDArray[np.generic] | None]) -> pa.StructArray:
    """A view as a column; null where a sample has none."""
    missing = pa.array([a is None for a in arrays], pa.bool_())
    sizes = np.array([0, *(0 if a is None else a.nbytes for a in arrays)], np.int64)
    flat = np.empty(int(sizes.sum()), np.uint8)
    ends = np.cumsum(sizes)
    for array, start in zip(arrays, ends, strict=False):
        if array is not None:
            flat[start : start + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    data = pa.Array.from_buffers(pa.large_binary(), len(arrays), [None, pa.py_buffer(ends), pa.py_buffer(flat)])
    shapes = pa.array([[] if a is None else list(a.shape) for a in arrays], pa.list_(pa.int32()))
    dtypes = pa.array(["" if a is None else a.dtype.str for a in arrays], pa.string())
    return pa.StructArray.from_arrays([data, shapes, dtypes], ["data", "shape", "dtype"], mask=missing)


def unpack_views(table: pa.Table, view: DecodeRequest) -> list[NDArray[np.generic] | None]:
    """The arrays of a view, read-only, without a copy."""
    column = table.column(VIEW + view_name(view))
    rows = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    valid = rows.is_valid().to_pylist()
    data, shapes, dtypes = rows.flatten()
    shapes = [shape if ok else None for shape, ok in zip(shapes.to_pylist(), valid, strict=True)]
    dtypes = dtypes.to_pylist()
    out: list[NDArray[np.generic] | None] = []
    for value, shape, dtype in zip(data, shapes, dtypes, strict=True):
        if shape is None:
            out.append(None)
            continue
        array = np.frombuffer(value.as_buffer(), dtype=dtype).reshape(shape)
        array.flags.writeable = False  # several signals look at it
        out.append(array)
    return out


def drop_views(table: pa.Table, keep: Iterable[DecodeRequest]) -> pa.Table:
    """The table without the views that no later operator needs."""
    kept = {view_name(v) for v in keep}
    gone = [n for n in table.column_names if n.startswith((VIEW, LOST)) and n.partition(":")[2] not in kept]
    return table.drop_columns(gone) if gone else table


FAILURE_TYPE = pa.struct(FAILURE)
"""A failure as a cell; null where there is none."""


def failure_array(failures: Sequence[Failure | None]) -> pa.StructArray:
    """Failures as a column of FAILURE_TYPE."""
    return pa.array([None if f is None else f.__dict__ for f in failures], FAILURE_TYPE)


def failures_of(column: pa.Array | pa.ChunkedArray) -> list[Failure | None]:
    """Inverse of `failure_array`."""
    if column.null_count == len(column):
        return [None] * len(column)
    return [None if row is None else Failure(**row) for row in column.to_pylist()]


def rows_failed(table: pa.Table) -> pa.Array | pa.ChunkedArray:
    """For each row of a batch whether some signal failed."""
    some = pa.array(np.zeros(table.num_rows, bool))
    for name in table.column_names:
        if name.startswith(FAIL):
            some = pc.or_(some, pc.is_valid(table.column(name)))
    return some


def failed_rows(table: pa.Table) -> int:
    """Rows of a batch of which some signal failed."""
    return int(pc.sum(rows_failed(table)).as_py() or 0)
