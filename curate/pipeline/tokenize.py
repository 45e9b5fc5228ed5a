"""Tokenize: survivors to ids, one file a piece with every stream, keyed by sample (law 9).

A piece commits `pieces/part-*.arrow` (the rows that pack gathers), then `tokenized/part-*.parquet` (one row a survivor:
the failure, if any), which is the piece's commit. Both names say which survivors they hold. When a threshold has moved,
rows of samples that an older file of the same range and the same tokenizers holds are taken from it: tokenizers do not
let a sample's ids depend on its neighbours, so the bytes are those of a fresh run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.media.views import View
from curate.pipeline.blocks import (
    FAIL,
    batches,
    failure_columns,
    failure_of,
    failure_text,
    pack_views,
    unpack_views,
    view_name,
)
from curate.pipeline.cluster import Cluster
from curate.pipeline.decode_stage import decode_samples
from curate.pipeline.models import models
from curate.pipeline.pieces import KEY_HEX, Piece
from curate.pipeline.pools import COMMIT_CPUS, pools
from curate.pipeline.progress import Stage
from curate.pipeline.stream import pieces_dataset, receipts, then
from curate.pipeline.whereabouts import tells
from curate.schema.codec import CodecCard
from curate.schema.ids import digest_of_rows, key_of
from curate.schema.recipe import Stream
from curate.schema.verdict import Failure
from curate.shards.ipc import open_ipc
from curate.shards.pieces import Place, Tokens, index_pieces, write_piece
from curate.shards.schema import StreamSpec
from curate.storage import Store
from curate.storage.retry import retries
from curate.storage.tables import read_table, write_table
from curate.tokenizers.views import clock_of, items_of, view_of

VERSION = 1
FAILED = f"{FAIL}tokenize"
IDENTITY = ("sample_id", "content_id", "kind", "start_us", "end_us")


@dataclass(frozen=True)
class StreamPlan:
    """A stream of the recipe with its tokenizer's card.

    Attributes:
        tokenizer: name that `zoo.load` takes, wherever a process stands.
        crops: of each picture, as in the recipe.
    """

    use: Stream
    card: CodecCard
    tokenizer: str
    crops: int = 1

    @property
    def view(self) -> View | None:
        """What of the media it reads; None for text."""
        return view_of(self.card, self.use.fps, self.use.max_frames, self.use.pad, self.crops)

    @property
    def spec(self) -> StreamSpec:
        """What the stream's column holds."""
        return StreamSpec.of(self.use.name, self.card, clock_of(self.card, self.use.fps, self.use.pad))

    def made_by(self) -> Any:
        """The digest of the whole card, since that is what pieces and shards carry."""
        return [self.use.model_dump(mode="json"), self.spec.codec, self.crops]


@dataclass(frozen=True)
class TokenPiece:
    """The survivors of one piece of samples.

    Attributes:
        piece: the range.
        keep: survivors' sample ids, in the range's order.
        captions: file with the columns sample_id and caption.
        prefix: names of files of this range and these tokenizers start so.
        arrow, receipt: the two files.
    """

    piece: Piece
    keep: list[str]
    captions: str
    prefix: str
    arrow: str
    receipt: str

    @classmethod
    def of(cls, piece: Piece, keep: list[str], captions: str, streams: Sequence[StreamPlan]) -> TokenPiece:
        made_by = ["tokenize", VERSION, captions, [s.made_by() for s in streams]]
        prefix = f"part-{piece.number}-{key_of([piece.key, made_by])[:KEY_HEX]}-"
        name = prefix + digest_of_rows(keep)[:KEY_HEX]
        return cls(piece, keep, captions, prefix, f"pieces/{name}.arrow", f"tokenized/{name}.parquet")


