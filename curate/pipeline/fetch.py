"""List and fetch: the first two operators of the plan. A unit is read by the task that lists it; its records flow on,
a partition a row, to the task that fetches their media.

A partition commits `media/*.tar`, then `fetched/*.parquet`: where that is, the tar is too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, pairwise
from typing import Any

import pyarrow as pa

from curate.pipeline.board import Board, Ticks
from curate.pipeline.error_location import with_location
from curate.pipeline.failed_sources import check_leading, leading
from curate.pipeline.listing import Listing
from curate.pipeline.media_store import MediaTar, read_media
from curate.pipeline.partitions import Partition, partition_name, slices
from curate.pipeline.paths import Paths
from curate.pipeline.retry import good_rows
from curate.pipeline.rows import LEADS, PARTITION, files_column, nested, partition_of, tally_column, unnested
from curate.pipeline.spent import over_records, spending
from curate.schema.ids import content_id
from curate.schema.manifest import File
from curate.schema.recipe import Fetch
from curate.schema.tables import FAILURE_NAMES, FETCHED
from curate.schema.verdict import Failure
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry, entries_of, entries_table, identities
from curate.sources.media_types import is_timed
from curate.sources.read import read_all
from curate.storage import Store
from curate.storage.bucket import apply_endpoint_env
from curate.storage.retry import retries
from curate.storage.tables import write_table, written

AT_ONCE = 64
"""Entries held in memory together, unless a source fetches more at once."""

HELD_BYTES = 64 << 20
"""Bytes of entries that are read together, as far as listing tells them."""

GUESSED = (1 << 20, 8 << 20)
"""Bytes of what is behind a URL, before it is asked for: of an image, of video and audio."""

UNITS = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("address", pa.string(), nullable=False),
        pa.field("bytes", pa.int64(), nullable=False),
        pa.field("detail", pa.map_(pa.string(), pa.string()), nullable=False),
    ]
)
"""Units of all sources, as they go to the tasks that list them."""


@with_location("ingest")
def list_unit(
    block: pa.Table,
    build: Store,
    sources: Mapping[str, Source],
    size: int,
    board: Board,
    stores: dict[str, str],
) -> Iterator[pa.Table]:
    """List a unit: its records, a partition a row.

    Args:
        block: one row of UNITS, with LEADS.
        sources: by name.
        size: the recipe's `partition`.
        stores: environment that stores are reached by (`storage.bucket.endpoint_env`).
    """
    apply_endpoint_env(stores)
    row = block.select(UNITS.names).to_pylist()[0]
    unit = Unit(**{**row, "detail": dict(row["detail"])})
    source = sources[unit.source]
    leads = block.column(LEADS.name)[0].as_py()
    records = 0
    for entries, following in pairwise(chain(slices(source.read(unit, build), size), [[]])):
        whole = sum(e.is_whole for e in entries)
        speaks = leading(leads, len(entries), not following) if whole < len(entries) else None
        leads = None
        name = partition_name(source.name, source.fingerprint(), unit.name, identities(entries))
        board.add("ingest", total=len(entries), queued=1)
        records += len(entries)
        head = pa.table(
            {
                "partition": [name],
                "source": [source.name],
                "unit": [unit.name],
                "rows": [len(entries)],
                "whole": [whole],
            },
            schema=PARTITION,
        ).append_column(LEADS, pa.array([speaks], LEADS.type))
        yield head.append_column("entries", nested(entries_table(entries)))
    board.add("ingest", read=1, gave=records)


@with_location("ingest")
def fetch_partition(
    block: pa.Table,
    build: Store,
    paths: Paths,
    committed: Listing,
    fetch: Mapping[str, dict[str, Any]],
    board: Board,
    stores: dict[str, str],
) -> pa.Table:
    """Fetch a partition's media, hash and commit them, where that is not done.

    Args:
        block: one row of `list_unit`.
        committed: what earlier runs committed.
        fetch: the fetch section of each table, by the source's name, as plain data.

    Returns:
        The row without its entries.

    Raises:
        CurateError: the partition speaks for its source, and every record of it failed.
    """
    apply_endpoint_env(stores)
    partition = partition_of(block)
    board.add("ingest", queued=-1)
    place = paths.fetched(partition.name, partition.source)
    files: list[File] = []
    ticks = Ticks(board, "ingest")
    if committed.holds(place):
        told = (partition.rows, partition.rows, 0, 0)
    else:
        speaks = block.column(LEADS.name)[0].as_py()
        with spending(board, "fetch", partition):
            entries = entries_of(unnested(block, "entries"))
            failed, files = _fetch(build, paths, partition, entries, fetch, speaks, ticks)
        told = (partition.rows, 0, failed, retries.take())
    total, reused, failed, again = told
    passed = total - reused - failed - ticks.take("passed")
    board.add("ingest", reused=reused, passed=passed, failed=failed - ticks.take("failed"), retries=again)
    board.add("annotate", queued=1)
    row = block.select([*PARTITION.names, LEADS.name]).append_column(*tally_column("ingest", *told))
    return row.append_column("files", files_column(None, files))


def _fetch(
    build: Store,
    paths: Paths,
    partition: Partition,
    entries: Sequence[Entry],
    fetch: Mapping[str, dict[str, Any]],
    speaks: str | None,
    tick: Callable[[str], object],
) -> tuple[int, list[File]]:
    """Fetch and commit; how many failed, and the files.

    Args:
        tick: is told `passed` or `failed` of each record.
    """
    limits = {name: Fetch.model_validate(options) for name, options in fetch.items()}
    media = paths.media(partition.name, partition.source)
    fetched = paths.fetched(partition.name, partition.source)
    columns: dict[str, list[Any]] = {name: [] for name in FETCHED.names}
    kept = good_rows(build, fetched)
    failed = 0
    with build.atomic_write(media) as temporary:
        tar = MediaTar(temporary)
        for some in over_records(_windows(entries, limits)):
            held = {i: data for i, e in enumerate(some) if (data := _held(build, kept.get(e.record_id))) is not None}
            todo = [e for i, e in enumerate(some) if i not in held]
            read = iter(read_all(todo, limits))
            for i, entry in enumerate(some):
                got = held[i] if i in held else next(read)
                row = _row(entry, got, tar, media)
                failed += isinstance(got, Failure)
                tick("failed" if isinstance(got, Failure) else "passed")
                for name, values in columns.items():
                    values.append(row.get(name))
        table = pa.table(columns, schema=FETCHED)
        if failed == len(entries):
            check_leading(speaks, partition.source, table.to_pylist())
        tar.close()
        about = written(media, temporary, len(entries))
    return failed, [about, write_table(build, fetched, table)]


def _windows(entries: Sequence[Entry], limits: Mapping[str, Fetch]) -> Iterator[list[Entry]]:
    """Runs of entries that are read together: few enough to be held in memory, enough to wait for at once."""
    at_once = max([AT_ONCE, *(limit.concurrency for limit in limits.values())])
    held: list[Entry] = []
    size = 0
    for entry in entries:
        more = getattr(entry.location, "bytes", GUESSED[is_timed(entry.uri)])
        if held and (len(held) == at_once or size + more > HELD_BYTES):
            yield held
            held, size = [], 0
        held.append(entry)
        size += more
    if held:
        yield held


def _row(entry: Entry, got: bytes | Failure, tar: MediaTar, media: str) -> dict[str, Any]:
    row: dict[str, Any] = {
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
    return row | {
        "content_id": content_id(got),
        "bytes": len(got),
        "media": media,
        "member": member,
        "offset": offset,
    }


def _held(build: Store, row: dict[str, Any] | None) -> bytes | None:
    """Media of a row that an earlier run had, if its tar still holds them: a killed retry may have replaced it."""
    if row is None:
        return None
    try:
        data = read_media(build, row["media"], row["offset"], row["bytes"])
    except OSError:  # the tar is gone, or a shorter one stands in its place
        return None
    return data if content_id(data) == row["content_id"] else None
