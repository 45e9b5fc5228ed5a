"""Tables of uris: parquet, csv or jsonl."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard
from urllib.parse import unquote, urljoin

from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.schema.recipe import TableSource
from curate.sources.csv_rows import read_csv
from curate.sources.entry import BadCell, Broken, Entry, File, Location, Url, clean, meta_json
from curate.sources.json_rows import read_jsonl
from curate.sources.parquet_rows import read_parquet
from curate.sources.paths import in_bucket
from curate.sources.rows import Row
from curate.sources.sidecar import MAX_BYTES, SourceError, reason
from curate.storage import is_remote
from curate.storage.retry import StoreUnavailable

MAX_URI = 8192
"""Characters of a uri; longer ones no server takes."""

AT_ONCE = 16
"""Objects whose size is asked for together."""

_UNKNOWN = -1
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def list_table(source: TableSource, table: Path | str, base_url: str | None = None) -> list[Entry]:
    """One entry for each row, in the order of the rows.

    The uri is as the table writes it: `http(s)://`, `s3://`, `file://`, an absolute path, or a relative one, which
    `base_url` is put before, or which starts in the table's folder and may not leave it. A table in a bucket names no
    files of this machine. Columns other than those of uri, text and licence go to `meta`, where a cell that cannot be
    read shows what can be shown of it; parquet columns of bytes are not read, but for a uri, text or licence.

    Broken entries come of a row that is no row, an empty uri (called `TABLE#ROW`, from 1), a uri above MAX_URI, a text
    or a `meta` above MAX_BYTES, a uri, text or licence that is not UTF-8, a scheme that is not read, a file that is not
    there and an object that cannot be asked for.

    Args:
        source: names the columns.
        table: the file, or the `s3://` address of an object; its suffix says what it is.
        base_url: http(s) or s3, put before relative uris; complete, without variables.

    Raises:
        CurateError: another suffix; not readable as what it is called; a column that is not there; a bucket that cannot
            be read, of the table or of every row of it.
    """
    address = str(table)
    if is_remote(address):
        store, key = in_bucket(address)
        home, name, file = address.rpartition("/")[0], PurePosixPath(key).name, store.local(key)
    else:
        home, name, file = str(Path(address).parent.resolve()), Path(address).name, Path(address)
    columns, rows = _read(file, name, source)
    asked = [("uri", source.uri)]
    # the default `text` is a guess, not a demand
    asked += [("text", source.text)] if source.text is not None and "text" in source.model_fields_set else []
    asked += [("licence_column", source.licence_column)] if source.licence_column is not None else []
    for key, column in asked:
        if column not in columns:
            hint = clean(f"{nearest(column, columns)}it has: {', '.join(columns) or 'none'}") or ""
            raise CurateError(f"{key}: {name} has no column {column!r}", hint)
    return _sized([_entry(source, row, f"{name}#{i}", home, base_url) for i, row in enumerate(rows, 1)])


def _entry(source: TableSource, row: Row, name: str, home: str, base_url: str | None) -> Entry:
    """The entry of one row; `name` is what it is called where it has no uri."""
    if isinstance(row, SourceError):
        return Entry(source.name, name, 0, None, source.licence, "{}", Broken("SourceError", str(row)))
    uri = text = licence = None
    meta = "{}"
    location: Location
    try:
        uri = _string(row, source.uri, MAX_URI)
        text = _string(row, source.text)
        licence = _string(row, source.licence_column)
        own = (source.uri, source.text, source.licence_column)
        meta = _meta({key: value for key, value in row.items() if key not in own})
        location = _locate(uri, home, base_url)
    except SourceError as exc:
        location = Broken("SourceError", str(exc))
    return Entry(source.name, uri or name, 0, text, licence or source.licence, meta, location)


def _string(row: Mapping[str, Any], column: str | None, longest: int = MAX_BYTES) -> str | None:
    value = row.get(column) if column is not None else None
    if value is None:
        return None
    if isinstance(value, bytes):  # of Parquet, whose writers may leave out that a column is text
        try:
            value = value.decode()
        except UnicodeDecodeError:
            value = BadCell(None, "is not UTF-8")
    if isinstance(value, BadCell):
        raise SourceError(f"its {column} {value.why}")
    if not isinstance(value, str):
        raise SourceError(f"its {column} is {type(value).__name__}, not text")
    if len(value) > longest:
        raise SourceError(f"its {column} has {len(value)} characters, more than {longest}")
    return clean(value.strip())


def _meta(rest: Mapping[str, Any]) -> str:
    try:
        said = meta_json(rest)
    except RecursionError as exc:
        raise SourceError("its other columns are nested too deep") from exc
    if len(said) > MAX_BYTES:
        raise SourceError(f"its other columns have {len(said)} characters as JSON, more than {MAX_BYTES}")
    return said


def _locate(uri: str | None, home: str, base_url: str | None) -> Location:
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
    """An object, of which `_sized` has still to ask the size."""
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


def _sized(entries: list[Entry]) -> list[Entry]:
    """The entries with the sizes of objects, which are asked for at once; with a reason in place of those that cannot.

    A stranger's table may name a bucket that is not to be read: that is the fault of its rows. Where no row at all can
    be read, the fault is likely this user's, and is raised.
    """
    wanted = list(dict.fromkeys(e.location.path for e in entries if _is_unsized(e.location)))
    if not wanted:
        return entries
    unread: dict[str, StoreUnavailable] = {}  # not to wait as long for each object of a bucket

    def sized(address: str) -> Location | CurateError:
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
            return Broken("SourceError", "its uri is not valid: no object can have that name")
        return File(address, stat.bytes) if stat is not None else Broken("SourceError", "there is no such file")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(wanted, pool.map(sized, wanted), strict=True))
    errors = [at for at in found.values() if isinstance(at, CurateError)]
    out = []
    for entry in entries:
        at = found[entry.location.path] if _is_unsized(entry.location) else entry.location
        at = Broken(type(at).__name__, reason(at)) if isinstance(at, CurateError) else at
        out.append(replace(entry, location=at))
    if errors and all(isinstance(entry.location, Broken) for entry in out):
        raise errors[0]
    return out


def _is_unsized(at: Location) -> TypeGuard[File]:
    return isinstance(at, File) and at.bytes == _UNKNOWN


def _read(table: Path, name: str, source: TableSource) -> tuple[list[str], Iterable[Row]]:
    """Column names, and the rows as they come. `name` is what messages call the table."""
    own = {column for column in (source.uri, source.text, source.licence_column) if column is not None}
    suffix = Path(name).suffix.lower()
    if suffix == ".parquet":
        return read_parquet(table, name, own)
    if suffix == ".csv":
        return read_csv(table, name, own, source.uri)
    if suffix in (".jsonl", ".ndjson"):
        return read_jsonl(table, name)
    raise CurateError(f"{name}: a table is .parquet, .csv or .jsonl")
