"""Bytes of entries, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources.entry import Broken, Entry, File, Location, TarMember, Url
from curate.sources.fetch import Request, fetch_all
from curate.sources.paths import in_bucket
from curate.sources.sidecar import SourceError, reason
from curate.storage import is_remote
from curate.storage.retry import TRIES, StoreUnavailable

STAGE = "ingest"
MAX_BYTES = 4 << 30
"""Larger files and members are refused: media are held in memory whole."""

AT_ONCE = 8
"""Objects of a bucket that are asked for together."""


def read_all(entries: Sequence[Entry], fetch: Mapping[str, Fetch], max_bytes: int = MAX_BYTES) -> list[bytes | Failure]:
    """The content of each entry, or why there is none, in order. One bad entry takes no other along.

    Args:
        entries: of any sources.
        fetch: source name to the limits of its http(s) uris; the recipe's defaults for a source that is not named.
        max_bytes: limit of files, objects and tar members.

    Returns:
        One item an entry. A failure's stage is `ingest`; its attempt counts requests. A store that does not answer
        after all tries is a failure of the record, `StoreUnavailable`. Empty files are empty bytes: that they are no
        media is for probing to say.

    Raises:
        CurateError: a bucket that refuses these credentials, or refuses for another reason that the next record would
            meet too.
    """
    remote: dict[int, Request] = {}
    for i, entry in enumerate(entries):
        if isinstance(entry.location, Url):
            remote[i] = Request(entry.location.url, fetch.get(entry.source, Fetch()))
    fetched = dict(zip(remote, fetch_all(list(remote.values()), STAGE), strict=True)) if remote else {}
    stored = [i for i, e in enumerate(entries) if _address(e.location) is not None]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        objects = dict(zip(stored, pool.map(lambda i: _read(entries[i].location, max_bytes), stored), strict=True))
    done = fetched | objects
    return [done[i] if i in done else _read(e.location, max_bytes) for i, e in enumerate(entries)]


def _address(at: Location) -> str | None:
    """The address of what lies in a bucket."""
    path = at.path if isinstance(at, File) else at.tar if isinstance(at, TarMember) else ""
    return path if is_remote(path) else None


def _read(at: Location, max_bytes: int) -> bytes | Failure:
    if isinstance(at, Broken):
        return Failure(STAGE, at.error, at.message[:500])
    assert isinstance(at, File | TarMember)
    try:
        if at.bytes > max_bytes:
            raise SourceError(f"it has {at.bytes} bytes, more than {max_bytes}")
        path, offset = (at.path, 0) if isinstance(at, File) else (at.tar, at.offset)
        # of a file one byte more is asked for, to see whether it has grown
        data = _span(path, offset, at.bytes + isinstance(at, File))
        if len(data) != at.bytes:
            raise SourceError("it has changed since it was listed")
        return data
    except OSError as exc:
        return Failure(STAGE, type(exc).__name__, reason(exc))
    except StoreUnavailable as exc:
        return Failure(STAGE, type(exc).__name__, reason(exc), TRIES)
    except SourceError as exc:
        return Failure.of(STAGE, exc)


def _span(path: str, offset: int, size: int) -> bytes:
    """A part of what is at an address; less where it ends before."""
    if is_remote(path):
        store, key = in_bucket(path)
        return store.read_range(key, offset, size)
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(size)
