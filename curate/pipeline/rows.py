"""Rows of a plan: one a partition, with typed columns for what operators tell each other."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from curate.pipeline.partitions import Partition
from curate.schema.manifest import File
from curate.shards import lists

PARTITION = pa.schema(
    [
        pa.field("partition", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("whole", pa.int64(), nullable=False),  # of these, records that stand for a unit that cannot be read
    ]
)
"""What every row of the plan begins with."""

LEADS = pa.field("leads", pa.string())
"""A further column up to the decoder: what a unit or a partition is to its source (`failed_sources`)."""

TALLY = (
    pa.field("total", pa.int64(), nullable=False),
    pa.field("reused", pa.int64(), nullable=False),
    pa.field("failed", pa.int64(), nullable=False),
    pa.field("retries", pa.int64(), nullable=False),
)
"""What a stage says of a partition, as the board is told while it works. The row is what counts: a task that is done
twice gives one row."""


FILES = pa.list_(pa.struct(list(lists.FILES)))
"""Files that tasks committed, as `schema.manifest.File`: digests are made where the bytes are written, so
that the end of a run reads no byte of a build again."""


def files_column(before: pa.ChunkedArray | None, files: Sequence[File]) -> pa.Array:
    """A column of one such list: what is `before`, if anything, and some more."""
    held = before[0].as_py() if before is not None else []
    return pa.array([[*held, *(file.model_dump() for file in files)]], FILES)


def tally_column(name: str, total: int, reused: int, failed: int, retried: int) -> tuple[pa.Field, pa.Array]:
    """A column of one such struct."""
    values = dict(zip((f.name for f in TALLY), (total, reused, failed, retried), strict=True))
    return pa.field(name, pa.struct(TALLY)), pa.array([values], pa.struct(TALLY))


def partition_of(block: pa.Table) -> Partition:
    """The partition that a row is about."""
    return Partition(*(block.column(name)[0].as_py() for name in ("partition", "source", "rows")))


def nested(table: pa.Table) -> pa.Array:
    """A whole table as one cell of a row, without a copy."""
    rows = table.combine_chunks().to_struct_array()
    rows = rows.combine_chunks() if isinstance(rows, pa.ChunkedArray) else rows
    return pa.LargeListArray.from_arrays(pa.array([0, len(rows)], pa.int64()), rows)


def unnested(block: pa.Table, column: str) -> pa.Table:
    """Inverse of `nested`: the table in the first row."""
    return pa.Table.from_struct_array(block.column(column)[0].values)
