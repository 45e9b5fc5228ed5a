"""Tables of uris: parquet, csv or jsonl."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

from curate.schema import recipe
from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.schema.recipe import TableSource
from curate.sources.ahead import is_there, raw_file, state_of
from curate.sources.base import Source, Unit, looked, lost, readable, why
from curate.sources.csv_rows import read_csv
from curate.sources.entry import BadCell, Entry, Location, UnreadableEntry, clean, meta_json, numbered
from curate.sources.json_rows import read_jsonl
from curate.sources.locate import home_of, locate, sized
from curate.sources.parquet_rows import MOST_ROWS, ParquetTable
from curate.sources.paths import substitute
from curate.sources.rows import Opener, Row, refuse_other_than_text
from curate.sources.sidecar import MAX_BYTES, SourceError
from curate.storage import Store
from curate.storage.retry import StoreUnavailable

MAX_URI = 8192
"""Characters of a uri; longer ones no server takes."""

BLOCK = MOST_ROWS
"""Rows of a table of lines in which a uri that comes again is counted."""

_WEB_OR_BUCKET = re.compile(r"(?i:https?)://|s3://")


class Tables(Source):
    """One entry for each row of a table, in the order of the rows.

    A unit is a row group of a Parquet table, some small ones, or at most 65,536 rows of a larger one (`ParquetTable`);
    of a CSV or JSONL table, which has to be read from its beginning, the whole. Ids of rows are local to the row group,
    or to every 65,536 rows of a table of lines: the same uri may stand in another.

    The uri is as the table writes it: `http(s)://`, `s3://`, `file://`, an absolute path, or a relative one, which
    `base_url` is put before, or which starts in the table's folder and may not leave it. A table in a bucket names no
    files of this machine. Columns other than those of uri, text and licence go to `meta`, where a cell that cannot be
    read shows what can be shown of it; parquet columns of bytes are not read, but for a uri, text or licence.

    Unreadable entries come of a row that is no row, an empty uri (called `TABLE#ROW`, from 1), a uri above MAX_URI, a
    text or a `meta` above MAX_BYTES, a uri, text or licence that is not UTF-8, a scheme that is not read, a file that
    is not there and an object that cannot be asked for. A bucket that cannot be read, of every row of a unit, is an
    error.
    """

    kind = "table"

    def __init__(self, spec: recipe.TableSource, root: Path, env: Mapping[str, str]) -> None:
        super().__init__(spec, root, env)
        self._spec = spec
        self.base_url = substitute(spec.base_url, env) if spec.base_url is not None else None
        self._home, self._table = home_of(self.address), self.address.rpartition("/")[2]
        self._own = {column for column in (spec.uri, spec.text, spec.licence_column) if column is not None}

    def check(self) -> None:
        with readable(self.name):
            if not is_there(self.address):
                raise CurateError(f"source {self.name!r}: there is no table {self.address}", looked(self._spec.path))
            if self.base_url is not None and not _WEB_OR_BUCKET.match(self.base_url):
                raise CurateError(
                    f"source {self.name!r}: base_url {self._spec.base_url!r} is not http://, https:// or s3://"
                )
            size = state_of(self.address)[0]
            if self._suffix == ".parquet":
                table = ParquetTable(self.address, size, self._table, self._own)
                self._check_columns(table.names)
                if next(table.ranges(), None) is None:
                    raise self.nothing(None)
            elif self._suffix == ".csv":
                self._check_columns(read_csv(self._opener(size), self._table, self._own, self._spec.uri)[0])
            else:
                self._check_lines(size)

    def columns(self) -> list[str]:
        """The names of its columns; of a JSONL table those of its first lines. Columns of bytes are among them.

        Raises:
            CurateError: it is not there, or no table.
        """
        with readable(self.name):
            if not is_there(self.address):
                raise CurateError(f"source {self.name!r}: there is no table {self.address}", looked(self._spec.path))
            size = state_of(self.address)[0]
            if self._suffix == ".parquet":
                return ParquetTable(self.address, size, self._table, ()).names
            if self._suffix == ".csv":
                return read_csv(self._opener(size), self._table, (), self._spec.uri)[0]
            return self._first_keys(size)[0]

    def _check_lines(self, size: int) -> None:
        """A JSONL table by its first MAX_BYTES; columns other than the uri's may come later."""
        columns, is_all = self._first_keys(size)
        if is_all or columns:
            self._check_columns(columns, None if is_all else "uri")

    def _first_keys(self, size: int) -> tuple[list[str], bool]:
        """Keys of the objects in the first MAX_BYTES of a JSONL table, and whether that is all of it."""
        with self._opener(size)() as file:
            head = file.read(MAX_BYTES)
        is_all = len(head) == size
        columns: dict[str, None] = {}
        if not is_all:
            refuse_other_than_text(lambda: io.BufferedReader(io.BytesIO(head)), self._table)
            head = head[: max(head.rfind(b"\n"), head.rfind(b"\r")) + 1]
        try:
            for _ in read_jsonl(lambda: io.BufferedReader(io.BytesIO(head)), self._table, columns):
                pass
        except CurateError:
            if is_all:
                raise
        return list(columns), is_all

    def _check_columns(self, columns: Sequence[str], only: str | None = None) -> None:
        """Refuse a column that is asked for and not there."""
        spec = self._spec
        asked = [("uri", spec.uri)]
        # the default `text` is a guess, not a demand
        asked += [("text", spec.text)] if spec.text is not None and "text" in spec.model_fields_set else []
        asked += [("licence_column", spec.licence_column)] if spec.licence_column is not None else []
        for key, column in asked:
            if column not in columns and only in (None, key):
                hint = clean(f"{nearest(column, columns)}it has: {', '.join(columns) or 'none'}") or ""
                raise CurateError(f"{key}: {self._table} has no column {column!r}", hint)

    @property
    def _suffix(self) -> str:
        suffix = Path(self._table).suffix.lower()
        if suffix not in (".parquet", ".csv", ".jsonl", ".ndjson"):
            raise CurateError(f"{self._table}: a table is .parquet, .csv or .jsonl")
        return suffix

    def _opener(self, size: int) -> Opener:
        return lambda: io.BufferedReader(raw_file(self.address, size))

    def units(self, build: Store) -> Iterator[Unit]:
        with readable(self.name):
            size = state_of(self.address)[0]
            if self._suffix != ".parquet":
                yield Unit(self.name, self._table, self.address, size, {})
                return
            for some in ParquetTable(self.address, size, self._table, self._own).ranges():
                name = f"{self._table}#{some.group}" + (f"+{some.offset}" if some.offset else "")
                detail: dict[str, int | str] = {"row": some.row, "rows": some.rows, "size": size}
                yield Unit(self.name, name, self.address, some.bytes, detail)

    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        try:
            state = state_of(self.address)
            yield from sized(self._entries(unit, state[0]))
            is_same = state_of(self.address) == state
        except OSError as exc:
            yield lost(unit, self.licence, exc)
        else:
            if not is_same:
                yield self._whole(unit, "the table changed while it was read")

    def _whole(self, unit: Unit, why: str) -> Entry:
        return Entry.whole(self.name, unit.name, self.licence, "SourceError", why)

    def _entries(self, unit: Unit, size: int) -> Iterator[Entry]:
        if self._suffix == ".parquet":
            yield from self._of_range(unit, size)
            return
        columns: dict[str, None] = {}
        opener = self._opener(size)
        if self._suffix == ".csv":
            names, rows = read_csv(opener, self._table, self._own, self._spec.uri)
            self._check_columns(names)
        else:
            rows = read_jsonl(opener, self._table, columns)
        blocks = iter(rows)
        for start in count(0, BLOCK):
            some = islice(blocks, BLOCK)
            first = next(some, None)
            if first is None:
                break
            yield from numbered(self._of_rows(chain([first], some), start, f"{self._table}#{start // BLOCK}"))
        if self._suffix != ".csv":
            self._check_columns(list(columns))

    def _of_range(self, unit: Unit, size: int) -> Iterator[Entry]:
        row, rows = int(unit.detail["row"]), int(unit.detail["rows"])
        try:
            if size != int(unit.detail["size"]):
                raise SourceError("the table has changed since it was listed")
            table = ParquetTable(self.address, size, self._table, self._own)
        except (SourceError, CurateError) as exc:
            if isinstance(exc, StoreUnavailable):
                raise
            yield self._whole(unit, exc.message if isinstance(exc, CurateError) else str(exc))
            return
        given = 0
        for entry in numbered(self._of_rows(table.rows(row, rows), row, unit.name)):
            given += 1
            yield entry
        if given != rows:
            yield self._whole(unit, f"the table has changed since it was listed: {given} of {rows} rows are left")

    def _of_rows(self, rows: Iterable[Row], start: int, unit: str) -> Iterator[Entry]:
        for i, row in enumerate(rows, start + 1):
            yield _entry(self._spec, row, f"{self._table}#{i}", unit, self._home, self.base_url)

    def fingerprint(self) -> Any:
        """`base_url` as the recipe writes it: where a server runs today names no partitions."""
        fetch = self._spec.fetch.model_dump(exclude={"concurrency"})
        return [self.kind, self._spec.base_url, fetch]

    def nothing(self, said: Entry | None) -> CurateError:
        return CurateError(f"source {self.name!r}: the table {self.address} has no rows", why(said))


def _entry(source: TableSource, row: Row, name: str, unit: str, home: str, base_url: str | None) -> Entry:
    """The entry of one row; `name` is what it is called where it has no uri."""
    if isinstance(row, SourceError):
        return Entry(source.name, name, 0, None, source.licence, "{}", UnreadableEntry("SourceError", str(row)), unit)
    uri = text = licence = None
    meta = "{}"
    location: Location
    try:
        uri = _string(row, source.uri, MAX_URI)
        text = _string(row, source.text)
        licence = _string(row, source.licence_column)
        own = (source.uri, source.text, source.licence_column)
        meta = _meta({key: value for key, value in row.items() if key not in own})
        location = locate(uri, home, base_url)
    except SourceError as exc:
        location = UnreadableEntry("SourceError", str(exc))
    return Entry(source.name, uri or name, 0, text, licence or source.licence, meta, location, unit)


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
