"""Bytes of entries, wherever they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from curate.schema.recipe import Fetch
from curate.schema.verdict import Failure
from curate.sources.ahead import LARGEST, SHORT
from curate.sources.entry import Entry, File, TarMember, UnreadableEntry, Url
from curate.sources.fetch import Request, fetch_all
from curate.sources.paths import in_bucket
from curate.sources.sidecar import reason
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
    done = dict(fetched)
    stored: list[File | TarMember] = []
    for i, entry in enumerate(entries):
        at = entry.location
        if isinstance(at, UnreadableEntry):
            done[i] = Failure(STAGE, at.error, at.message[:500])
        elif isinstance(at, File | TarMember):
            if at.bytes > max_bytes:
                done[i] = Failure(STAGE, "SourceError", f"it has {at.bytes} bytes, more than {max_bytes}")
            else:
                stored.append(at)
    runs = list(_runs(stored))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        is_far = any(is_remote(_address(run[0])) for run in runs)
        read = (got for some in (pool.map(_read, runs) if is_far else map(_read, runs)) for got in some)
        return [done[i] if i in done else next(read) for i in range(len(entries))]


def _address(at: File | TarMember) -> str:
    return at.path if isinstance(at, File) else at.tar


def _runs(places: Iterable[File | TarMember]) -> Iterator[list[File | TarMember]]:
    """Members of a tar that lie close to each other are read together; others are alone."""
    run: list[File | TarMember] = []
    for at in places:
        if run and not _continues(run[0], run[-1], at):
            yield run
            run = []
        run.append(at)
    if run:
        yield run


def _continues(first: File | TarMember, last: File | TarMember, at: File | TarMember) -> bool:
    if not (isinstance(first, TarMember) and isinstance(last, TarMember) and isinstance(at, TarMember)):
        return False
    gap = at.offset - last.offset - last.bytes
    return at.tar == first.tar and 0 <= gap <= SHORT and at.offset + at.bytes - first.offset <= LARGEST


def _read(run: Sequence[File | TarMember]) -> list[bytes | Failure]:
    """The content of each place of a run, by one request."""
    first, last = run[0], run[-1]
    start = first.offset if isinstance(first, TarMember) else 0
    # of a file one byte more is asked for, to see whether it has grown
    stop = last.offset + last.bytes if isinstance(last, TarMember) else last.bytes + 1
    got = _span(_address(first), start, stop - start)
    if isinstance(got, Failure):
        return [got] * len(run)
    out: list[bytes | Failure] = []
    for at in run:
        data = got[at.offset - start : at.offset - start + at.bytes] if isinstance(at, TarMember) else got
        whole = len(data) == at.bytes
        out.append(data if whole else Failure(STAGE, "SourceError", "it has changed since it was listed"))
    return out


def _span(path: str, offset: int, size: int) -> bytes | Failure:
    """A part of what is at an address, less where it ends before; or why there is none."""
    try:
        if is_remote(path):
            store, key = in_bucket(path)
            return store.read_range(key, offset, size)
        with Path(path).open("rb") as file:
            file.seek(offset)
            return file.read(size)
    except OSError as exc:
        return Failure(STAGE, type(exc).__name__, reason(exc))
    except StoreUnavailable as exc:
        return Failure(STAGE, type(exc).__name__, reason(exc), TRIES)
