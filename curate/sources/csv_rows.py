"""Rows of a CSV table (RFC 4180), of which no line is lost to a stray quote.

A quote that opens a field and is not closed on its line makes all that follows part of the field, up to the next quote
or the end of the file. Quoted line breaks are legitimate, so lines tell which it is: those that have, each on its own,
as many fields as the header and such a uri as other rows have, look like rows.

| a field runs over several lines | outcome |
| --- | --- |
| and ends as RFC 4180 says; no line after the first looks like a row, or one of several does | it is one row |
| it does so; most lines, two at least, look like rows | the first line fails; the others are read each on its own |
| it does so; the one line looks like a row, or half of them or fewer do | each of the lines fails |
| it breaks RFC 4180 or has another number of fields; most lines look like rows | as with most lines above |
| the same, and the last line opens a quote | the lines before it fail together; the last is read on |
| the same otherwise | one failure, which names the lines |

Where a table has many fields whose lines look like rows, and all of it is byte by byte what a writer that knows RFC
4180 writes, it is read as that has it; see `_is_well_written`.
"""

from __future__ import annotations

import csv
import io
import re
from collections import deque
from collections.abc import Collection, Iterator
from typing import Any, Literal, TextIO

from curate.schema.errors import CurateError
from curate.sources.entry import BadCell, replaced
from curate.sources.rows import Opener, Row, check_all_given, refuse_other_than_text
from curate.sources.sidecar import SourceError

LONGEST = 16 << 20
"""Characters of a row. A quote that nothing closes within them is stray; what is held of a table is bounded."""

_KNOWN = 256
"""Rows that say what a uri of the table looks like."""

