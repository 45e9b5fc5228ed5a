"""Samples of a partition on their way to the workers that hold models: with their views in a row of the plan, each
view once; or without, where the views weigh too much and are decoded again there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curate.media.requests import DecodeRequest
from curate.pipeline.blocks import VIEW, drop_views, view_name
from curate.pipeline.examined import BATCH_ROWS
from curate.pipeline.rows import nested, unnested
from curate.schema.fields import RunsOn

BATCH, SIZES = "batch", "sizes"
"""Columns of a row: the samples with their views; how many of them the decoder gave together, null where the views are
too large to flow."""

MOST_FLOWING = 1 << 30
"""Most bytes of views of one partition that flow: a row of a plan lies in memory whole, and one record may make
thousands of clips."""

HANDED_BATCHES, HANDED_BYTES = 4, 256 << 20
"""Batches that a model on a GPU is handed together, where a sample is one item; and most bytes of their views."""


class Flow:
    """Batches of one partition, gathered for later workers.

    Args:
        views: that later workers need; others do not flow.
    """

    def __init__(self, views: Sequence[DecodeRequest]) -> None:
        self._views = views
        self._parts: list[pa.Table] = []
        self._sizes: list[int] | None = []
        self._weight = 0

    def add(self, batch: pa.Table) -> None:
        """One more batch, of samples with their views."""
        if self._sizes is None:
            return
        self._parts.append(drop_views(batch, self._views))
        self._sizes.append(batch.num_rows)
        self._weight += self._parts[-1].nbytes
        if self._weight > MOST_FLOWING:
            self._parts, self._sizes = [], None

    @property
    def is_over(self) -> bool:
        """True if nothing flows, because it would be too much."""
        return self._sizes is None

    def onto(self, row: pa.Table, empty: pa.Table) -> pa.Table:
        """A row with the columns BATCH and SIZES; `empty` is a batch of no sample."""
        row = row.append_column(BATCH, nested(pa.concat_tables(self._parts) if self._parts else empty))
        return row.append_column(SIZES, pa.array([self._sizes], pa.list_(pa.int64())))


def flowed(row: pa.Table) -> list[pa.Table] | None:
    """The batches that came with a row, as the decoder gave them; None where they are to be decoded again."""
    sizes = row.column(SIZES)[0].as_py()
    if sizes is None:
        return None
    whole = unnested(row, BATCH)
    return [whole.slice(sum(sizes[:i]), size) for i, size in enumerate(sizes)]


def passed_on(row: pa.Table, parts: Sequence[pa.Table], views: Sequence[DecodeRequest]) -> pa.Table:
    """The row with these batches in place of those that came with it, and of their views only those that later workers
    need."""
    if not parts:
        return row
    batch = nested(drop_views(pa.concat_tables(parts), views))
    return row.set_column(row.column_names.index(BATCH), BATCH, batch)


def handed(batches: Iterable[pa.Table], views: Sequence[DecodeRequest], on: Sequence[RunsOn]) -> Iterator[pa.Table]:
    """The samples of a partition as models are handed them: on a CPU as the decoder gives them, on a GPU so many
    together that the model's own batches are full.

    A model on a GPU cuts what it is handed into batches of one shape, in order, and pads the last. Where a hand-over
    ends follows from the samples and from the model's own `views` and batch alone. So a sample's neighbours in a batch,
    and with them the last bits of its values, are the same for a pool of any size, in any order of partitions, and
    where views came through the plan as where they were decoded again (law 6). On a CPU items pass one by one.

    Args:
        batches: as the decoder gives them.
        views: that the models look at.
        on: what they run on.
    """
    if all(one.device == "cpu" for one in on):
        yield from batches
        return
    most = max(BATCH_ROWS, HANDED_BATCHES * max(one.batch for one in on))
    held: list[pa.Table] = []
    rows = weight = 0
    for table in batches:
        start = 0
        for i, size in enumerate(_bytes(table, views)):
            rows, weight = rows + 1, weight + size
            if rows >= most or weight >= HANDED_BYTES:
                yield pa.concat_tables([*held, table.slice(start, i + 1 - start)])
                held, start, rows, weight = [], i + 1, 0, 0
        if start < table.num_rows:
            held.append(table.slice(start))
    if held:
        yield pa.concat_tables(held)


def _bytes(table: pa.Table, views: Sequence[DecodeRequest]) -> list[int]:
    """Of each row, the bytes of some of its views."""
    sizes = [0] * table.num_rows
    for view in views:
        data = pc.struct_field(table.column(VIEW + view_name(view)), "data")
        lengths = pc.fill_null(pc.binary_length(data), 0).to_pylist()
        sizes = [a + b for a, b in zip(sizes, lengths, strict=True)]
    return sizes
