"""Shards from pieces: rows gathered from memory maps into final order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curate.media.views import frames_there
from curate.schema.errors import CurateError
from curate.schema.manifest import Clock, File, FrameCounts, Split, StreamEntry
from curate.shards.commit import describe_file
from curate.shards.ipc import BATCH_ROWS, open_ipc, write_ipc
from curate.shards.order import ShardPlan
from curate.shards.pieces import Place
from curate.shards.rows import Rows, gather, to_batch
from curate.shards.schema import StreamSpec, shard_schema, streams_in
from curate.storage import Store


def write_shard(plan: ShardPlan, pieces: Mapping[str, Place], build: Store) -> File:
    """Write one shard, whole or not at all. Its bytes do not depend on how samples lie in pieces.

    Args:
        plan: what to write; its path is relative to `build`.
        pieces: for each sample of the plan, the piece and the row that hold its tokens (`index_pieces`).
        build: where the pieces lie and the shard goes.

    Returns:
        The manifest's entry of the file.

    Raises:
        CurateError: a sample that no piece holds, a piece that does not hold what it should, pieces of other streams,
            or an id outside its vocabulary.
    """
    if lost := [s for s in plan.sample_ids if s not in pieces]:
        raise CurateError(f"{plan.path}: {len(lost)} samples have no tokens, {lost[0]} first")
    first = open_ipc(build.local(pieces[plan.sample_ids[0]][0]))[0]
    streams = streams_in(first)
    batches = (
        _gather(build, plan.path, plan.sample_ids[i : i + BATCH_ROWS], pieces, streams)
        for i in range(0, len(plan.sample_ids), BATCH_ROWS)
    )
    schema = shard_schema(streams)
    rows = write_ipc(build, plan.path, schema, (to_batch(part, schema, streams) for part in batches))
    return describe_file(build, plan.path, rows)


def _gather(
    build: Store, path: str, samples: Sequence[str], pieces: Mapping[str, Place], streams: Sequence[StreamSpec]
) -> Rows:
    schema = shard_schema(streams)
    batches: list[pa.RecordBatch] = []
    opened: dict[str, list[tuple[int, int]]] = {}  # piece: (first row, index in `batches`) of its record batches
    which, row = np.empty(len(samples), np.int64), np.empty(len(samples), np.int64)
    for i, sample in enumerate(samples):
        piece, at = pieces[sample]
        if piece not in opened:
            found, parts = open_ipc(build.local(piece))
            if not found.equals(schema, check_metadata=True):
                raise CurateError(f"{piece}: holds other streams, or of another codec, than the first piece of {path}")
            firsts = np.cumsum([0, *(b.num_rows for b in parts)]).tolist()
            opened[piece] = [(firsts[k], len(batches) + k) for k in range(len(parts))]
            batches.extend(parts)
        start, batch = max((p for p in opened[piece] if p[0] <= at), default=(0, -1))
        if batch < 0 or at - start >= batches[batch].num_rows:
            raise CurateError(f"{piece}: has no row {at}, where sample {sample} should lie")
        which[i], row[i] = batch, at - start
    rows = gather(batches, which, row, streams)
    wrong = np.flatnonzero(rows.keys["sample_id"] != np.array(samples, dtype=object))
    if len(wrong):
        piece, at = pieces[samples[wrong[0]]]
        raise CurateError(f"{piece}: row {at} is not sample {samples[wrong[0]]}")
    for spec in streams:
        values = rows.streams[spec.name].values
        if spec.vocabulary and values.size and int(values.max()) >= spec.vocabulary:
            raise CurateError(f"{path}: stream {spec.name!r}: id {values.max()} is not below {spec.vocabulary}")
    return rows


def splits_of(names: Sequence[str], plans: Sequence[ShardPlan]) -> list[Split]:
    """The manifest's splits, by name; a split without samples has no shards."""
    entries = []
    for name in sorted(names):
        mine = [p for p in plans if p.split == name]
        sizes = [len(p.sample_ids) for p in mine]
        entries.append(Split(name=name, samples=sum(sizes), shards=[p.path for p in mine], shard_rows=sizes))
    return entries


def stream_entries(
    build: Store, plans: Sequence[ShardPlan], streams: Sequence[StreamSpec], tokenizers: Mapping[str, tuple[str, str]]
) -> list[StreamEntry]:
    """The manifest's streams, counted in the shards.

    Args:
        build, plans: where the shards lie.
        streams: in manifest order.
        tokenizers: stream name to (tokenizer name as in `Manifest.codecs`, modality).
    """
    ids = dict.fromkeys((s.name for s in streams), 0)
    samples = dict.fromkeys(ids, 0)
    frames = {s.name: FrameCounts() for s in streams if s.clock is not None}
    for plan in plans:
        for batch in open_ipc(build.local(plan.path))[1]:
            for s in streams:
                ids[s.name] += len(batch.column(s.name).flatten())
                samples[s.name] += batch.num_rows - batch.column(s.name).null_count
                if s.clock is not None:
                    _count_frames(frames[s.name], batch, s, s.clock)
    return [
        StreamEntry(
            name=s.name,
            tokenizer=tokenizers[s.name][0],
            modality=tokenizers[s.name][1],
            vocabulary=s.vocabulary,
            dtype=s.dtype,
            shape=list(s.shape),
            clock=s.clock,
            frames=frames.get(s.name),
            ids=ids[s.name],
            samples=samples[s.name],
        )
        for s in streams
    ]


def _count_frames(counts: FrameCounts, batch: pa.RecordBatch, stream: StreamSpec, clock: Clock) -> None:
    rows = batch.filter(batch.column(stream.name).is_valid())
    spans = pc.subtract(rows.column("end_us"), rows.column("start_us")).fill_null(0).to_numpy(zero_copy_only=False)
    sizes = pc.list_value_length(rows.column(stream.name)).to_numpy(zero_copy_only=False)
    videos = pc.equal(rows.column("kind"), "video").to_numpy(zero_copy_only=False)
    given = 1 + clock.stride * (sizes.astype(np.int64) // stream.unit - 1)
    there = np.where(videos, frames_there(spans / 1e6, clock.fps), 1)
    counts.own += int(np.minimum(given, there).sum())
    counts.left_out += int(np.maximum(0, there - given).sum())
    counts.repeated += int(np.maximum(0, given - there).sum())
