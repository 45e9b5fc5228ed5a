"""The manifest: the one commit point of a build. It names every file, its digest and its rows; nothing else counts."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from curate.schema.codec import CodecCard

FORMAT = 1
MANIFEST = "manifest.json"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class File(_Part):
    """A file of the build. `digest` is its whole BLAKE3; `rows` of a tar are its records, of a card 0."""

    path: str
    digest: str
    bytes: int
    rows: int


class StreamEntry(_Part):
    """A token stream: what its column holds. `ids` counts all ids over all shards."""

    name: str
    tokenizer: str
    modality: str
    vocabulary: int
    dtype: str
    shape: list[int | None]  # of one sample's ids, None where it varies, e.g. [None, 32, 32]
    ids: int
    samples: int


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
    """`manifest.json`. No wall clock, host name or random id occurs in it (law 6)."""

    format: int = FORMAT
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
    files: list[File]
