"""Where the bytes of a uri are that a table, or a source of one's own, writes."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeGuard
from urllib.parse import unquote, urljoin

from curate.schema.errors import CurateError
from curate.sources.entry import Entry, File, Location, UnreadableEntry, Url
from curate.sources.paths import in_bucket
from curate.sources.sidecar import SourceError, reason
from curate.storage import is_remote
from curate.storage.retry import StoreUnavailable

AT_ONCE = 16
"""Objects whose size is asked for together."""

WINDOW = 1024
"""Entries that wait for the sizes of their objects."""

_UNKNOWN = -1
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def home_of(address: str) -> str:
    """The folder of a file, or the `s3://` prefix of an object."""
    return address.rpartition("/")[0] if is_remote(address) else str(Path(address).parent.resolve())


def locate(uri: str | None, home: str, base_url: str | None = None) -> Location:
    """Where a uri leads: `http(s)://`, `s3://`, `file://`, an absolute path, or a relative one.

    Args:
        uri: as it is written.
        home: the folder or the `s3://` prefix that relative paths start from and may not leave.
        base_url: what is put before a relative uri, in place of that.

    Raises:
        SourceError: it leads nowhere, or where it may not.
    """
    if uri is None:
        raise SourceError("its uri is empty")
    scheme = _SCHEME.match(uri)
    try:
        if scheme is None:
            return _relative(uri, home, base_url)
        if scheme[1].lower() in ("http", "https"):
            return Url(uri)
        if scheme[1].lower() == "s3":
            return _object("s3://" + uri[scheme.end() :])
        if scheme[1].lower() == "file":
            path = uri[scheme.end() :].removeprefix("localhost")
            if not path.startswith("/"):
                raise SourceError("its file:// uri names another host")
            return _file(unquote(path), home)
    except (ValueError, OSError) as exc:  # names that no file or address can have
        raise SourceError(f"its uri is not valid: {exc}") from exc
    raise SourceError(f"its uri has the scheme {scheme[1]}, which is not read: http, https, s3, file or a path")


def _relative(uri: str, home: str, base_url: str | None) -> Location:
    if base_url is not None and not base_url.startswith("s3://"):
        return Url(urljoin(base_url.rstrip("/") + "/", uri))
    if base_url is None and not is_remote(home):
        return _file(uri, home)
    path = posixpath.normpath(uri)
    if base_url is not None and path.startswith(("/", "..")):
        raise SourceError("its path leaves base_url")
    if path.startswith("/"):
        raise SourceError("its path is one of a machine; the table is in a bucket")
    if path.startswith(".."):
        raise SourceError("its path leaves the folder of the table")
    return _object(f"{(base_url or home).rstrip('/')}/{path}")


def _object(address: str) -> File:
    """An object, of which `sized` has still to ask the size."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise SourceError("its uri names no bucket and object")
    return File(address, _UNKNOWN)


def _file(name: str, home: str) -> File:
    if is_remote(home):
        raise SourceError("its path is one of a machine; the table is in a bucket")
    path = (Path(home) / name).resolve()
    if not Path(name).is_absolute() and not path.is_relative_to(home):
        raise SourceError("its path leaves the folder of the table")
    if not path.is_file():
        raise SourceError("there is no such file")
    return File(str(path), path.stat().st_size)


def sized(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The entries of a unit with the sizes of objects, which are asked for a window at once; with a reason in place of
    those that cannot.

    A stranger's table may name a bucket that is not to be read: that is the fault of its rows. Where no row at all can
    be read, the fault is likely this user's, and is raised.
    """
    unread: dict[str, StoreUnavailable] = {}  # not to wait as long for each object of a bucket
    first: CurateError | None = None
    is_any_good = False

    def size(address: str) -> Location | CurateError:
        bucket = address.split("/")[2]
        if bucket in unread:
            return unread[bucket]
        try:
            store, key = in_bucket(address)
            stat = store.stat(key)
        except StoreUnavailable as exc:
            return unread.setdefault(bucket, exc)
        except CurateError as exc:
            return exc
        except ValueError:
            return UnreadableEntry("SourceError", "its uri is not valid: no object can have that name")
        return (
            File(address, stat.bytes) if stat is not None else UnreadableEntry("SourceError", "there is no such file")
        )

    with ThreadPoolExecutor(AT_ONCE) as pool:
        while window := list(islice(entries, WINDOW)):
            wanted = list(dict.fromkeys(e.location.path for e in window if _is_unsized(e.location)))
            found = dict(zip(wanted, pool.map(size, wanted), strict=True))
            for entry in window:
                at = found[entry.location.path] if _is_unsized(entry.location) else entry.location
                if isinstance(at, CurateError):
                    first = first or at
                    at = UnreadableEntry(type(at).__name__, reason(at))
                is_any_good |= not isinstance(at, UnreadableEntry)
                yield entry if at is entry.location else replace(entry, location=at)
    if first is not None and not is_any_good:
        raise first


def _is_unsized(at: Location) -> TypeGuard[File]:
    return isinstance(at, File) and at.bytes == _UNKNOWN
