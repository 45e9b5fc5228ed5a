"""Ingest: entries of the sources to records, with their media as they came.

A piece commits two files, in this order: `media/part-*.tar`, `records/part-*.parquet`. The records file is the piece's
commit: where it is there, the tar is too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from curate.media.guarded import probe
from curate.pipeline.media_store import MediaTar, read_media
from curate.pipeline.pieces import MOST_BYTES, Piece, split
from curate.pipeline.progress import Stage
from curate.pipeline.retry import good_rows
from curate.pipeline.stream import pieces_dataset, receipts, then
from curate.pipeline.whereabouts import tells
from curate.schema.errors import MediaError
from curate.schema.ids import content_id, key_of
from curate.schema.recipe import Fetch, Recipe, TableSource
from curate.schema.tables import FAILURE_NAMES, PROBE_NAMES, RECORDS
from curate.schema.verdict import Failure
from curate.sources.entry import Entry, File, TarMember
from curate.sources.read import read_all
from curate.storage import Store
from curate.storage.bucket import adopt, reach
from curate.storage.retry import retries
from curate.storage.tables import write_table

VERSION = 1
AT_ONCE = 8
"""Entries held in memory together, unless a source fetches more at once."""


def plan(recipe: Recipe, entries: Sequence[Entry]) -> list[tuple[Piece, str, list[Entry]]]:
    """Pieces of entries with the records file that each commits."""
    fetch = _limits(recipe)
    costs = [at.bytes if isinstance(at := e.location, File | TarMember) else 0 for e in entries]
    pieces = split([key_of(e.identity()) for e in entries], recipe.partition, costs=costs, most=MOST_BYTES)
    return [
        (p, p.file("records", ["ingest", VERSION, fetch]), list(entries[p.start : p.start + p.rows])) for p in pieces
    ]


def ingest(build: Store, recipe: Recipe, work: Sequence[tuple[Piece, str, list[Entry]]], stage: Stage) -> None:
    """Fetch, hash, probe and commit the pieces that are not there yet."""
    there = build.existing(path for _, path, _ in work)
    rows = [
        {
            "piece": PurePosixPath(path).stem,
            "records": path,
            "rows": piece.rows,
            "entries": json.dumps([e.to_row() for e in entries]),
        }
        for piece, path, entries in work
        if path not in there
    ]
    if not rows:
        return
    # one CPU a task: hashing and probing; while a fetch waits, the others of the piece go on
    dataset = then(pieces_dataset(rows), ingest_piece, cpus=1, build=build, fetch=_limits(recipe), stores=reach())
    for receipt in receipts(dataset):
        stage.add(receipt["rows"], receipt["failed"])
        stage.count(retries=receipt["retries"])


def _limits(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The fetch section of each table, by the source's name, as plain data."""
    return {s.name: s.fetch.model_dump() for s in recipe.sources if isinstance(s, TableSource)}


@tells("ingest")
def ingest_piece(block: pa.Table, build: Store, fetch: dict[str, Any], stores: dict[str, str]) -> pa.Table:
    """One piece: fetched, hashed, probed, committed. The block is one work item; the answer is its receipt."""
    adopt(stores)
    item = block.to_pylist()[0]
    limits = {name: Fetch.model_validate(options) for name, options in fetch.items()}
    entries = [Entry.from_row(row) for row in json.loads(item["entries"])]
    media = media_path(item["records"])
    rows: list[dict[str, Any]] = []
    kept = good_rows(build, item["records"])
    at_once = max([AT_ONCE, *(limit.concurrency for limit in limits.values())])
    with build.placed(media) as temporary:
        tar = MediaTar(temporary)
        for start in range(0, len(entries), at_once):
            some = entries[start : start + at_once]
            held = {i: data for i, e in enumerate(some) if (data := _held(build, kept.get(e.record_id))) is not None}
            todo = [e for i, e in enumerate(some) if i not in held]
            fetched = iter(read_all(todo, limits))
            for i, entry in enumerate(some):
                rows.append(_record(entry, held[i] if i in held else next(fetched), tar, media))
        tar.close()
    write_table(build, item["records"], pa.Table.from_pylist(rows, schema=RECORDS))
    failed = sum(row["error"] is not None for row in rows)
    return pa.table({"rows": [len(rows)], "failed": [failed], "retries": [retries.take()]})


def _record(entry: Entry, got: bytes | Failure, tar: MediaTar, media: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(RECORDS.names)
    row |= {
        "record_id": entry.record_id,
        "source": entry.source,
        "uri": entry.uri,
        "text": entry.text,
        "licence": entry.licence,
        "meta": entry.meta,
    }
    if isinstance(got, Failure):
        return row | {name: getattr(got, name) for name in FAILURE_NAMES}
    about = {"uri": entry.uri, "source": entry.source, "text": entry.text, "licence": entry.licence}
    member, offset = tar.add(entry.record_id, entry.uri, got, about)
    row |= {"content_id": content_id(got), "bytes": len(got), "media": media, "member": member, "offset": offset}
    try:
        found = probe(got, entry.uri)
    except MediaError as exc:
        return row | Failure.of("ingest:probe", exc).__dict__
    return row | {"kind": found.kind} | {name: getattr(found, name) for name in PROBE_NAMES}


def _held(build: Store, row: dict[str, Any] | None) -> bytes | None:
    """Media of a row that an earlier run had, if its tar still holds them: a killed retry may have replaced it."""
    if row is None:
        return None
    try:
        data = read_media(build, row["media"], row["offset"], row["bytes"])
    except OSError:  # the tar is gone, or a shorter one stands in its place
        return None
    return data if content_id(data) == row["content_id"] else None


def media_path(records: str) -> str:
    """The tar that goes with a records file."""
    return records.replace("records/", "media/", 1).removesuffix(".parquet") + ".tar"
