"""Tables of uris: parquet, csv or jsonl."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin

from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.schema.recipe import TableSource
from curate.sources.entry import Broken, Entry, LocalFile, Location, Url, clean, meta_json
from curate.sources.sidecar import SourceError, json_object

_BATCH = 4096
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")

Row = dict[str, Any] | SourceError
"""A row of a table, or why it cannot be read."""


def list_table(source: TableSource, table: Path, base_url: str | None = None) -> list[Entry]:
    """One entry for each row, in the order of the rows.

    The uri is as the table writes it: `http(s)://`, `file://`, an absolute path, or a relative one, which `base_url`
    is put before, or which starts in the table's folder and may not leave it. Columns other than those of uri, text
    and licence go to `meta`; parquet columns of bytes are not read. A row that is no row, an empty uri (called
    `TABLE#ROW`, from 1), a scheme that is not read and a file that is not there give broken entries.

    Args:
        source: names the columns.
        table: the file; its suffix says what it is.
        base_url: put before relative uris; complete, without variables.

    Raises:
        CurateError: another suffix; not readable as what it is called; a column that is not there.
    """
    columns, rows = _read(table)
    asked = [("uri", source.uri)]
    # the default `text` is a guess, not a demand
    asked += [("text", source.text)] if source.text is not None and "text" in source.model_fields_set else []
    asked += [("licence_column", source.licence_column)] if source.licence_column is not None else []
    for key, name in asked:
        if name not in columns:
            hint = f"{nearest(name, columns)}it has: {', '.join(columns) or 'none'}"
            raise CurateError(f"{key}: {table.name} has no column {name!r}", hint)
    folder = table.parent.resolve()
    return [_entry(source, row, f"{table.name}#{i}", folder, base_url) for i, row in enumerate(rows, 1)]


def _entry(source: TableSource, row: Row, name: str, folder: Path, base_url: str | None) -> Entry:
    """The entry of one row; `name` is what it is called where it has no uri."""
    if isinstance(row, SourceError):
        return Entry(source.name, name, 0, None, source.licence, "{}", Broken("SourceError", str(row)))
    uri = text = licence = None
    location: Location
    try:
        uri = _string(row, source.uri)
        text = _string(row, source.text)
        licence = _string(row, source.licence_column)
        location = _locate(uri, folder, base_url)
    except SourceError as exc:
        location = Broken("SourceError", str(exc))
    rest = {key: value for key, value in row.items() if key not in (source.uri, source.text, source.licence_column)}
    return Entry(source.name, uri or name, 0, text, licence or source.licence, meta_json(rest), location)


def _string(row: Mapping[str, Any], column: str | None) -> str | None:
    value = row.get(column) if column is not None else None
    if value is None or isinstance(value, str):
        return clean(value.strip()) if value is not None else None
    raise SourceError(f"its {column} is {type(value).__name__}, not text")


def _locate(uri: str | None, folder: Path, base_url: str | None) -> Location:
    if uri is None:
        raise SourceError("its uri is empty")
    scheme = _SCHEME.match(uri)
    try:
        if scheme is None:
            return Url(urljoin(base_url.rstrip("/") + "/", uri)) if base_url is not None else _file(uri, folder)
        if scheme[1].lower() in ("http", "https"):
            return Url(uri)
        if scheme[1].lower() == "file":
            path = uri[scheme.end() :].removeprefix("localhost")
            if not path.startswith("/"):
                raise SourceError("its file:// uri names another host")
            return _file(unquote(path), folder)
    except (ValueError, OSError) as exc:  # names that no file or address can have
        raise SourceError(f"its uri is not valid: {exc}") from exc
    raise SourceError(f"its uri has the scheme {scheme[1]}, which is not read: http, https, file or a path")


def _file(name: str, folder: Path) -> LocalFile:
    path = (folder / name).resolve()
    if not Path(name).is_absolute() and not path.is_relative_to(folder):
        raise SourceError("its path leaves the folder of the table")
    if not path.is_file():
        raise SourceError("there is no such file")
    return LocalFile(str(path), path.stat().st_size)


def _read(table: Path) -> tuple[list[str], Iterable[Row]]:
    """Column names, and the rows as they come."""
    readers = {".parquet": _parquet, ".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
    reader = readers.get(table.suffix.lower())
    if reader is None:
        raise CurateError(f"{table.name}: a table is .parquet, .csv or .jsonl")
    return reader(table)


def _csv(table: Path) -> tuple[list[str], Iterable[Row]]:
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        columns = next(csv.reader(file), [])
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise CurateError(f"{table.name} has more than one column named {', '.join(twice)}")
    return columns, _csv_rows(table, columns)


def _csv_rows(table: Path, columns: list[str]) -> Iterator[Row]:
    with table.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = csv.reader(file, strict=True)
        next(rows)
        while True:
            try:
                values = next(rows)
            except StopIteration:
                return
            except csv.Error as exc:
                yield SourceError(f"line {rows.line_num} is no row of a csv: {exc}")
                continue
            if not values:
                continue  # an empty line
            if len(values) != len(columns):
                yield SourceError(f"it has {len(values)} fields, the header has {len(columns)}")
            elif not all(value.isascii() or _is_utf8(value) for value in values):
                yield SourceError("it is not UTF-8")
            else:
                yield {name: value or None for name, value in zip(columns, values, strict=True)}


def _is_utf8(value: str) -> bool:
    return not any("\udc80" <= char <= "\udcff" for char in value)


def _jsonl(table: Path) -> tuple[list[str], Iterable[Row]]:
    rows: list[Row] = []
    with table.open("rb") as file:
        for line in file:
            if not line.strip():
                continue
            try:
                rows.append(json_object(line, "it"))
            except SourceError as exc:
                rows.append(exc)
    return list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)), rows


def _parquet(table: Path) -> tuple[list[str], Iterable[Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(table)
    except (pa.ArrowException, OSError) as exc:
        raise CurateError(f"{table.name} is not a parquet file: {exc}") from exc
    bytes_like = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    columns = [f.name for f in file.schema_arrow if not any(is_type(f.type) for is_type in bytes_like)]
    return columns, _parquet_rows(file, columns, table.name)


def _parquet_rows(file: Any, columns: list[str], name: str) -> Iterator[Row]:
    import pyarrow as pa

    try:
        for batch in file.iter_batches(batch_size=_BATCH, columns=columns):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise CurateError(f"{name} cannot be read as parquet: {exc}") from exc