_MANY = 8
"""From which on it is no chance: of lines that nearly all begin with a single word, where uris are single words; of
fields whose quotes are as they should be."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,5}$")
_OPENS = re.compile(r'(?:^|,)"(?![",\r\n]|$)')
_WORD = "word"


def read_csv(table: Opener, name: str, own: Collection[str], uri: str) -> tuple[list[str], Iterator[Row]]:
    """The names of the header, and the rows as they come; empty cells are None, blank lines are no rows. Of columns of
    one name, such as those without one that spreadsheets leave at the end, the last is read.

    Args:
        table: opens it: UTF-8, with or without a byte order mark; lines end in LF, CR LF or CR.
        name: what messages call it.
        own: columns whose bytes must be UTF-8, or the row cannot be read. Other cells are `BadCell` where they are not.
        uri: the column of uris.

    Raises:
        CurateError: other than UTF-8 text; a header that is none, or has a column of `own` twice.
    """
    csv.field_size_limit(LONGEST)  # of this process
    refuse_other_than_text(table, name)
    with _opened(table) as file:
        columns = _header(_Records(file), name)
    twice = sorted(column for column in own if columns.count(column) > 1)
    if twice:
        raise CurateError(f"{name} has more than one column named {', '.join(twice)}")
    return columns, _rows(table, name, columns, own, uri)


def _opened(table: Opener) -> TextIO:
    return io.TextIOWrapper(table(), encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Records:
    """Records of a CSV with the physical lines that each is made of, of which some can be given back."""

    def __init__(self, file: Iterator[str]) -> None:
        self._file = file
        self._again: deque[str] = deque()
        self._single = 0  # so many of them are records of one line
        self._is_single = False
        self._size = 0  # characters of `lines`
        self._reader = csv.reader(self, strict=True)
        self.lines: list[str] = []
        self.before = 0  # lines before these
        self.read = 0  # lines of the file
        self.is_cut = False  # whether the lines ended inside a field

    def record(self) -> list[str]:
        """The fields of the next record, no fields for a blank line.

        Raises:
            StopIteration: there is none.
            csv.Error: its lines are no record.
        """
        self.before += len(self.lines)
        self.lines = []
        self.is_cut = False
        return next(self._reader)

    def unread(self, keep: int) -> None:
        """The lines after the first `keep` are read again, all as records of one line but for that which ended it."""
        rest = self.lines[keep:]
        self._again.extendleft(reversed(rest))
        self._single = len(rest) - (not self.is_cut)
        self.lines = self.lines[:keep]

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        """For the reader, which asks for one more line where a field is open at the end of the last."""
        if not self.lines:
            self._is_single = self._single > 0
            self._single -= self._is_single
            self._size = 0
        elif self._is_single or self._size > LONGEST:
            self.is_cut = True
            raise StopIteration
        try:
            line = self._again.popleft() if self._again else self._from_file()
        except StopIteration:
            self.is_cut = bool(self.lines)
            raise
        self.lines.append(line)
        self._size += len(line)
        return line

    def _from_file(self) -> str:
        line = next(self._file)
        self.read += 1
        return line


def _header(records: _Records, name: str) -> list[str]:
    """The first line that is not blank."""
    try:
        while not (columns := records.record()):
            continue
    except StopIteration:
        return []
    except csv.Error as exc:
        raise CurateError(f"{name}: its header is none of a csv: {exc}") from exc
    if any(len(_fields(line)) == len(columns) > 1 for line in records.lines[1:]):
        raise CurateError(f"{name}: its header opens a quote that is not closed on its line")
    if any("\0" in column for column in columns):
        raise CurateError(f"{name}: its header holds zero bytes, which no text has", "is it UTF-16? write it as UTF-8")
    return [replaced(column) for column in columns]


def _rows(table: Opener, name: str, columns: list[str], own: Collection[str], uri: str) -> Iterator[Row]:
    looks = _Looks(len(columns), columns.index(uri))
    is_trusted: bool | None = None  # not known before it matters
    with _opened(table) as file:
        records = _Records(file)
        _header(records, name)
        accounted = records.before + len(records.lines)
        while True:
            values: list[str] = []
            problem = ""
            try:
                values = records.record()
            except StopIteration:
                break
            except csv.Error as exc:
                problem = str(exc)
            if values and len(values) != len(columns):
                problem = f"it has {len(values)} fields, the header has {len(columns)}"
            if len(records.lines) > 1:
                if not problem and is_trusted is None and looks.rows(records.lines):
                    is_trusted = _is_well_written(table, name, columns, uri)
                problems = [] if not problem and is_trusted else looks.settle(records, problem)
            elif problem and not values:
                problems = [f"line {records.before + 1} is no row of a csv: {problem}"]
            else:
                problems = [problem] if problem else []
            accounted += len(records.lines)
            yield from map(SourceError, problems)
            if values and not problems:
                looks.learn(values)
                yield _row(columns, values, own)
        check_all_given(name, "lines", records.read, accounted)


def _is_well_written(table: Opener, name: str, columns: list[str], uri: str) -> bool:
    """True if a table whose fields have lines that look like rows is to be read as RFC 4180 has it nevertheless.

    Two stray quotes of which one opens a field and the next one ends another make a field too. But stray quotes do not
    take turns time after time; and what writes them doubles none inside a field, quotes no line break, and leaves other
    quotes bare. So: every record is what `csv.writer` makes of its fields, which are as many as in the header; and
    _MANY times a record that has lines like rows comes after one that has others, or doubled quotes.
    """
    looks = _Looks(len(columns), columns.index(uri))
    styles: list[Literal[0, 1]] = [csv.QUOTE_MINIMAL, csv.QUOTE_ALL]
    times, is_proven = 0, False
    with _opened(table) as file:
        records = _Records(file)
        _header(records, name)
        while styles:
            try:
                values = records.record()
            except StopIteration:
                return times >= _MANY
            except csv.Error:
                return False
            if not values:
                continue
            if len(values) != len(columns):
                return False
            raw = "".join(records.lines).rstrip("\r\n")
            styles = [style for style in styles if _written(values, style) == raw]
            if len(records.lines) > 1 and looks.rows(records.lines):
                times += is_proven
                is_proven = False
            else:
                is_proven |= len(records.lines) > 1 or any('"' in value for value in values)
                looks.learn(values)
    return False


def _written(values: list[str], style: Literal[0, 1]) -> str:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=style).writerow(values)
    return out.getvalue().rstrip("\r\n")


def _row(columns: list[str], values: list[str], own: Collection[str]) -> Row:
    if all(map(str.isascii, values)):
        return {name: value or None for name, value in zip(columns, values, strict=True)}
    row: dict[str, Any] = {}
    for name, value in zip(columns, values, strict=True):
        shown = replaced(value)
        if shown != value and name in own:
            return SourceError("it is not UTF-8")
        row[name] = BadCell(shown, "is not UTF-8") if shown != value else shown or None
    return row


class _Looks:
    """What rows of one table look like, line by line."""

    def __init__(self, width: int, uri: int) -> None:
        self._width, self._uri = width, uri
        self._kinds: set[str] = set()
        self._known = 0

    def learn(self, values: list[str]) -> None:
        """A good row."""
        if self._known < _KNOWN:
            self._known += 1
            self._kinds.add(_kind(values[self._uri]))

    def settle(self, records: _Records, problem: str) -> list[str]:
        """What is wrong with a record of several lines, nothing where it is a row; gives lines back as the table above.

        Args:
            problem: what RFC 4180 has against it, or the header.
        """
        lines, first = records.lines, records.before + 1
        rest = len(lines) - 1
        rows = self.rows(lines, bool(problem), records.is_cut)
        if not problem and (rows == 0 or (rows == 1 and rest > 1)):
            return []
        if 2 * rows > rest and (problem or rest > 1):
            records.unread(1)
            return [
                f"line {first} is no row of a csv: a quote is opened in it, and closed nowhere before the next rows"
            ]
        if not problem:
            these = f"lines {first} to {first + rest} are one row or several"
            return [
                f"line {first + i} may be a row or part of one: {these}, by its quotes or by itself"
                for i in range(rest + 1)
            ]
        if not records.is_cut and _OPENS.search(lines[-1]):
            records.unread(rest)
            rest -= 1
            problem = "a quote is opened in the first and not closed before another is opened"
        return [f"lines {first} to {first + rest} are no row of a csv: {problem}"]

    def rows(self, lines: list[str], is_broken: bool = False, is_cut: bool = False) -> int:
        """How many lines after the first look like rows.

        The last line of a record that RFC 4180 has nothing against may look like one for the record's own uri, where
        that comes after the field of several lines. It counts where the first line looks like a row too, but for its
        quote.
        """
        fields = _fields(lines[0])
        opener = self._kind_of(fields[:-1] + fields[-1].split(","))
        own = _kind(fields[self._uri]) if self._uri < len(fields) - 1 else opener
        known = self._kinds or {own} - {""}
        among = lines[1:] if is_broken or (opener and opener in known) else lines[1:-1]
        wide = (line for line in among if self._width - 1 <= line.count(",") and len(line) <= LONGEST)
        kinds = [self._kind_of(_fields(line)) for line in wide]
        is_guess = not known
        known = (known or set(kinds)) - {""}
        rows = sum(kind in known for kind in kinds)
        if is_cut or (10 * rows >= 9 * len(among) and (is_guess or rows >= _MANY)):
            return rows
        return 0 if is_guess else sum(kind in known - {_WORD} for kind in kinds)

    def _kind_of(self, fields: list[str]) -> str:
        return _kind(fields[self._uri]) if len(fields) == self._width else ""


def _fields(line: str) -> list[str]:
    """Fields of one line alone, whatever its quotes; the last one runs to the line's end where it is not closed."""
    return next(csv.reader([line]), [])


def _kind(uri: str) -> str:
    """What sort of a uri it is: its scheme, its suffix, a path, a number of some length, or a word; prose is ''."""
    uri = uri.strip()
    found = _SCHEME.match(uri) or _SUFFIX.search(uri)
    if found:
        return found[0].lower()
    if not uri or any(map(str.isspace, uri)):
        return ""
    return "/" if "/" in uri else f"number of {len(uri)}" if any(map(str.isdigit, uri)) else _WORD
