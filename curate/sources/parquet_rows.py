"""Rows of a Parquet table, of which one bad cell takes down itself, and one bad page its own rows of its own column."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema.errors import CurateError, first_line
from curate.sources.ahead import raw_file
from curate.sources.entry import BadCell
from curate.sources.rows import Row, check_all_given
from curate.storage import is_remote

MOST_ROWS = 1 << 16
"""Rows that are read on their own; a larger row group is read in several ranges."""

FEW_ROWS = 1 << 10
"""Rows of neighbouring row groups that are read together."""

MAX_CLAIMED = 1 << 20
"""Rows that a row group may state whatever its size; that there are more is to be believed of large files (law 14)."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_BATCH = 4096
_FEW = 64
"""Rows of a batch where some of it cannot be read, and all of it fails."""


@dataclass(frozen=True)
class Range:
    """Neighbouring rows that are read together: a row group, some small ones, or a part of a large one.

    Attributes:
        group: the row group that it begins in, from 0.
        offset: rows of that row group before it.
        row: rows of the table before it.
        rows: how many there are.
        bytes: of the row groups, as they are stored; for a part its share.
    """

    group: int
    offset: int
    row: int
    rows: int
    bytes: int


class ParquetTable:
    """A Parquet table, opened: its footer is read.

    Columns of bytes are not read, but for those of `own`. A cell that is no UTF-8, or a time that Python's calendar has
    not, is a `BadCell`; so are the cells of pages that cannot be read or decrypted, or whose checksum is wrong.

    Args:
        address: of the file or object.
        size: its bytes.
        name: what messages call it.
        own: the columns of uri, text and licence.

    Raises:
        CurateError: not a Parquet file; a name of a column that is not UTF-8; a column of `own` that is there twice;
            row groups whose rows are not those of the table; one that states fewer rows than values of a column of
            `own`, or more than the file has bytes.
        FileNotFoundError: it is gone.
    """

    def __init__(self, address: str, size: int, name: str, own: Collection[str]) -> None:
        self._address, self._size, self._name = address, size, name
        try:
            self._file = self._open()
            fields = list(self._file.schema_arrow)
            self.names = [field.name for field in fields]
        except UnicodeDecodeError as exc:
            raise CurateError(f"{name}: the name of one of its columns is not UTF-8") from exc
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as exc:
            raise CurateError(f"{name} is not a parquet file: {exc}") from exc
        twice = sorted(column for column in own if self.names.count(column) > 1)
        if twice:
            raise CurateError(f"{name} has more than one column named {', '.join(twice)}")
        are_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
        left = {field.name for field in fields if any(are(field.type) for are in are_bytes)} - set(own)
        self._wanted = [column for column in dict.fromkeys(self.names) if column not in left]
        footer = self._file.metadata
        self._groups = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
        check_all_given(name, "rows", footer.num_rows, sum(self._groups))
        for i, rows in enumerate(self._groups, 1):
            if rows < 0 or rows > max(MAX_CLAIMED, size):
                raise CurateError(f"{name}: its row group {i} states {rows} rows, and the file has {size} bytes")
            for j in range(footer.num_columns):
                cells = footer.row_group(i - 1).column(j)
                is_asked = cells.path_in_schema in own and footer.schema.column(j).max_repetition_level == 0
                if is_asked and cells.num_values > rows:
                    raise CurateError(
                        f"{name}: its row group {i} states {rows} rows, and {cells.num_values} of "
                        f"{cells.path_in_schema}: nothing is read of it"
                    )

    def ranges(self) -> Iterator[Range]:
        """All rows, in order: a range for each row group, but for those of few rows and of many.

        Pages have no index that Arrow reads by: for a part of a row group what is before it is decoded as well, and of
        an object all of the columns that are wanted is fetched. Beside the media that rows name this is little.
        """
        small: Range | None = None
        row = 0
        for group, rows in enumerate(self._groups):
            size = sum(self._file.metadata.row_group(group).column(i).total_compressed_size for i in self._columns)
            if small is not None and small.rows + rows > FEW_ROWS:
                yield small
                small = None
            if small is not None:
                small = replace(small, rows=small.rows + rows, bytes=small.bytes + size)
            elif rows <= FEW_ROWS:
                small = Range(group, 0, row, rows, size) if rows else None
            else:
                for start in range(0, rows, MOST_ROWS):
                    some = min(MOST_ROWS, rows - start)
                    yield Range(group, start, row + start, some, size * some // rows)
            row += rows
        if small is not None:
            yield small

    @property
    def _columns(self) -> range:
        return range(self._file.metadata.num_columns)

    def rows(self, start: int, count: int) -> Iterator[Row]:
        """`count` rows from `start` on; fewer where there are no more.

        Those of a row group that ends before it should are rows of bad cells.
        """
        before = 0
        for group, rows in enumerate(self._groups):
            first, last = max(0, start - before), min(rows, start + count - before)
            if first < last:
                yield from self._rows(group, first, last)
            before += rows

    def _rows(self, group: int, first: int, last: int) -> Iterator[Row]:
        """Rows of a row group, batch by batch; from the first batch that cannot be read, column by column."""
        columns = self._wanted
        given, seen = first, 0
        batches = self._file.iter_batches(_BATCH, row_groups=[group], columns=columns)
        while given < last:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError):
                break  # what is wrong, and with which column, is found below
            if batch is None:
                break
            seen += batch.num_rows
            if seen <= given:
                continue
            batch = batch.slice(given - seen + batch.num_rows, last - given)
            by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
            for cells in zip(*(_values(by_name[column]) for column in columns), strict=True):
                given += 1
                yield dict(zip(columns, cells, strict=True))
        if given < last:
            alone = [self._column(group, column, given, last) for column in columns]
            for cells in zip(*alone, strict=True):
                yield dict(zip(columns, cells, strict=True))

    def _column(self, group: int, column: str, start: int, stop: int) -> Iterator[Any]:
        """Cells `start` to `stop` of a column of a row group; those that cannot be read are bad ones."""
        why = "its row group ends before it"
        is_dictionary = "dictionary<" in str(self._file.schema_arrow.field(column).type)
        for one in (self._file, self._open_as_stored()) if is_dictionary else (self._file,):
            seen = 0
            try:
                for batch in one.iter_batches(_FEW, row_groups=[group], columns=[column]):
                    seen += batch.num_rows
                    skip = start - seen + batch.num_rows
                    if skip < batch.num_rows:
                        for cell in _values(batch.column(column).slice(skip, stop - start)):
                            start += 1
                            yield cell
                    if start >= stop:
                        return
            except (pa.ArrowException, OSError) as exc:
                why = _UNPRINTABLE.sub("?", first_line(exc).replace(self._address, self._name))
        for _ in range(start, stop):
            yield BadCell(f"<cannot be read: {why}>", f"cannot be read: {why}")

    def _open(self, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
        """Of an object the footer is read, and each row group's columns that are wanted, by as few ranges as can be."""
        is_object = is_remote(self._address)
        where = pa.PythonFile(raw_file(self._address, self._size, 0), "r") if is_object else self._address
        return pq.ParquetFile(where, metadata=metadata, page_checksum_verification=True, pre_buffer=is_object)

    def _open_as_stored(self) -> pq.ParquetFile:
        """The file without the Arrow schema that its writer left beside Parquet's own.

        With it, Arrow makes a column of strings a dictionary again, for which all of it has to be UTF-8.
        """
        with raw_file(self._address, self._size) as file:
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")
            file.seek(-8 - length, 2)
            footer = (io.BufferedReader(file).read()).replace(b"ARROW:schema", b"ARROW-schema")
        return self._open(pq.read_metadata(pa.BufferReader(b"PAR1" + footer)))


def _values(cells: pa.Array) -> list[Any]:
    try:
        return cells.to_pylist()  # type: ignore[no-any-return]
    except Exception:  # of many classes: UnicodeDecodeError, OverflowError, ArrowInvalid, those of time zones
        return [_value(cell) for cell in cells]


def _value(cell: pa.Scalar) -> Any:
    """What Arrow says of one cell, with bad ones in the places that Python has no value for."""
    try:
        return cell.as_py()
    except Exception as exc:
        if isinstance(cell, pa.DictionaryScalar):
            return _value(cell.dictionary[cell.index.as_py()])
        if isinstance(cell, pa.ExtensionScalar):
            return _value(cell.value)
        if isinstance(cell, pa.StructScalar):
            return {name: _value(cell[i]) for i, name in enumerate(cell)}
        if isinstance(cell, pa.MapScalar):
            return [[_value(pair[0]), _value(pair[1])] for pair in cell.values]
        if isinstance(cell, pa.ListScalar):
            return [_value(item) for item in cell.values]
        if isinstance(cell, pa.BinaryScalar):
            return BadCell(cell.as_buffer().to_pybytes().decode("utf-8", "replace"), "is not UTF-8")
        return BadCell(_shown(cell), f"is {cell.type}, not text: {first_line(exc)}")


def _shown(cell: pa.Scalar) -> str | None:
    """A time that Python has no value for: a date as ISO 8601 and RFC 9557 write it, in years of any number of digits;
    another as its number."""
    number = getattr(cell, "value", None)
    if pa.types.is_timestamp(cell.type):
        at = str(np.datetime64(number, cell.type.unit))
        return f"{at}Z[{cell.type.tz}]" if cell.type.tz else at
    if pa.types.is_date32(cell.type):
        return str(np.datetime64(number, "D"))
    return None if number is None else f"{number} ({cell.type})"
