"""Bytes of entries, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources.entry import Broken, Entry, LocalFile, Location, TarMember, Url
from curate.sources.fetch import Request, fetch_all
from curate.sources.sidecar import SourceError

STAGE = "ingest"
MAX_BYTES = 4 << 30
"""Larger files and members are refused: media are held in memory whole."""


def read_all(entries: Sequence[Entry], fetch: Mapping[str, Fetch], max_bytes: int = MAX_BYTES) -> list[bytes | Failure]:
    """The content of each entry, or why there is none, in order. One bad entry takes no other along.

    Args:
        entries: of any sources.
        fetch: source name to the limits of its http(s) uris; the recipe's defaults for a source that is not named.
        max_bytes: limit of local files and tar members.

    Returns:
        One item an entry. A failure's stage is `ingest`; its attempt counts requests of http(s) uris. Empty files are
        empty bytes: that they are no media is for probing to say.
    """
    remote: dict[int, Request] = {}
    for i, entry in enumerate(entries):
        if isinstance(entry.location, Url):
            remote[i] = Request(entry.location.url, fetch.get(entry.source, Fetch()))
    fetched = dict(zip(remote, fetch_all(list(remote.values()), STAGE), strict=True)) if remote else {}
    return [fetched[i] if i in fetched else _local(e.location, max_bytes) for i, e in enumerate(entries)]


def _local(at: Location, max_bytes: int) -> bytes | Failure:
    if isinstance(at, Broken):
        return Failure(STAGE, at.error, at.message)
    assert isinstance(at, LocalFile | TarMember)
    try:
        if at.bytes > max_bytes:
            raise SourceError(f"it has {at.bytes} bytes, more than {max_bytes}")
        path, offset = (at.path, 0) if isinstance(at, LocalFile) else (at.tar, at.offset)
        with Path(path).open("rb") as file:
            file.seek(offset)
            # of a file one byte more is asked for, to see whether it has grown
            data = file.read(at.bytes + isinstance(at, LocalFile))
        if len(data) != at.bytes:
            raise SourceError("it has changed since it was listed")
        return data
    except OSError as exc:
        # str(exc) would name the path on this machine
        return Failure(STAGE, type(exc).__name__, exc.strerror or "it cannot be read")
    except SourceError as exc:
        return Failure.of(STAGE, exc)
