"""The Arrow schema that tokenized fragments and token shards share, and what it says of each stream.

Columns: `sample_id`, `content_id`, `kind` (string), `start_us`, `end_us` (int64), then one column a stream, named as
the stream, of type list<uint8|uint16|uint32>: the ids of the sample flattened in C order, or null where the sample
has no such modality (the explicit mask of law 9). A continuous stream is list<halffloat>: features instead of ids.
The schema's metadata holds, under `curate.streams`, a JSON list with name, vocabulary, dtype, shape, codec digest and,
of video, the clock of each stream, so that a shard can be read on its own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.schema.codec import CodecCard, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import key_of
from curate.schema.manifest import Clock, Manifest
from curate.schema.tables import FAILURE_NAMES

STREAMS = b"curate.streams"
KEYS = (
    pa.field("sample_id", pa.string(), nullable=False),
    pa.field("content_id", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("start_us", pa.int64(), nullable=False),
    pa.field("end_us", pa.int64(), nullable=False),
)
KEY_NAMES = tuple(f.name for f in KEYS)


@dataclass(frozen=True)
class StreamSpec:
    """What a stream's column holds.

    Attributes:
        name: column name, e.g. `tok_rgb@256`.
        vocabulary: ids are 0 <= id < vocabulary; 0 for features.
        dtype: the smallest unsigned type that holds them (law 8); float16 for features.
        shape: of one sample's ids; only the first may be None (it varies), e.g. `(None, 32, 32)`.
        codec: digest of the codec card (`codec_digest`): two streams with equal ids but another bit order differ here.
        clock: of video, how its steps stand in time.
    """

    name: str
    vocabulary: int
    dtype: str
    shape: tuple[int | None, ...]
    codec: str = ""
    clock: Clock | None = None

    def __post_init__(self) -> None:
        if self.name in (*KEY_NAMES, *FAILURE_NAMES):
            raise ValueError(f"stream {self.name!r}: the name is that of another column")
        if self.dtype != (smallest_unsigned(self.vocabulary) if self.vocabulary else "float16"):
            raise ValueError(f"stream {self.name!r}: {self.dtype} is not the smallest type for {self.vocabulary} ids")
        if not self.shape or any(n is None or n < 1 for n in self.shape[1:]) or self.shape[0] == 0:
            raise ValueError(f"stream {self.name!r}: shape {list(self.shape)}: only the first length may vary")

    @classmethod
    def of(cls, name: str, card: CodecCard, clock: Clock | None = None) -> StreamSpec:
        """The stream of a tokenizer's ids: (None, h, w) for images and video, (None, levels) for audio, (None,) for
        text; features have one more axis, their length."""
        shape: tuple[int | None, ...] = (None,)
        if card.grid is not None:
            shape = (None, *card.grid)
        elif card.modality == "audio" and not card.features:
            shape = (None, card.ids_per_frame)
        if card.features:
            shape = (*shape, card.features)
        return cls(name, card.vocabulary, card.dtype, shape, codec_digest(card), clock)

    @property
    def fixed(self) -> tuple[int, ...]:
        """Shape of one step of the stream: `shape` without what varies, e.g. (32, 32)."""
        return tuple(n for n in self.shape if n is not None)

    @property
    def unit(self) -> int:
        """Ids of one step; a sample's count of ids is a multiple of it."""
        return prod(self.fixed)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @property
    def arrow_type(self) -> pa.DataType:
        return pa.list_(pa.field("item", pa.from_numpy_dtype(self.numpy_dtype), nullable=False))

    def check(self, ids: NDArray[Any]) -> NDArray[Any]:
        """One sample's ids as they are stored: flat, in C order, of the stream's dtype.

        Raises:
            ValueError: not integers, not of the stream's shape, or an id outside the vocabulary (law 8: never wrapped);
                features that are not finite float16.
        """
        array = np.asarray(ids)
        self.check_type(array.dtype)
        self.check_shape(array.shape, flat=False)
        return self.check_values(array).reshape(-1)

    def check_type(self, dtype: np.dtype[Any]) -> None:
        """Refuse arrays of a type that ids, or features, do not come in; ValueError."""
        if self.vocabulary and dtype.kind not in "ui":
            raise ValueError(f"stream {self.name!r}: ids must be integers, not {dtype}")
        if not self.vocabulary and dtype != np.float16:
            raise ValueError(f"stream {self.name!r}: features must be float16, not {dtype}")

    def check_shape(self, shape: tuple[int, ...], flat: bool = True) -> None:
        """Refuse a sample's ids of another shape; ValueError.

        Args:
            flat: true if they may come in C order along one axis, too.
        """
        fits = len(shape) == len(self.shape) and all(
            want in (None, got) for want, got in zip(self.shape, shape, strict=True)
        )
        if not fits and flat and len(shape) == 1:
            fits = shape[0] % self.unit == 0 if self.shape[0] is None else shape[0] == self.unit
        if not fits:
            raise ValueError(f"stream {self.name!r}: shape {list(shape)}, expected {list(self.shape)}")

    def check_values(self, array: NDArray[Any]) -> NDArray[Any]:
        """Values of any shape as they are stored, in the stream's dtype.

        Raises:
            ValueError: as `check`.
        """
        if not self.vocabulary:
            if not np.isfinite(array).all():
                raise ValueError(f"stream {self.name!r}: features that are not finite")
        elif array.size and (int(array.min()) < 0 or int(array.max()) >= self.vocabulary):
            raise ValueError(
                f"stream {self.name!r}: ids {array.min()} to {array.max()} do not lie in 0 <= id < {self.vocabulary}"
            )
        return array.astype(self.numpy_dtype, copy=False)


