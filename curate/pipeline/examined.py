"""Samples of a partition in batches, each decoded once: from records that are probed and cut on the way, or again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.media.clips import Span
from curate.media.examine import CutHow, Examined, Request, Viewed
from curate.media.guarded import decode_many, examine
from curate.media.requests import DecodeRequest
from curate.pipeline.blocks import LOST, VIEW, failure_array, pack_view, view_name
from curate.pipeline.media_store import MediaReader
from curate.schema.errors import MediaError, Quarantined
from curate.schema.fields import TIMED
from curate.schema.ids import sample_id
from curate.schema.tables import PROBE_NAMES, RECORDS, SAMPLES
from curate.schema.verdict import Failure
from curate.signals.probed import PROBED
from curate.storage import Store

DECODE_SECONDS = 120.0
"""Time limit for decoding one sample; reaching it is a failure of that sample."""

BATCH_ROWS, BATCH_TIMED = 128, 32
"""Most samples, and most clips and segments among them, that models see together. Their views are what a worker holds
in memory, so that does not grow with `partition`; and what shares a batch follows from the place in the partition
(law 6)."""

WINDOW_ROWS, WINDOW_BYTES = 256, 64 << 20
"""Most records, and most bytes of them, that are handed to the decoder together."""


@dataclass
class Batch:
    """Some samples with their views.

    Attributes:
        rows: of SAMPLES, a column a list.
        stage: that decodes them, in failures.
        views: one dict a sample.
        failures: one dict a sample, of each view that it lost why.
    """

    stage: str = "annotate"
    rows: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in SAMPLES.names})
    views: list[Mapping[DecodeRequest, NDArray[np.generic]]] = field(default_factory=list)
    failures: list[Mapping[DecodeRequest, Failure]] = field(default_factory=list)
    timed: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.views) >= BATCH_ROWS or self.timed >= BATCH_TIMED

    @property
    def samples(self) -> pa.Table:
        """Its rows of the table of samples."""
        return pa.table(self.rows, schema=SAMPLES)

    def add(
        self, row: Mapping[str, Any], got: Viewed, data: bytes, views: Sequence[DecodeRequest], reader: str
    ) -> None:
        """One more sample.

        Args:
            got: what came of decoding `views` together.
            data: its media.
            reader: that decoded them.
        """
        for name, values in self.rows.items():
            values.append(row.get(name))
        found, errors = (got.views, {}) if got.error is None else _apart(row, got.error, data, views, reader)
        for array in found.values():
            array.setflags(write=False)  # all signals and tokenizers of the batch see the same one
        self.views.append(found)
        self.failures.append({view: Failure.of(f"{self.stage}:decode", error) for view, error in errors.items()})
        self.timed += row["kind"] in TIMED

    def table(self, views: Sequence[DecodeRequest]) -> pa.Table:
        """What signals see: keys, probed fields, and two columns a view, VIEW and LOST."""
        samples = self.samples
        pixels = pc.multiply(samples.column("width").cast(pa.int64()), samples.column("height"))
        samples = samples.append_column("pixels", pixels).select(["sample_id", "kind", "text", *PROBED])
        return with_views(samples, self, views)


def with_views(samples: pa.Table, batch: Batch, views: Sequence[DecodeRequest]) -> pa.Table:
    """Rows of a batch with two columns a view, VIEW and LOST."""
    for view in views:
        samples = samples.append_column(VIEW + view_name(view), pack_view([got.get(view) for got in batch.views]))
        lost = failure_array([failed.get(view) for failed in batch.failures])
        samples = samples.append_column(LOST + view_name(view), lost)
    return samples


class Records:
    """The table of records of a partition while it is made.

    Args:
        fetched: the table of FETCHED.
    """

    def __init__(self, fetched: pa.Table) -> None:
        self.rows = fetched.to_pylist()
        self._found: list[dict[str, Any]] = [{} for _ in self.rows]

    def add(self, at: int, found: Examined) -> None:
        """What the decoder says of record `at`."""
        row = self._found[at]
        if found.probe is not None:
            row |= {"kind": found.probe.kind} | {name: getattr(found.probe, name) for name in PROBE_NAMES}
        if found.error is not None:
            row |= Failure.of(found.stage, found.error).__dict__
        elif not found.spans:  # each record has a sample or a failure (law 1)
            row |= Failure("cut", "MediaError", "Nothing of it can be made a sample.").__dict__

    def sample(self, at: int, span: Span) -> dict[str, Any]:
        """The row of a sample of record `at`."""
        record, found = self.rows[at], self._found[at]
        row = {**record, **found}
        row["sample_id"] = sample_id(record["content_id"], span.start_us, span.end_us)
        row["start_us"], row["end_us"] = span.start_us, span.end_us
        if found["kind"] in TIMED:
            row["duration"] = (span.end_us - span.start_us) / 1e6
        return row

    def table(self) -> pa.Table:
        """The table of RECORDS."""
        merged = [{**row, **found} for row, found in zip(self.rows, self._found, strict=True)]
        return pa.table({name: [row.get(name) for row in merged] for name in RECORDS.names}, schema=RECORDS)


def examined(
    build: Store,
    records: Records,
    how: CutHow,
    views: Sequence[DecodeRequest],
    reader: str = "pyav",
    tick: Callable[[], object] = int,
) -> Iterator[Batch]:
    """Probe, cut and decode records; their samples in batches, in order. What is found of records is added to them.

    Args:
        reader: of video, as in the recipe.
        tick: is called for each sample as it is decoded.
    """
    there = [i for i, row in enumerate(records.rows) if row["error"] is None]
    batch = Batch()
    for window, items in _windows(build, records.rows, there, lambda row: row["uri"]):
        for got in examine(items, how, views, limit_s=DECODE_SECONDS, reader=reader):
            at = window[got.index]
            if isinstance(got, Examined):
                records.add(at, got)
                continue
            batch.add(records.sample(at, got.span), got, items[got.index][0], views, reader)
            tick()
            if batch.is_full:
                yield batch
                batch = Batch()
    if batch.views:
        yield batch


def decoded(
    build: Store,
    samples: pa.Table,
    views: Sequence[DecodeRequest],
    stage: str = "annotate",
    reader: str = "pyav",
    tick: Callable[[], object] = int,
) -> Iterator[Batch]:
    """Samples decoded again, in the batches of `examined`.

    Args:
        samples: of SAMPLES.
        stage: that a failure names.
        reader: of video, as in the recipe.
        tick: is called for each sample as it is decoded.
    """
    rows = samples.to_pylist()
    batch = Batch(stage)
    for got, data in views_of(build, rows, views, reader):
        batch.add(rows[got.index], got, data, views, reader)
        tick()
        if batch.is_full:
            yield batch
            batch = Batch(stage)
    if batch.views:
        yield batch


def views_of(
    build: Store, rows: Sequence[Mapping[str, Any]], views: Sequence[DecodeRequest], reader: str = "pyav"
) -> Iterator[tuple[Viewed, bytes]]:
    """The views of samples, in order, with their media; `index` is the place in `rows`.

    Args:
        rows: of SAMPLES.
    """
    if not views:
        yield from ((Viewed(i, _span(row) or Span(0, 0)), b"") for i, row in enumerate(rows))
        return
    for window, items in _windows(build, rows, range(len(rows)), lambda row: row["sample_id"]):
        requests = [
            Request(data, row["kind"], _span(row), "", row["sample_id"])
            for (data, _), row in zip(items, (rows[i] for i in window), strict=True)
        ]
        for got in decode_many(requests, views, limit_s=DECODE_SECONDS, reader=reader):
            yield Viewed(window[got.index], got.span, got.views, got.error), items[got.index][0]


def _apart(
    row: Mapping[str, Any], error: MediaError, data: bytes, views: Sequence[DecodeRequest], reader: str
) -> tuple[dict[DecodeRequest, NDArray[np.generic]], dict[DecodeRequest, MediaError]]:
    """What a sample has, and what it lost, each view decoded for itself: damaged audio costs no frames. So what is
    said of a view does not depend on which others were asked for.

    Media that killed the decoder, or took too much of it, are not tried again: all views are lost.

    Args:
        error: what came of decoding them together.
    """
    if len(views) == 1 or isinstance(error, Quarantined):
        return {}, dict.fromkeys(views, error)
    found: dict[DecodeRequest, NDArray[np.generic]] = {}
    lost: dict[DecodeRequest, MediaError] = {}
    request = Request(data, row["kind"], _span(row), "", row["sample_id"])
    for view in views:
        [got] = decode_many([request], [view], limit_s=DECODE_SECONDS, reader=reader)
        found |= got.views
        if got.error is not None:
            lost[view] = got.error
    return found, lost


def _span(row: Mapping[str, Any]) -> Span | None:
    return Span(row["start_us"], row["end_us"]) if row["kind"] in TIMED else None


def _windows(
    build: Store, rows: Sequence[Mapping[str, Any]], there: Sequence[int], name: Any
) -> Iterator[tuple[list[int], list[tuple[bytes, str]]]]:
    """Runs of rows with their media: places, and for each its bytes and its name. Clips of one file share them."""
    reader = MediaReader(build, [rows[i] for i in there])
    held: list[int] = []
    items: list[tuple[bytes, str]] = []
    size = 0
    before = None
    for k, i in enumerate(there):
        place = rows[i]["media"], rows[i]["offset"]
        more = 0 if place == before else rows[i]["bytes"]
        if held and (len(held) == WINDOW_ROWS or size + more > WINDOW_BYTES):
            yield held, items
            held, items, size, more = [], [], 0, rows[i]["bytes"]
        data = items[-1][0] if held and place == before else reader.read(k)
        held.append(i)
        items.append((data, name(rows[i])))
        size, before = size + more, place
    if held:
        yield held, items
