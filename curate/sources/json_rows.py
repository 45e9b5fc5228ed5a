"""Rows of a JSON Lines table: an object a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from curate.schema.errors import CurateError
from curate.sources.rows import Row, check_all_given, refuse_other_than_text
from curate.sources.sidecar import SourceError, json_object


def read_jsonl(table: Path, name: str) -> tuple[list[str], Iterable[Row]]:
    """The keys of all objects, and a row for each line that is not blank.

    Lines end in LF, CR LF or CR, and in nothing else: U+2028, U+0085 and the like are text. A line that is no object is
    a row that says so.

    Raises:
        CurateError: other than UTF-8 text; one JSON array; no line that is an object.
    """
    refuse_other_than_text(table, name)
    rows: list[Row] = []
    lines, first, last = 0, b"", b""
    with table.open("rb") as file:
        for line in file:
            if line.strip():
                lines += 1
                first, last = first or line, line
                rows += _objects(line)
    first, last = first.removeprefix(b"\xef\xbb\xbf").strip(), last.strip()
    if first.startswith(b"[") and last.endswith(b"]") and (lines == 1 or not first.endswith(b"]")):
        raise CurateError(f"{name} holds one JSON array, not an object on each line", "write its objects a line each")
    columns = list(dict.fromkeys(key for row in rows if isinstance(row, dict) for key in row))
    if rows and not columns:
        raise CurateError(f"{name}: no line of it is a JSON object with a key", f"of the first: {rows[0]}")
    check_all_given(name, "lines", lines, min(lines, len(rows)))
    return columns, rows


def _objects(line: bytes) -> Iterator[Row]:
    try:
        yield json_object(line, "it")
    except SourceError as exc:
        parts = [part for part in line.split(b"\r") if part.strip()]
        if len(parts) < 2:
            yield exc
        for part in parts if len(parts) > 1 else ():  # CR alone ends lines, of which none is inside a JSON string
            yield from _objects(part)
