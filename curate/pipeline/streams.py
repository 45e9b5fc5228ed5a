"""A token stream on one partition: encoded batch by batch, checked, committed as one fragment."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.requests import DecodeRequest
from curate.pipeline.models import Models
from curate.pipeline.partitions import KEY_HEX, Partition
from curate.pipeline.paths import Paths, computed_as
from curate.pipeline.placement import Model
from curate.schema.codec import CodecCard
from curate.schema.fields import Resources, RunsOn
from curate.schema.ids import digest_of_rows
from curate.schema.recipe import Compute, Stream
from curate.schema.verdict import Failure
from curate.shards.fragments import write_fragment
from curate.shards.schema import StreamSpec
from curate.storage import Store
from curate.tokenizers.views import clock_of, field_of, items_of, view_of

VERSION = 3


@dataclass(frozen=True)
class StreamPlan:
    """A stream of the recipe with its tokenizer's card.

    Attributes:
        tokenizer: name that `zoo.load` takes, wherever a process stands.
        crops: of each image, as in the recipe.
        cost: what one worker of the tokenizer takes.
        compute: what the recipe says of what it runs on.
        on: what it runs on.
    """

    use: Stream
    card: CodecCard
    tokenizer: str
    crops: int = 1
    cost: Resources = dataclasses.field(default_factory=Resources)
    compute: Compute = dataclasses.field(default_factory=Compute)
    on: RunsOn = dataclasses.field(default_factory=RunsOn)

    @property
    def name(self) -> str:
        return self.use.name

    @property
    def model(self) -> Model:
        """What is placed."""
        return Model(self.name, self.cost, self.compute, self.on)

    @property
    def view(self) -> DecodeRequest | None:
        """What of the media it reads; None where it reads a signal's field."""
        return view_of(self.card, self.use.fps, self.use.max_frames, self.use.pad, self.crops)

    @property
    def spec(self) -> StreamSpec:
        """What the stream's column holds."""
        return StreamSpec.of(self.name, self.card, clock_of(self.card, self.use.fps, self.use.pad))

    @property
    def field(self) -> str | None:
        """The signal's field that its ids follow from, a label or the caption; None where it reads media."""
        return field_of(self.card)

    def prefix(self, paths: Paths, partition: Partition) -> str:
        """Names of its fragments of a partition begin so: by the digest of the whole card, since that is what fragments
        and shards carry, and by that of the signal whose field it reads."""
        signal = None if self.field is None else paths.signals_as[paths.homes[self.field][0]]
        use = self.use.model_dump(mode="json", exclude={"compute"})
        made_by = [VERSION, use, self.spec.codec, self.crops, signal, *computed_as(self.on, self.cost)]
        return paths.tokens_prefix(partition.name, partition.source, self.name, made_by)


class StreamFragment:
    """The fragment of a stream while it is made.

    Args:
        wanted: ids of the samples that it is to hold.

    Attributes:
        failed: ids of those that have a failure in place of tokens.
    """

    def __init__(self, stream: StreamPlan, models: Models, wanted: Collection[str]) -> None:
        self.stream = stream
        self.failed: set[str] = set()
        self._models, self._wanted = models, frozenset(wanted)
        self._keys: list[pa.Table] = []
        self._ids: list[NDArray[np.generic] | None] = []
        self._failures: list[Failure | None] = []
        models.load_tokenizer(stream.tokenizer, stream.card, stream.on)

    def encode(
        self,
        keys: pa.Table,
        arrays: Sequence[NDArray[np.generic] | None],
        lost: Sequence[Failure | None],
        values: Sequence[Any],
    ) -> None:
        """Ids of those of a batch that are wanted; a sample that lost the stream's view, or has no value of its field,
        has none.

        Args:
            keys: of the batch, as in `shards.schema.KEYS`.
            arrays: the stream's view of each sample; empty where it reads a field.
            lost: why a sample has no view though it should.
            values: of the field that the stream reads; empty where it reads none.
        """
        stream, names = self.stream, keys.column("sample_id").to_pylist()
        rows = [i for i, name in enumerate(names) if name in self._wanted]
        views, fields = ([some[i] for i in rows] if some else [] for some in (arrays, values))
        given = items_of(stream.card, views, fields)
        failures = [lost[i] for i in rows]
        todo = [i for i, failure in enumerate(failures) if failure is None and given[i] is not None]
        ids: list[NDArray[np.generic] | None] = [None] * len(rows)
        stage = f"tokenize:{stream.name}"
        encoded = self._models.encode(stream.tokenizer, stage, [given[i] for i in todo], stream.on)
        for i, got in zip(todo, encoded, strict=True):
            checked = _checked(stream, got)
            if isinstance(checked, Failure):
                failures[i] = checked
            else:
                ids[i] = checked
        self._keys.append(keys.take(pa.array(rows, pa.int64())))
        self._ids += ids
        self._failures += failures
        self.failed |= {names[row] for row, failure in zip(rows, failures, strict=True) if failure is not None}

    def commit(self, build: Store, paths: Paths, partition: Partition) -> str | None:
        """Write the fragment; its path, or None where it would hold nothing."""
        keys = pa.concat_tables(self._keys) if self._keys else None
        if keys is None or not keys.num_rows:
            return None
        digest = digest_of_rows(keys.column("sample_id").to_pylist())[:KEY_HEX]
        path = f"{self.stream.prefix(paths, partition)}{digest}.arrow"
        write_fragment(build, path, self.stream.spec, keys, self._ids, self._failures)
        return path


def _checked(stream: StreamPlan, got: NDArray[np.generic] | Failure) -> NDArray[np.generic] | Failure:
    """Ids are exact (law 8): of the card's dtype, inside the vocabulary, of the stream's shape."""
    if isinstance(got, Failure):
        return got
    stage = f"tokenize:{stream.name}"
    if got.dtype != stream.card.numpy_dtype:
        return Failure(stage, "IdError", f"ids of dtype {got.dtype}, the card says {stream.card.dtype}")
    if stream.card.modality == "array" and got.shape == stream.card.grid:
        got = got[np.newaxis]  # one grid of a sample; one of each channel has that axis
    try:
        return stream.spec.check(got)
    except ValueError as exc:
        return Failure.of(stage, exc)
