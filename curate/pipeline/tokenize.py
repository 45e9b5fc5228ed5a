"""Tokenize: kept samples to ids, one fragment a token stream and partition, keyed by sample (law 9).

A fragment serves whatever subset of its partition is kept: when a threshold moves, or a stream is added, only samples
that no fragment of the stream holds are encoded, into a fragment of their own. Tokenizers do not let a sample's ids
depend on its neighbours, so ids are those of a fresh run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.media.guarded import decodes
from curate.media.requests import DecodeRequest
from curate.pipeline.annotate import Context
from curate.pipeline.blocks import view_name
from curate.pipeline.cluster import Cluster
from curate.pipeline.decodes import DECODES, decodes_column
from curate.pipeline.error_location import with_location
from curate.pipeline.examined import decoded
from curate.pipeline.kept import field_values, kept_samples, rows_of
from curate.pipeline.models import Models, leased
from curate.pipeline.partitions import KEY_HEX, Partition
from curate.pipeline.paths import Paths
from curate.pipeline.pools import pools
from curate.pipeline.ray_data import execute, from_rows, map_stage
from curate.pipeline.rows import PARTITION, TALLY, partition_of, tally_column
from curate.schema.codec import CodecCard
from curate.schema.ids import digest_of_rows
from curate.schema.recipe import Stream
from curate.schema.tables import SAMPLES
from curate.schema.verdict import Failure
from curate.shards.fragments import read_failed, read_ids, write_fragment
from curate.shards.schema import KEY_NAMES, StreamSpec
from curate.storage.bucket import apply_endpoint_env
from curate.storage.retry import retries
from curate.storage.tables import read_table
from curate.tokenizers.views import clock_of, field_of, items_of, view_of

VERSION = 3

RESULT = pa.schema(
    [
        *PARTITION,
        pa.field("tokenize", pa.struct(TALLY), nullable=False),
        pa.field("fragments", pa.map_(pa.string(), pa.list_(pa.string())), nullable=False),  # by stream, all in use
        DECODES,
    ]
)
"""What comes out of the plan: a row a partition."""


@dataclass(frozen=True)
class StreamPlan:
    """A stream of the recipe with its tokenizer's card.

    Attributes:
        tokenizer: name that `zoo.load` takes, wherever a process stands.
        crops: of each image, as in the recipe.
    """

    use: Stream
    card: CodecCard
    tokenizer: str
    crops: int = 1

    @property
    def view(self) -> DecodeRequest | None:
        """What of the media it reads; None where it reads a signal's field."""
        return view_of(self.card, self.use.fps, self.use.max_frames, self.use.pad, self.crops)

    @property
    def spec(self) -> StreamSpec:
        """What the stream's column holds."""
        return StreamSpec.of(self.use.name, self.card, clock_of(self.card, self.use.fps, self.use.pad))

    @property
    def field(self) -> str | None:
        """The signal's field that its ids follow from, a label or the caption; None where it reads media."""
        return field_of(self.card)

    def prefix(self, paths: Paths, partition: Partition) -> str:
        """Names of its fragments of a partition begin so: by the digest of the whole card, since that is what fragments
        and shards carry, and by that of the signal whose field it reads."""
        signal = None if self.field is None else paths.signals_as[paths.homes[self.field][0]]
        made_by = [VERSION, self.use.model_dump(mode="json", exclude={"compute"}), self.spec.codec, self.crops, signal]
        return paths.tokens_prefix(partition.name, partition.source, self.use.name, made_by)


@dataclass(frozen=True)
class Work:
    """Kept samples of a partition.

    Attributes:
        verdicts: the partition's verdict fragment, which says which they are.
        kept: how many they are.
        looked: by group of the second look, the partition's fragment.
    """

    partition: Partition
    verdicts: str
    kept: int
    looked: Mapping[str, str] = field(default_factory=dict)