def codec_digest(card: CodecCard) -> str:
    """32 hex digits that change with anything the codec card says."""
    return key_of(card.model_dump(mode="json"))


def shard_schema(streams: Sequence[StreamSpec]) -> pa.Schema:
    """The schema of shards that hold `streams`, in this order."""
    names = [s.name for s in streams]
    if len(set(names)) != len(names):
        raise ValueError(f"stream names must be unique: {names}")
    said = [
        {"name": s.name, "vocabulary": s.vocabulary, "dtype": s.dtype, "shape": list(s.shape), "codec": s.codec}
        | ({"clock": s.clock.model_dump()} if s.clock else {})
        for s in streams
    ]
    columns = [pa.field(s.name, s.arrow_type) for s in streams]
    return pa.schema([*KEYS, *columns], metadata={STREAMS: json.dumps(said, sort_keys=True).encode()})


def streams_in(schema: pa.Schema) -> list[StreamSpec]:
    """The streams that a shard says it holds.

    Raises:
        CurateError: the schema is not one of `shard_schema`.
    """
    try:
        said = json.loads((schema.metadata or {})[STREAMS])
        streams = [
            StreamSpec(
                *(s["name"], s["vocabulary"], s["dtype"], tuple(s["shape"]), s["codec"]),
                clock=Clock.model_validate(s["clock"]) if "clock" in s else None,
            )
            for s in said
        ]
        same = shard_schema(streams).equals(schema)
    except (KeyError, TypeError, ValueError) as exc:
        raise CurateError(f"not a token shard: its schema says nothing readable of streams ({exc!r})") from exc
    if not same:
        raise CurateError("not a token shard: its columns are not those that its metadata says")
    return streams


def streams_of(manifest: Manifest) -> list[StreamSpec]:
    """The streams of a build, in the manifest's order."""
    specs = []
    for entry in manifest.streams:
        card = manifest.codecs.get(entry.tokenizer)
        codec = codec_digest(card) if card else ""
        shape = tuple(entry.shape)
        specs.append(StreamSpec(entry.name, entry.vocabulary, entry.dtype, shape, codec, entry.clock))
    return specs
