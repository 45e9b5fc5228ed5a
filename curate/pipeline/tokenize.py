"""Tokenize: kept samples to ids, one fragment a token stream and partition, keyed by sample (law 9).

A fragment serves whatever subset of its partition is kept: when a threshold moves, or a stream is added, only samples
that no fragment of the stream holds are encoded, into a fragment of their own. Tokenizers do not let a sample's ids
depend on its neighbours, so ids are those of a fresh run.

The worker that decodes holds the tokenizers that share it. Each other one has workers of its own behind it, on GPUs
where there are some, which get the views over the plan and commit the stream's fragment.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.media.guarded import decodes
from curate.pipeline.annotate import Context
from curate.pipeline.blocks import LOST, failures_of, unpack_views, view_name
from curate.pipeline.board import Ticks
from curate.pipeline.cluster import Cluster
from curate.pipeline.decodes import DECODES, decodes_column, decodes_of
from curate.pipeline.error_location import with_location
from curate.pipeline.examined import Batch, decoded, with_views
from curate.pipeline.flow import Flow, flowed, handed, passed_on
from curate.pipeline.kept import failed_in, field_values, kept_ids, kept_samples, lacking, rows_of
from curate.pipeline.models import leased
from curate.pipeline.partitions import Partition
from curate.pipeline.placement import pools_of
from curate.pipeline.ray_data import execute, from_rows, stage_of
from curate.pipeline.rows import PARTITION, TALLY, partition_of, tally_column
from curate.pipeline.spent import over_records
from curate.pipeline.streams import StreamFragment, StreamPlan
from curate.schema.tables import SAMPLES
from curate.shards.schema import KEY_NAMES, KEYS
from curate.storage.bucket import apply_endpoint_env
from curate.storage.retry import retries
from curate.storage.tables import read_table

RESULT = pa.schema(
    [
        *PARTITION,
        pa.field("tokenize", pa.struct(TALLY), nullable=False),
        pa.field("fragments", pa.map_(pa.string(), pa.list_(pa.string())), nullable=False),  # by stream, all in use
        DECODES,
    ]
)
"""What comes out of the plan: a row a partition."""

VERDICTS = pa.field("verdicts", pa.string(), nullable=False)
LOOKED = pa.field("looked", pa.map_(pa.string(), pa.string()), nullable=False)
"""Columns of `Work`."""

LACKING, FAILED = "lacking", "failed"
"""Columns that go from worker to worker beside those of `flow`: by stream, ids of the samples that it is to encode;
ids of samples to be encoded that failed in some stream, now or before. Other failures are in the tally."""

BETWEEN = pa.schema(
    [
        *RESULT,
        VERDICTS,
        LOOKED,
        pa.field(LACKING, pa.map_(pa.string(), pa.list_(pa.string())), nullable=False),
        pa.field(FAILED, pa.list_(pa.string()), nullable=False),
    ]
)
"""What goes from worker to worker."""

FIELD = "field:"
"""Before the name of a signal's field that streams read: its column in a batch."""


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
    in_order = sorted(work, key=lambda one: -one.kept)  # so that workers end at about the same time
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
            for one in in_order
        ],
        schema=pa.schema([*PARTITION, VERDICTS, LOOKED]),
    )
    by_name = {stream.name: stream for stream in streams}
    decoders, *behind = pools_of("tokenize", [stream.model for stream in streams], cluster.capacity)
    here, later = ([by_name[name] for pool in some for name in pool.names] for some in ([decoders], behind))
    rows = from_rows(table, [one.kept for one in in_order], decoders.workers[1])
    plan = stage_of(rows, decoders.for_rows(len(work)), Encode, context=context, here=here, later=later)
    for i, (pool, stream) in enumerate(zip(behind, later, strict=True)):
        plan = stage_of(plan, pool, EncodeStream, context=context, stream=stream, later=later[i + 1 :])
    place = {stream.name: i for i, stream in enumerate(streams)}
    for found in execute(plan):  # in the recipe's order, wherever streams were encoded
        yield found | {"fragments": sorted(found["fragments"], key=lambda one: place[one[0]])}