def tokenize(
    context: Context, work: Sequence[Work], streams: Sequence[StreamPlan], cluster: Cluster
) -> Iterator[dict[str, Any]]:
    """Encode what no fragment holds; rows of RESULT as they come, in no fixed order."""
    table = pa.Table.from_pylist(
        [
            {
                "partition": one.partition.name,
                "source": one.partition.source,
                "unit": "",
                "rows": one.partition.rows,
                "whole": 0,
                "verdicts": one.verdicts,
                "looked": list(one.looked.items()),
            }
            for one in work
        ],
        schema=pa.schema(
            [
                *PARTITION,
                pa.field("verdicts", pa.string(), nullable=False),
                pa.field("looked", pa.map_(pa.string(), pa.string()), nullable=False),
            ]
        ),
    )
    size = pools(cluster)
    plan = map_stage(
        from_rows(table),
        Encode,
        cpus=size.actor_cpus,
        actors=size.actors,
        context=context,
        streams=streams,
    )
    yield from execute(plan)


class Encode:
    """A worker that decodes the kept samples of a partition, a batch at a time, and holds the tokenizers."""

    def __init__(self, context: Context, streams: Sequence[StreamPlan]) -> None:
        apply_endpoint_env(context.stores)
        self._context, self._streams = context, streams

    @with_location("tokenize")
    def __call__(self, block: pa.Table) -> pa.Table:
        """Encode and commit what is missing of a partition; the answer is its row of RESULT."""
        build, paths, board = self._context.build, self._context.paths, self._context.board
        partition = partition_of(block)
        board.add("tokenize", queued=-1)
        kept = kept_samples(build, block.column("verdicts")[0].as_py())
        held: dict[str, list[str]] = {}
        lacking: dict[str, pa.Array] = {}
        ids = pc.fill_null(kept.column("id"), "").combine_chunks()
        for stream in self._streams:
            held[stream.use.name] = self._context.committed.below(stream.prefix(paths, partition))
            found = [read_ids(build, path) for path in held[stream.use.name]]
            there = pa.concat_arrays(found) if found else pa.array([], pa.string())
            lacking[stream.use.name] = pc.invert(pc.is_in(ids, value_set=there))
        wanted = lacking[self._streams[0].use.name]
        for mask in lacking.values():
            wanted = pc.or_(wanted, mask)
        todo = kept.filter(wanted)
        reused, again, shown = kept.num_rows - todo.num_rows, 0, 0
        board.add("tokenize", reused=reused)
        if todo.num_rows:
            streams = [s for s in self._streams if pc.any(lacking[s.use.name]).as_py()]
            with leased(board, "tokenize", partition.name) as models:
                looked = dict(block.column("looked")[0].as_py())
                made, shown = self._encode(models, partition, todo, streams, looked)
            for stream in streams:
                mine = ids.filter(lacking[stream.use.name])
                path = made[stream.use.name].commit(self._context, partition, mine)
                if path is not None:
                    held[stream.use.name].append(path)
            again = retries.take()
        failed = {sid for paths in held.values() for path in paths for sid in read_failed(build, path).to_pylist()}
        bad = len(failed.intersection(ids.to_pylist())) if failed else 0
        new = len(failed.intersection(todo.column("id").to_pylist())) if failed else 0
        if todo.num_rows:  # a sample that failed in another stream, in an earlier run, was shown as one that passed
            board.add("tokenize", passed=shown - new, failed=new - shown, retries=again)
        columns: dict[str, Any] = {name: block.column(name) for name in PARTITION.names}
        columns |= {
            "tokenize": tally_column("tokenize", kept.num_rows, reused - (bad - new), bad, again)[1],
            "fragments": [[(name, sorted(paths)) for name, paths in held.items()]],
            DECODES.name: decodes_column(decodes()),
        }
        return pa.table(columns, schema=RESULT)

    def _encode(
        self,
        models: Models,
        partition: Partition,
        todo: pa.Table,
        streams: Sequence[StreamPlan],
        looked: Mapping[str, str],
    ) -> tuple[dict[str, _Made], int]:
        """Ids of some streams for some samples of a partition; and how many of these failed.

        Args:
            todo: rows of the verdicts.
            looked: by group of the second look, its fragment.
        """
        build, paths, board = self._context.build, self._context.paths, self._context.board
        samples = read_table(build, paths.samples(partition.name, partition.source))
        rows = rows_of(samples, todo)
        samples = samples.take(rows)
        wanted = {s.field for s in streams if s.field is not None}
        fields = field_values(build, paths, partition, samples, rows, looked, wanted)
        made = {s.use.name: _Made(s, models) for s in streams}
        for stream in streams:
            models.load_tokenizer(stream.tokenizer, stream.card)
        views = sorted({s.view for s in streams if s.view is not None}, key=view_name)
        done = bad = 0
        for batch in decoded(build, samples.select(SAMPLES.names), views, "tokenize", paths.reader):
            some = {name: column.slice(done, len(batch.views)).to_pylist() for name, column in fields.items()}
            done += len(batch.views)
            failed: set[int] = set()
            for one in made.values():
                failed |= one.encode(batch.samples, batch.views, batch.failures, some)
            bad += len(failed)
            board.add("tokenize", passed=len(batch.views) - len(failed), failed=len(failed))
        return made, bad