def tokenize(
    build: Store, work: Sequence[TokenPiece], streams: Sequence[StreamPlan], cluster: Cluster, stage: Stage
) -> None:
    """Tokenize the pieces that are not committed yet."""
    # listed once, here: a task that looked for itself would list what all others commit
    there = {stat.path for stat in build.files("tokenized")}
    older: dict[str, list[str]] = {}
    for stem in sorted(PurePosixPath(path).stem for path in there):
        older.setdefault(f"{stem.rpartition('-')[0]}-", []).append(stem)
    rows = [
        {
            "samples": t.piece.path,
            "start": t.piece.start,
            "rows": t.piece.rows,
            "item": json.dumps(_item(t, older.get(t.prefix, []))),
        }
        for t in work
        if t.receipt not in there
    ]
    if not rows:
        return
    size = pools(cluster, len(rows))
    encoded = then(pieces_dataset(rows), Encode, cpus=size.actor_cpus, actors=size.actors, build=build, streams=streams)
    dataset = then(encoded, commit, cpus=COMMIT_CPUS, build=build, streams=streams)
    for receipt in receipts(dataset):
        stage.add(receipt["rows"], receipt["failed"])
        stage.count(retries=receipt["retries"])


def _item(t: TokenPiece, older: list[str]) -> dict[str, Any]:
    """What a task is told of a piece; `older` are files that may hold some of its survivors, without folder and end."""
    return {
        "piece": f"part-{t.piece.number}",
        "keep": t.keep,
        "captions": t.captions,
        "older": older,
        "arrow": t.arrow,
        "receipt": t.receipt,
    }


def _older(build: Store, stems: Sequence[str], keep: set[str]) -> dict[str, Place]:
    """Where files of the same range and tokenizers hold survivors already."""
    found: dict[str, Place] = {}
    for stem in stems:
        held = index_pieces(build, [f"pieces/{stem}.arrow"])
        found |= {sid: at for sid, at in held.items() if sid in keep and sid not in found}
    return found


class Encode:
    """A worker that decodes the survivors of a piece, a batch at a time, and holds the tokenizers."""

    def __init__(self, build: Store, streams: Sequence[StreamPlan]) -> None:
        self._build, self._streams = build, streams
        self._views = sorted({s.view for s in streams if s.view is not None}, key=view_name)
        for stream in streams:
            models().load_tokenizer(stream.tokenizer, stream.card)

    @tells("tokenize")
    def __call__(self, work: pa.Table) -> pa.Table:
        """Ids of the piece's survivors that no older file holds; the others come without ids."""
        row = work.to_pylist()[0]
        item = json.loads(row["item"])
        samples = read_table(self._build, row["samples"]).slice(row["start"], row["rows"])
        keep = set(item.pop("keep"))
        alive = [i for i, sid in enumerate(samples.column("sample_id").to_pylist()) if sid in keep]
        samples = samples.take(pa.array(alive, pa.int64()))
        old = _older(self._build, item.pop("older"), keep)
        item["held"] = {sid: [path, at] for sid, (path, at) in old.items()}
        captions = read_table(self._build, item["captions"], ["sample_id", "caption"])
        texts = dict(zip(*(captions.column(name).to_pylist() for name in ("sample_id", "caption")), strict=True))
        parts = [self._encoded(self._decoded(some, old, texts)) for some in batches(samples)]
        done = pa.concat_tables(parts)
        return done.append_column("item", pa.array([json.dumps(item)] + [None] * (done.num_rows - 1), pa.string()))

    def _decoded(self, samples: pa.Table, old: Mapping[str, Place], captions: Mapping[str, str | None]) -> pa.Table:
        """Views of those of a batch that `old` does not hold; the others come without views."""
        rows = samples.to_pylist()
        fresh = [i for i, row in enumerate(rows) if row["sample_id"] not in old]
        arrays, failures = decode_samples(self._build, [rows[i] for i in fresh], self._views, "tokenize")
        at = {i: n for n, i in enumerate(fresh)}
        columns: dict[str, Any] = {name: samples.column(name) for name in (*IDENTITY, "width", "height")}
        columns["caption_text"] = pa.array([captions[row["sample_id"]] for row in rows], pa.string())
        columns["fresh"] = pa.array([i in at for i in range(len(rows))], pa.bool_())
        texts = [failure_text(failures[at[i]]) if i in at else None for i in range(len(rows))]
        columns[FAILED] = pa.array(texts, pa.string())
        for view in self._views:
            columns |= pack_views(view, [arrays[view][at[i]] if i in at else None for i in range(len(rows))])
        return pa.table(columns)

    def _encoded(self, block: pa.Table) -> pa.Table:
        """A batch with its ids, without views."""
        fresh = block.column("fresh").to_pylist()
        failures = [failure_of(t) for t in block.column(FAILED).to_pylist()]
        sizes = list(zip(block.column("width").to_pylist(), block.column("height").to_pylist(), strict=True))
        for stream in self._streams:
            arrays = unpack_views(block, stream.view) if stream.view is not None else []
            given = items_of(stream.card, arrays, block.column("caption_text").to_pylist(), sizes)
            todo = [i for i, f in enumerate(failures) if fresh[i] and f is None and given[i] is not None]
            ids: list[NDArray[np.generic] | None] = [None] * block.num_rows
            stage = f"tokenize:{stream.use.name}"
            encoded = models().encode(stream.tokenizer, stage, [given[i] for i in todo])
            for i, got in zip(todo, encoded, strict=True):
                checked = _checked(stream, got)
                if isinstance(checked, Failure):
                    failures[i] = checked
                else:
                    ids[i] = checked
            block = block.append_column(stream.use.name, _ids_column(stream, ids))
        texts = pa.array([failure_text(f) for f in failures], pa.string())
        block = block.set_column(block.column_names.index(FAILED), FAILED, texts)
        return block.select([*IDENTITY, FAILED, *(s.use.name for s in self._streams)])


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


