"""Rows of a JSON Lines table: an object a line."""

from __future__ import annotations

import io
from collections.abc import Iterator

from curate.schema.errors import CurateError
from curate.sources.rows import Opener, Row, refuse_other_than_text
from curate.sources.sidecar import SourceError, json_object

LONGEST = 16 << 20
"""Bytes of a line that are held; a row has far fewer."""


def read_jsonl(table: Opener, name: str, columns: dict[str, None]) -> Iterator[Row]:
    """A row for each line that is not blank, as they come.

    Lines end in LF, CR LF or CR, and in nothing else: U+2028, U+0085 and the like are text. A line that is no object is
    a row that says so.

    Args:
        table: opens it.
        columns: takes the keys of the objects, in the order in which they come first.

    Raises:
        CurateError: other than UTF-8 text; and when all is read: one JSON array; no line that is an object.
    """
    refuse_other_than_text(table, name)
    lines, first, last = 0, b"", b""
    bad: SourceError | None = None
    with table() as file:
        for line in _lines(file):
            if line.strip():
                lines += 1
                first, last = first or line, line
                for row in _objects(line):
                    if isinstance(row, SourceError):
                        bad = bad or row
                    else:
                        columns.update(dict.fromkeys(row))
                    yield row
    first, last = first.removeprefix(b"\xef\xbb\xbf").strip(), last.strip()
    if first.startswith(b"[") and last.endswith(b"]") and (lines == 1 or not first.endswith(b"]")):
        raise CurateError(f"{name} holds one JSON array, not an object on each line", "write its objects a line each")
    if lines and not columns:
        raise CurateError(f"{name}: no line of it is a JSON object with a key", f"of the first: {bad or {}}")


def _lines(file: io.BufferedReader) -> Iterator[bytes]:
    """Lines that end in LF. Of those that are too long to be held, and hold no CR either, beginning and end."""
    rest = b""
    while piece := file.readline(LONGEST):
        line, rest = rest + piece, b""
        if len(piece) == LONGEST and not piece.endswith(b"\n"):
            cut = line.rfind(b"\r") + 1
            if cut:
                line, rest = line[:cut], line[cut:]
            else:
                while piece and not piece.endswith(b"\n"):
                    end, piece = piece[-8:], file.readline(LONGEST)
                line = line[:LONGEST] + (piece[-8:] or end)
        yield line
    if rest:
        yield rest


def _objects(line: bytes) -> Iterator[Row]:
    try:
        yield json_object(line, "it")
    except SourceError as exc:
        parts = [part for part in line.split(b"\r") if part.strip()]
        if len(parts) < 2:
            yield exc
        for part in parts if len(parts) > 1 else ():  # CR alone ends lines, of which none is inside a JSON string
            yield from _objects(part)