class _Worker:
    """What workers that hold tokenizers have in common.

    Args:
        later: streams that later workers encode; the views that they need flow on.
    """

    def __init__(self, context: Context, later: Sequence[StreamPlan]) -> None:
        apply_endpoint_env(context.stores)
        self._context, self._later = context, later

    def _batches(
        self, row: pa.Table, todo: pa.Table, streams: Sequence[StreamPlan], tick: Callable[[], object] = int
    ) -> Iterator[tuple[Batch, dict[str, pa.ChunkedArray]]]:
        """Samples of a partition with the views of some streams, and by name the fields that they read.

        Args:
            row: of the partition.
            todo: rows of `kept_samples`.
            tick: is called for each sample as it is decoded.
        """
        build, paths, partition = self._context.build, self._context.paths, partition_of(row)
        samples = read_table(build, paths.samples(partition.name, partition.source))
        rows = rows_of(samples, todo)
        samples = samples.take(rows)
        wanted = {s.field for s in streams if s.field is not None}
        looked = dict(row.column("looked")[0].as_py())
        fields = field_values(build, paths, partition, samples, rows, looked, wanted)
        views = sorted({s.view for s in streams if s.view is not None}, key=view_name)
        done = 0
        for batch in decoded(build, samples.select(SAMPLES.names), views, "tokenize", paths.reader, tick):
            count = len(batch.views)
            yield batch, {name: column.slice(done, count) for name, column in fields.items()}
            done += count

    def _passed(self, row: pa.Table, shown: int = 0, failed: int = 0) -> pa.Table:
        """The row as it goes on; from the last worker, as RESULT.

        Args:
            shown, failed: samples that this worker has told the board of, and failures among them.
        """
        board = self._context.board
        if self._later:
            board.add("tokenize", queued=1)
            return row
        tally, bad = row.column("tokenize")[0].as_py(), len(row.column(FAILED)[0])
        todo = tally["total"] - tally["reused"]
        if todo:  # one that failed in another stream, or in an earlier run, was shown as one that passed
            board.add("tokenize", passed=todo - bad - (shown - failed), failed=bad - failed, retries=tally["retries"])
        before = tally["failed"]
        told = tally["total"], tally["reused"] - before, bad + before, tally["retries"]
        at = row.column_names.index("tokenize")
        return row.set_column(at, *tally_column("tokenize", *told)).select(RESULT.names)


class Encode(_Worker):
    """A worker that decodes the kept samples of a partition, a batch at a time, and holds the tokenizers that run
    beside the decoder.

    Args:
        here: streams to encode here.
        later: those that later workers encode.
    """

    def __init__(self, context: Context, here: Sequence[StreamPlan], later: Sequence[StreamPlan]) -> None:
        super().__init__(context, later)
        self._here = here

    @with_location("tokenize")
    def __call__(self, block: pa.Table) -> pa.Table:
        """Encode and commit what is missing of a partition; the answer is its row of BETWEEN with what flows, or of
        RESULT where no worker follows."""
        build, paths, board = self._context.build, self._context.paths, self._context.board
        partition = partition_of(block)
        board.add("tokenize", queued=-1)
        kept = kept_samples(build, block.column("verdicts")[0].as_py())
        held: dict[str, list[str]] = {}
        missing: dict[str, list[str]] = {}
        ids = kept_ids(kept)
        for stream in (*self._here, *self._later):
            held[stream.name] = self._context.committed.below(stream.prefix(paths, partition))
            missing[stream.name] = lacking(build, ids, held[stream.name]).to_pylist()
        wanted = {name for some in missing.values() for name in some}
        todo = kept.filter(pa.array([name in wanted for name in ids.to_pylist()], pa.bool_()))
        reused = kept.num_rows - todo.num_rows
        board.add("tokenize", reused=reused)
        before = failed_in(build, ids, held)
        flow = Flow([s.view for s in self._later if missing[s.name] and s.view is not None])
        made: list[StreamFragment] = []
        if todo.num_rows:
            with leased(board, "tokenize", partition) as models:
                made = [StreamFragment(s, models, missing[s.name]) for s in self._here if missing[s.name]]
                self._encode(block, todo, made, [s for s in self._later if missing[s.name]], flow)
                for fragment in made:
                    path = fragment.commit(build, paths, partition)
                    if path is not None:
                        held[fragment.stream.name].append(path)
        now = {sid for fragment in made for sid in fragment.failed}
        columns: dict[str, Any] = {name: block.column(name) for name in (*PARTITION.names, "verdicts", "looked")}
        columns |= {
            "tokenize": tally_column("tokenize", kept.num_rows, reused, len(before - wanted), retries.take())[1],
            "fragments": [[(name, sorted(paths)) for name, paths in held.items()]],
            DECODES.name: decodes_column(decodes()),
            LACKING: [[(s.name, missing[s.name]) for s in self._later]],
            FAILED: [sorted((before & wanted) | now)],
        }
        row = pa.table({name: columns[name] for name in BETWEEN.names}, schema=BETWEEN)
        if self._later:
            return self._passed(flow.onto(row, KEYS_ALONE))
        return self._passed(row, todo.num_rows, len(now))

    def _encode(
        self,
        row: pa.Table,
        todo: pa.Table,
        made: Sequence[StreamFragment],
        later: Sequence[StreamPlan],
        flow: Flow,
    ) -> None:
        """Encode some samples of a partition beside the decoder; what later streams need is added to `flow`.

        Args:
            todo: rows of `kept_samples`.
        """
        streams = [*(fragment.stream for fragment in made), *later]
        shown, ticks = 0, Ticks(self._context.board, "tokenize")
        for batch, fields in over_records(self._batches(row, todo, streams, ticks)):
            keys = batch.samples.select(KEY_NAMES)
            for fragment in made:
                view, field = fragment.stream.view, fragment.stream.field
                fragment.encode(
                    keys,
                    [got.get(view) for got in batch.views] if view is not None else [],
                    [lost.get(view) if view is not None else None for lost in batch.failures],
                    fields[field].to_pylist() if field is not None else [],
                )
            if later:
                flow.add(_flowing(batch, fields, later))
                if flow.is_over and not made:
                    return  # each later worker decodes for itself
            self._context.board.add("tokenize", decoded=-ticks.take())
            if not self._later:
                failed = len({sid for fragment in made for sid in fragment.failed})
                self._context.board.add("tokenize", passed=len(batch.views) - failed + shown, failed=failed - shown)
                shown = failed


