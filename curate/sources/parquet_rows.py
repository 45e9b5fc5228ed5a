"""Rows of a Parquet table, of which one bad cell takes down itself, and one bad page its own rows of its own column."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from curate.schema.errors import CurateError, first_line
from curate.sources.entry import BadCell
from curate.sources.rows import Row, check_all_given

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_UNREAD = 1 << 20
"""Rows of one row group of which nothing can be read: that there are so many is the file's own claim (law 14)."""

_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
_BATCH = 4096
_FEW = 64
"""Rows of a batch where some of it cannot be read, and all of it fails."""


def read_parquet(table: Path, name: str, own: Collection[str]) -> tuple[list[str], Iterator[Row]]:
    """The names of all columns, and the rows as they come.

    Columns of bytes are not read, but for those of `own`. A cell that is no UTF-8, or a time that Python's calendar has
    not, is a `BadCell`; so are the cells of pages that cannot be read or decrypted, or whose checksum is wrong.

    Args:
        own: the columns of uri, text and licence.

    Raises:
        CurateError: not a Parquet file; a name of a column that is not UTF-8; a column of `own` that is there twice;
            more than MAX_UNREAD rows of a row group, or rows of none, that cannot be read.
    """
    import pyarrow as pa

    try:
        file = _open(table)
        fields = list(file.schema_arrow)
        names = [field.name for field in fields]
    except UnicodeDecodeError as exc:
        raise CurateError(f"{name}: the name of one of its columns is not UTF-8") from exc
    except (pa.ArrowException, OSError) as exc:
        raise CurateError(f"{name} is not a parquet file: {exc}") from exc
    twice = sorted(column for column in own if names.count(column) > 1)
    if twice:
        raise CurateError(f"{name} has more than one column named {', '.join(twice)}")
    are_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    left = {field.name for field in fields if any(are(field.type) for are in are_bytes)} - set(own)
    wanted = [column for column in dict.fromkeys(names) if column not in left]
    return names, _rows(table, file, wanted, name)


def _open(table: Path, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    import pyarrow.parquet as pq

    return pq.ParquetFile(table, metadata=metadata, page_checksum_verification=True)


def _open_as_stored(table: Path) -> pq.ParquetFile:
    """The file without the Arrow schema that its writer left beside Parquet's own.

    With it, Arrow makes a column of strings a dictionary again, for which all of it has to be UTF-8.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with table.open("rb") as file:
        file.seek(-8, 2)
        length = int.from_bytes(file.read(4), "little")
        file.seek(-8 - length, 2)
        footer = file.read().replace(b"ARROW:schema", b"ARROW-schema")
    return _open(table, pq.read_metadata(pa.BufferReader(b"PAR1" + footer)))


def _rows(table: Path, file: pq.ParquetFile, columns: list[str], name: str) -> Iterator[Row]:
    """Row groups batch by batch; from the first batch that cannot be read, column by column."""
    import pyarrow as pa

    total = 0
    for group in range(file.num_row_groups):
        rows, given = file.metadata.row_group(group).num_rows, 0
        batches = file.iter_batches(_BATCH, row_groups=[group], columns=columns)
        while True:
            try:
                batch = next(batches, None)
            except (pa.ArrowException, OSError):
                break  # what is wrong, and with which column, is found below
            if batch is None:
                break
            by_name = dict(zip(batch.schema.names, batch.columns, strict=True))
            for cells in zip(*(_values(by_name[column]) for column in columns), strict=True):
                given += 1
                yield dict(zip(columns, cells, strict=True))
        alone = [_column(table, file, group, column, given, rows) for column in columns] if given < rows else []
        unread = 0
        for cells in zip(*alone, strict=True):
            given += 1
            unread += all(isinstance(cell, BadCell) for cell in cells)
            if unread > MAX_UNREAD:
                raise CurateError(f"{name}: of {rows} rows of its row group {group + 1} most cannot be read")
            yield dict(zip(columns, cells, strict=True))
        total += given
    check_all_given(name, "rows", file.metadata.num_rows, total)


def _column(table: Path, file: pq.ParquetFile, group: int, column: str, start: int, stop: int) -> Iterator[Any]:
    """Cells `start` to `stop` of a column of a row group; those that cannot be read are bad ones."""
    import pyarrow as pa

    why = "its row group ends before it"
    is_dictionary = "dictionary<" in str(file.schema_arrow.field(column).type)
    for one in (file, _open_as_stored(table)) if is_dictionary else (file,):
        try:
            batches = one.iter_batches(_FEW, row_groups=[group], columns=[column])
            cells = chain.from_iterable(_values(batch.column(column)) for batch in batches)
            for cell in islice(cells, start, stop):
                start += 1
                yield cell
        except (pa.ArrowException, OSError) as exc:
            why = _UNPRINTABLE.sub("?", first_line(exc).replace(str(table), table.name))
    for _ in range(start, stop):
        yield BadCell(f"<cannot be read: {why}>", f"cannot be read: {why}")


def _values(cells: pa.Array) -> list[Any]:
    try:
        return cells.to_pylist()  # type: ignore[no-any-return]
    except Exception:  # of many classes: UnicodeDecodeError, OverflowError, ArrowInvalid, those of time zones
        return [_value(cell) for cell in cells]


def _value(cell: pa.Scalar) -> Any:
    """What Arrow says of one cell, with bad ones in the places that Python has no value for."""
    import pyarrow as pa

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
    import pyarrow as pa

    number = getattr(cell, "value", None)
    if pa.types.is_timestamp(cell.type):
        at = str(np.datetime64(number, cell.type.unit))
        return f"{at}Z[{cell.type.tz}]" if cell.type.tz else at
    if pa.types.is_date32(cell.type):
        return str(np.datetime64(number, "D"))
    return None if number is None else f"{number} ({cell.type})"
