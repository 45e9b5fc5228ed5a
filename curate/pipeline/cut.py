"""Cut: records to samples. A picture or an array is one sample; a video is its shots, a sound its segments, none too
long.

A piece commits `samples/part-*.parquet`, then `cut/part-*.parquet` (one row a record: how many samples, or the
failure), which is the piece's commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curate.media.clips import cut_spans
from curate.media.decode import Span
from curate.media.guarded import audio_spans, find_shots
from curate.pipeline.media_store import read_media
from curate.pipeline.pieces import Piece
from curate.pipeline.progress import Stage
from curate.pipeline.stream import pieces_dataset, receipts, then
from curate.pipeline.whereabouts import tells
from curate.schema.errors import MediaError
from curate.schema.fields import TIMED
from curate.schema.ids import sample_id
from curate.schema.recipe import Cut
from curate.schema.tables import FAILURE, SAMPLES
from curate.schema.verdict import Failure
from curate.storage import Store
from curate.storage.retry import retries
from curate.storage.tables import read_table, write_table

VERSION = 2

CUT = pa.schema(
    [
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("samples", pa.int32(), nullable=False),
        *FAILURE,
    ]
)


def made_by(cut: Cut) -> Any:
    """What the result depends on beside the records."""
    # min_seconds is a rule of `decide`: moving it must not cut again
    return ["cut", VERSION, cut.shots.model_dump(), cut.max_seconds, cut.max_samples]


def cut(build: Store, options: Cut, work: Sequence[tuple[Piece, list[str]]], stage: Stage) -> None:
    """Cut the pieces that are not there yet; `work` names for each piece the records that are to be sampled."""
    there = build.existing(piece.file("cut", made_by(options)) for piece, _ in work)
    rows = [
        {
            "piece": f"part-{piece.number}",
            "records": piece.path,
            "wanted": wanted,
            "samples": piece.file("samples", made_by(options)),
            "cut": piece.file("cut", made_by(options)),
        }
        for piece, wanted in work
        if piece.file("cut", made_by(options)) not in there
    ]
    if not rows:
        return
    dataset = then(pieces_dataset(rows), cut_piece, cpus=1, build=build, options=options.model_dump())
    for receipt in receipts(dataset):
        stage.add(receipt["rows"], receipt["failed"])
        stage.count(retries=receipt["retries"])


@tells("cut")
def cut_piece(block: pa.Table, build: Store, options: dict[str, Any]) -> pa.Table:
    """One piece of records, cut and committed; the answer is its receipt."""
    item = block.to_pylist()[0]
    how = Cut.model_validate(options)
    wanted = set(item["wanted"])
    samples: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    for record in read_table(build, item["records"]).to_pylist():
        if record["record_id"] not in wanted:
            continue
        try:
            spans = _spans(build, record, how)
        except MediaError as exc:
            done.append({"record_id": record["record_id"], "samples": 0} | Failure.of("cut", exc).__dict__)
            continue
        samples += [_sample(record, span) for span in spans]
        done.append({"record_id": record["record_id"], "samples": len(spans)})
    write_table(build, item["samples"], pa.Table.from_pylist(samples, schema=SAMPLES))
    write_table(build, item["cut"], pa.Table.from_pylist(done, schema=CUT))
    return pa.table(
        {
            "rows": [len(done)],
            "failed": [sum(row.get("error") is not None for row in done)],
            "retries": [retries.take()],
        }
    )


def _spans(build: Store, record: dict[str, Any], how: Cut) -> list[Span]:
    """Spans of the record's samples, without a gap; one empty span for a picture or an array.

    Raises MediaError where they are more than `max_samples`.
    """
    if record["kind"] not in TIMED:
        return [Span(0, 0)]
    data = read_media(build, record["media"], record["offset"], record["bytes"])
    if record["kind"] == "audio":
        whole = audio_spans(data)
    else:
        whole = find_shots(data, how.shots.detector, how.shots.threshold, how.shots.min_frames)
    least = sum(1 for span in whole if not span.missing) + sum(s.seconds for s in whole) / how.max_seconds
    if least <= 2 * how.max_samples:
        spans = cut_spans(whole, how.max_seconds)
        if len(spans) <= how.max_samples:
            return spans
    raise MediaError(
        f"It would be cut into more than {how.max_samples} samples (cut.max_samples): "
        f"{len(whole)} shots, {sum(s.seconds for s in whole):.0f} s."
    )


def _sample(record: dict[str, Any], span: Span) -> dict[str, Any]:
    row = {name: record[name] for name in SAMPLES.names if name in record}
    row |= {
        "sample_id": sample_id(record["content_id"], span.start_us, span.end_us),
        "start_us": span.start_us,
        "end_us": span.end_us,
    }
    if record["kind"] in TIMED:
        row["duration"] = (span.end_us - span.start_us) / 1e6
    return row
