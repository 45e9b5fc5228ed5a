"""Ray blocks of samples: Arrow tables, one row a sample, that carry small views and results between operators.

A view crosses as raw bytes, a shape and a dtype, so that readers map it without a copy and pictures of different sizes
share a column. Views that no later operator needs do not cross.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.views import Array, Audio, Energy, View
from curate.pipeline.pieces import BATCH_ROWS
from curate.schema.verdict import Failure

FAIL = "fail:"
VIEW = "view:"
SHAPE = "shape:"
DTYPE = "dtype:"


def view_name(view: View) -> str:
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
    return f"{name}-crops{view.crops}" if view.crops > 1 else name


def pack_views(view: View, arrays: Sequence[NDArray[np.generic] | None]) -> dict[str, pa.Array]:
    """The three columns of a view; null where a sample has none."""
    data = pa.array([None if a is None else np.ascontiguousarray(a).tobytes() for a in arrays], pa.large_binary())
    shapes = pa.array([None if a is None else list(a.shape) for a in arrays], pa.list_(pa.int32()))
    dtypes = pa.array([None if a is None else a.dtype.str for a in arrays], pa.string())
    name = view_name(view)
    return {VIEW + name: data, SHAPE + name: shapes, DTYPE + name: dtypes}


def unpack_views(table: pa.Table, view: View) -> list[NDArray[np.generic] | None]:
    """The arrays of a view, read-only, without a copy."""
    data = table.column(VIEW + view_name(view))
    shapes = table.column(SHAPE + view_name(view)).to_pylist()
    dtypes = table.column(DTYPE + view_name(view)).to_pylist()
    out: list[NDArray[np.generic] | None] = []
    for value, shape, dtype in zip(data, shapes, dtypes, strict=True):
        if shape is None:
            out.append(None)
            continue
        array = np.frombuffer(value.as_buffer(), dtype=dtype).reshape(shape)
        array.flags.writeable = False  # several signals look at it
        out.append(array)
    return out


def batches(table: pa.Table) -> list[pa.Table]:
    """The rows of a piece in batches (`BATCH_ROWS`), in order and without a copy."""
    return [table.slice(start, BATCH_ROWS) for start in range(0, table.num_rows, BATCH_ROWS)]


def drop_views(table: pa.Table, keep: Iterable[View]) -> pa.Table:
    """The table without the views that no later operator needs."""
    kept = {view_name(v) for v in keep}
    gone = [n for n in table.column_names if n.startswith((VIEW, SHAPE, DTYPE)) and n.split(":", 1)[1] not in kept]
    return table.drop_columns(gone) if gone else table


def failure_text(failure: Failure | None) -> str | None:
    """A failure as it crosses in a column."""
    if failure is None:
        return None
    return json.dumps([failure.stage, failure.error, failure.message, failure.attempt])


def failure_of(text: str | None) -> Failure | None:
    """Inverse of `failure_text`."""
    return None if text is None else Failure(*json.loads(text))


def failure_columns(failures: Sequence[Failure | None]) -> dict[str, pa.Array]:
    """The FAILURE columns of a table."""
    rows: list[dict[str, Any]] = [{} if f is None else f.__dict__ for f in failures]
    return {
        "stage": pa.array([r.get("stage") for r in rows], pa.string()),
        "error": pa.array([r.get("error") for r in rows], pa.string()),
        "message": pa.array([r.get("message") for r in rows], pa.string()),
        "attempt": pa.array([r.get("attempt") for r in rows], pa.int32()),
    }