class EncodeStream(_Worker):
    """A worker that holds one stream's tokenizer, on a GPU where it takes one.

    Args:
        stream: the stream.
        later: streams that come after it.
    """

    def __init__(self, context: Context, stream: StreamPlan, later: Sequence[StreamPlan]) -> None:
        super().__init__(context, later)
        self._stream = stream

    @with_location("tokenize")
    def __call__(self, row: pa.Table) -> pa.Table:
        """Encode and commit the stream of a partition, where it is missing."""
        self._context.board.add("tokenize", queued=-1)
        missing = dict(row.column(LACKING)[0].as_py())
        wanted = missing[self._stream.name]
        if not wanted:
            return self._passed(row)
        partition = partition_of(row)
        came = flowed(row)
        with leased(self._context.board, f"tokenize:{self._stream.name}", partition) as models:
            fragment = StreamFragment(self._stream, models, wanted)
            shown = self._encode(fragment, self._decoded(row, wanted) if came is None else came, wanted)
        path = fragment.commit(self._context.build, self._context.paths, partition)
        row = passed_on(row, came or [], [s.view for s in self._later if missing[s.name] and s.view is not None])
        return self._passed(_with(row, self._stream.name, path, fragment.failed), shown, len(fragment.failed))

    def _encode(self, fragment: StreamFragment, batches: Iterable[pa.Table], wanted: Collection[str]) -> int:
        """Encode the samples `wanted` of a partition; how many were told to the board."""
        stream, board = self._stream, self._context.board
        names = pa.array(wanted, pa.string())
        mine = (table.filter(pc.is_in(table.column("sample_id"), value_set=names)) for table in batches)
        done = bad = 0
        for table in over_records(handed(mine, [] if stream.view is None else [stream.view], [stream.on])):
            fragment.encode(
                table.select(KEY_NAMES),
                unpack_views(table, stream.view) if stream.view is not None else [],
                failures_of(table.column(LOST + view_name(stream.view)))
                if stream.view is not None
                else [None] * table.num_rows,
                table.column(FIELD + stream.field).to_pylist() if stream.field is not None else [],
            )
            if not self._later:
                failed = len(fragment.failed) - bad
                board.add("tokenize", passed=table.num_rows - failed, failed=failed)
                done, bad = done + table.num_rows, bad + failed
        return done

    def _decoded(self, row: pa.Table, wanted: Collection[str]) -> Iterator[pa.Table]:
        """The batches of a partition whose views did not flow."""
        kept = kept_samples(self._context.build, row.column("verdicts")[0].as_py())
        todo = kept.filter(pc.is_in(kept.column("id"), value_set=pa.array(wanted, pa.string())))
        for batch, fields in self._batches(row, todo, [self._stream]):
            yield _flowing(batch, fields, [self._stream])


KEYS_ALONE = pa.schema(KEYS).empty_table()
"""A batch of no sample."""


def _flowing(batch: Batch, fields: Mapping[str, pa.ChunkedArray], streams: Sequence[StreamPlan]) -> pa.Table:
    """A batch as it goes to the workers of some streams: keys, and the views and fields that these read."""
    views = sorted({s.view for s in streams if s.view is not None}, key=view_name)
    table = with_views(batch.samples.select(KEY_NAMES), batch, views)
    for name in sorted({s.field for s in streams if s.field is not None}):
        table = table.append_column(FIELD + name, fields[name])
    return table


def _with(row: pa.Table, stream: str, path: str | None, failed: Collection[str]) -> pa.Table:
    """A row of BETWEEN, with a stream's fragment and failures, and with what this process did for it."""
    held = dict(row.column("fragments")[0].as_py())
    held[stream] = sorted([*held[stream], *([] if path is None else [path])])
    tally = row.column("tokenize")[0].as_py()
    told = tally["total"], tally["reused"], tally["failed"], tally["retries"] + retries.take()
    before = decodes_of(row.column(DECODES.name)[0].as_py())
    found: dict[str, Any] = {
        "tokenize": tally_column("tokenize", *told)[1],
        "fragments": [list(held.items())],
        DECODES.name: decodes_column(before, decodes()),
        FAILED: [sorted({*row.column(FAILED)[0].as_py(), *failed})],
    }
    for name, value in found.items():
        field = BETWEEN.field(name)
        row = row.set_column(row.column_names.index(name), field, pa.array(value, field.type))
    return row
