"""What the readers of tables have in common: rows, and that each row of a table is given."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from curate.schema.errors import CurateError
from curate.sources.sidecar import SourceError

Row = dict[str, Any] | SourceError
"""A row of a table, of whose cells some may be `BadCell`, or why it cannot be read."""

Opener = Callable[[], io.BufferedReader]
"""Opens a table to be read from its beginning."""

_UTF16 = "UTF-16 or UTF-32"
_OTHER = {
    b"\xff\xfe": _UTF16,
    b"\xfe\xff": _UTF16,
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"PK\x03\x04": "a zip archive or a spreadsheet",
    b"PAR1": "parquet",
}


def refuse_other_than_text(table: Opener, name: str) -> None:
    """Refuses what begins as another format does. Each such beginning holds bytes that UTF-8 has not, or that no text
    of lines begins with; a byte order mark of UTF-16 alone may also be one bad line, so a zero byte has to follow it.

    Raises:
        CurateError: the table is UTF-16, compressed, an archive or Parquet.
    """
    with table() as file:
        head = file.read(64)
    for magic, what in _OTHER.items():
        if head.startswith(magic) and (what != _UTF16 or b"\0" in head):
            raise CurateError(
                f"{name} is {what}, not UTF-8 text",
                "write it as plain UTF-8; a Parquet table has to be called .parquet",
            )


def check_all_given(name: str, what: str, held: int, given: int) -> None:
    """The last word of each reader: the table's own count of rows or lines, against those that it gave (law 1).

    Raises:
        CurateError: the counts differ.
    """
    if held != given:
        raise CurateError(f"{name} states {held} {what}, and {given} are accounted for: nothing is read of it")