class _Made:
    """One stream's ids of a partition while they are made."""

    def __init__(self, stream: StreamPlan, models: Models) -> None:
        self._stream, self._models = stream, models
        self._keys: list[pa.Table] = []
        self._ids: list[NDArray[np.generic] | None] = []
        self._failures: list[Failure | None] = []

    def encode(
        self,
        samples: pa.Table,
        views: Sequence[Mapping[DecodeRequest, NDArray[np.generic]]],
        failures: Sequence[Mapping[DecodeRequest, Failure]],
        fields: Mapping[str, Sequence[Any]],
    ) -> set[int]:
        """Ids of a batch; a sample that lost the stream's view, or has no value of its field, has none.

        Args:
            fields: by name, values of the fields that streams read.

        Returns:
            Places of those that failed.
        """
        stream = self._stream
        arrays = [got.get(stream.view) for got in views] if stream.view is not None else []
        given = items_of(stream.card, arrays, fields[stream.field] if stream.field is not None else ())
        undecoded = [failed.get(stream.view) if stream.view is not None else None for failed in failures]
        todo = [i for i, f in enumerate(undecoded) if f is None and given[i] is not None]
        ids: list[NDArray[np.generic] | None] = [None] * samples.num_rows
        encoded = self._models.encode(stream.tokenizer, f"tokenize:{stream.use.name}", [given[i] for i in todo])
        for i, got in zip(todo, encoded, strict=True):
            checked = _checked(stream, got)
            if isinstance(checked, Failure):
                undecoded[i] = checked
            else:
                ids[i] = checked
        self._keys.append(samples.select(KEY_NAMES))
        self._ids += ids
        self._failures += undecoded
        return {i for i, failure in enumerate(undecoded) if failure is not None}

    def commit(self, context: Context, partition: Partition, wanted: pa.StringArray) -> str | None:
        """Write the rows of the samples `wanted` as a fragment; its path, or None where there are none."""
        keys = pa.concat_tables(self._keys)
        places = np.flatnonzero(pc.is_in(keys.column("sample_id"), value_set=wanted).to_numpy())
        if not len(places):
            return None
        keys = keys.take(pa.array(places))
        prefix = self._stream.prefix(context.paths, partition)
        path = f"{prefix}{digest_of_rows(keys.column('sample_id').to_pylist())[:KEY_HEX]}.arrow"
        failures = [self._failures[i] for i in places]
        write_fragment(context.build, path, self._stream.spec, keys, [self._ids[i] for i in places], failures)
        return path


def _checked(stream: StreamPlan, got: NDArray[np.generic] | Failure) -> NDArray[np.generic] | Failure:
    """Ids are exact (law 8): of the card's dtype, inside the vocabulary, of the stream's shape."""
    if isinstance(got, Failure):
        return got
    stage = f"tokenize:{stream.use.name}"
    if got.dtype != stream.card.numpy_dtype:
        return Failure(stage, "IdError", f"ids of dtype {got.dtype}, the card says {stream.card.dtype}")
    if stream.card.modality == "array" and got.shape == stream.card.grid:
        got = got[np.newaxis]  # one grid of a sample; one of each channel has that axis
    try:
        return stream.spec.check(got)
    except ValueError as exc:
        return Failure.of(stage, exc)