def _ids_column(stream: StreamPlan, ids: Sequence[NDArray[np.generic] | None]) -> pa.Array:
    """Flat ids as a list column; null where the sample has none."""
    offsets = np.concatenate([[0], np.cumsum([0 if a is None else a.size for a in ids])]).astype(np.int32)
    flat = np.concatenate([np.zeros(0, stream.card.numpy_dtype), *(a for a in ids if a is not None)])
    mask = pa.array([a is None for a in ids], pa.bool_())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(flat), mask=mask)


@tells("tokenize")
def commit(block: pa.Table, build: Store, streams: Sequence[StreamPlan]) -> pa.Table:
    """Write the piece: fresh rows and those of older files, in the range's order; the answer is its receipt."""
    item = json.loads(block.column("item")[0].as_py())
    failures = [failure_of(t) for t in block.column(FAILED).to_pylist()]
    specs = [s.spec for s in streams]
    rows = []
    for i, key in enumerate(block.select(IDENTITY).to_pylist()):
        if key["sample_id"] in item["held"]:
            path, at = item["held"][key["sample_id"]]
            held = pa.Table.from_batches(open_ipc(build.local(path))[1])
            rows.append(Tokens(**key, ids={s.name: _ids(held, at, s) for s in specs}))
        elif failures[i] is None:
            rows.append(Tokens(**key, ids={s.name: _ids(block, i, s) for s in specs}))
    write_piece(build, item["arrow"], specs, rows)
    write_table(build, item["receipt"], pa.table({"sample_id": block.column("sample_id")} | failure_columns(failures)))
    return pa.table(
        {"rows": [block.num_rows], "failed": [sum(f is not None for f in failures)], "retries": [retries.take()]}
    )


def _ids(table: pa.Table, row: int, spec: StreamSpec) -> NDArray[np.generic] | None:
    value = table.column(spec.name)[row]
    if not value.is_valid:
        return None
    flat: NDArray[np.generic] = value.values.to_numpy(zero_copy_only=False).astype(spec.numpy_dtype, copy=False)
    return flat.reshape(-1, *spec.shape[1:])
