"""The manifest: the one commit point of a build. It names the lists of its files, each file with its digest and its
rows; nothing else counts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from curate.schema.codec import CodecCard

FORMAT = 2
MANIFEST = "manifest.json"

WORK = ("tokenized/", "pairs/", "units/")
"""Folders of what a run keeps for the next one, and that the manifest does not name: they may hold more than a build
shows (samples that were kept before a threshold moved), and a build follows from input and recipe alone."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class File(_Part):
    """A file of the build. `digest` is its whole BLAKE3; `rows` of a tar are its records, of a list its files, of a
    card 0."""

    path: str
    digest: str
    bytes: int
    rows: int


class Clock(_Part):
    """How steps of a stream of video stand in time: step 0 is the frame at the sample's start, step j the `stride`
    frames up to number j * stride; frames are 1 / fps seconds apart. `pad`: the last frame may be repeated; of a sample
    of d seconds the first ceil((d - 1.5e-6) * fps) frames are its own, since the ends of spans are rounded to
    microseconds (`curate.media.requests.clip_frames`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fps: float
    stride: int
    pad: bool


class FrameCounts(_Part):
    """Frames of a stream of video, over all shards. `own`: of the clips. `left_out`: of the clips and not in the ids,
    because of `max_frames`, or too many for 1 + stride * k. `repeated`: not of the clips, the last frame once more."""

    own: int = 0
    left_out: int = 0
    repeated: int = 0


class StreamEntry(_Part):
    """A token stream: what its column holds. `ids` counts all ids over all shards, or all values of features."""

    name: str
    tokenizer: str
    modality: str
    vocabulary: int
    dtype: str
    shape: list[int | None]  # of one sample's ids, None where it varies, e.g. [None, 32, 32]
    ids: int
    samples: int
    clock: Clock | None = None
    frames: FrameCounts | None = None  # of video


class Split(_Part):
    name: str
    samples: int
    shards: list[str]
    shard_rows: list[int]


class Counts(_Part):
    """Sums of the ledger; each adds up to its total (law 1)."""

    records: dict[str, int]
    samples: dict[str, int]


class Manifest(_Part):
    """`manifest.json`. No wall clock, host name or random id occurs in it (law 6).

    `lists` are tables of all other files, a row each: path, digest, bytes, rows, sorted by path. `parent` is the digest
    of the manifest of the version before, where there is one.
    """

    format: int = FORMAT
    version: int = 1
    parent: str | None = None
    name: str
    recipe: dict[str, Any]
    seed: int
    counts: Counts
    splits: list[Split]
    streams: list[StreamEntry]
    signals: list[dict[str, Any]]
    codecs: dict[str, CodecCard]
    versions: dict[str, str]
    hardware: str
    lists: list[File]
