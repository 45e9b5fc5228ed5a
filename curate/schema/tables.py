"""Arrow schemas of the tables that a build holds. `schemas/tables.md` describes them for readers in other languages."""

from __future__ import annotations

import pyarrow as pa

FAILURE = [
    pa.field("stage", pa.string()),
    pa.field("error", pa.string()),
    pa.field("message", pa.string()),
    pa.field("attempt", pa.int32()),
]
"""Columns of a failure; all null where there is none."""

PROBE = [
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("duration", pa.float64()),  # seconds; null for images
    pa.field("fps", pa.float64()),  # average frame rate; null for images and audio
    pa.field("has_audio", pa.bool_()),
    pa.field("codec", pa.string()),
    pa.field("audio_rate", pa.int32()),  # Hz
]
"""What probing says of media, on display orientation."""

_LISTED = [
    pa.field("record_id", pa.string(), nullable=False),
    pa.field("source", pa.string(), nullable=False),
    pa.field("uri", pa.string(), nullable=False),
]
_SAID = [
    pa.field("text", pa.string()),
    pa.field("licence", pa.string()),
    pa.field("meta", pa.string(), nullable=False),  # JSON object of whatever else the source said
    pa.field("content_id", pa.string()),
    pa.field("bytes", pa.int64()),
    pa.field("media", pa.string()),  # tar of the build that holds the bytes, relative to the build
    pa.field("member", pa.string()),  # its member name
    pa.field("offset", pa.int64()),  # where its bytes start in the tar
]
_KIND = pa.field("kind", pa.string())  # image, video or audio; null where it could not be told

FETCHED = pa.schema([*_LISTED, *_SAID, *FAILURE])
"""One row a record, as fetching leaves it."""

RECORDS = pa.schema([*_LISTED, _KIND, *_SAID, *PROBE, *FAILURE])
"""One row a record, as probing and cutting leave it."""

SAMPLES = pa.schema(
    [
        pa.field("sample_id", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("start_us", pa.int64(), nullable=False),  # microseconds on the media's clock; 0 for images
        pa.field("end_us", pa.int64(), nullable=False),  # exclusive
        pa.field("text", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("media", pa.string(), nullable=False),
        pa.field("member", pa.string(), nullable=False),
        pa.field("offset", pa.int64()),
        pa.field("bytes", pa.int64()),
        *PROBE,
    ]
)
"""One row a sample, as cut leaves it. `duration` is that of the sample, not of the record."""

LEDGER = pa.schema(
    [
        pa.field("level", pa.string(), nullable=False),  # record or sample
        pa.field("id", pa.string(), nullable=False),
        pa.field("record_id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string()),
        pa.field("start_us", pa.int64()),
        pa.field("end_us", pa.int64()),
        pa.field("outcome", pa.string(), nullable=False),
        pa.field("rule", pa.string()),  # dropped: the rule's name, e.g. `sharpness >= 20`
        pa.field("value", pa.float64()),  # dropped: the value that broke it
        pa.field("threshold", pa.float64()),  # dropped: the absolute threshold (of a percentile rule: as it came out)
        pa.field("value_text", pa.string()),  # dropped by a rule on words, in place of the two: what broke it
        pa.field("duplicate_of", pa.string()),  # duplicate: id of the keeper, of the same level
        pa.field("match", pa.string()),  # duplicate: exact or near
        pa.field("similarity", pa.float64()),  # near duplicate: cosine with the keeper
        *FAILURE,
        pa.field("not_evaluated", pa.list_(pa.string())),  # of a sample: signals of the second look that skipped it
    ]
)
"""One row for each record and each sample, nothing missing (law 1)."""

FAILURE_NAMES = tuple(f.name for f in FAILURE)
PROBE_NAMES = tuple(f.name for f in PROBE)
