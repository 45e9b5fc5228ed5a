"""JSON Lines: a line is a row, whatever is wrong with it, and a value that is no value takes down itself."""

from __future__ import annotations

import json

import pytest
from listed import entries_in, list_table, units_of

from curate.schema.errors import CurateError
from curate.schema.recipe import TableSource
from curate.sources import json_rows
from curate.sources.entry import Entry, UnreadableEntry
from curate.sources.listing import open_source
from curate.storage import Folder

FIRST, LAST = '{"uri": "http://h/1", "text": "one"}\n', '{"uri": "http://h/9", "text": "nine"}\n'
SOURCE = TableSource(kind="table", name="s", path="unused")


def entries_of(folder, raw: str | bytes) -> list[Entry]:
    (folder / "t.jsonl").write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return list_table(SOURCE, folder / "t.jsonl")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"uri": ', "is not JSON"),
        ('{"uri": "http://h/2", "text": "cut', "is not JSON"),
        ("[1]", "is not a JSON object"),
        ("[1,", "is not JSON"),
        ("5", "is not a JSON object"),
        ("null", "is not a JSON object"),
        ("uri", "is not JSON"),
        ("{} {}", "is not JSON"),
        ("\0\0", "is not JSON"),
        (b"\xff", "is not UTF-8"),
        (b"\xff\xfe", "is not UTF-8 but UTF-16"),
        ("[" * 100_000, "is not JSON"),
        ('{"uri": "http://h/2", "m": 1, "m": ' + "[" * 99 + "]" * 99 + "}", "nested deeper"),
        ('{"uri": 5}', "its uri is int, not text"),
        ('{"uri": "http://h/2", "uri": "http://h/3"}', "its uri is there more than once, with different values"),
        ('{"uri": "http://h/2", "text": "a", "text": "b"}', "its text is there more than once"),
        ('{"uri": "http://h/2", "text": ' + "9" * 5000 + "}", "its text has 5000 digits"),
        (b'{"uri": "http://h/\xe9"}', "its uri is not UTF-8"),
        (b'{"uri": "http://h/2", "text": "caf\xe9"}', "its text is not UTF-8"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_line_that_is_no_row_fails_alone_wherever_it_stands(tmp_path, line, says, place):
    lines = [FIRST.encode(), LAST.encode()]
    lines.insert(place, (line.encode() if isinstance(line, str) else line) + b"\n")
    entries = entries_of(tmp_path, b"".join(lines))
    assert says in entries.pop(place).location.message
    assert [(e.text, isinstance(e.location, UnreadableEntry)) for e in entries] == [("one", False), ("nine", False)]


@pytest.mark.parametrize(
    ("line", "meta"),
    [
        ('{"uri": "http://h/2", "m": [NaN, Infinity, -Infinity, 1e999]}', {"m": [None] * 4}),
        ('{"uri": "http://h/2", "m": 1, "m": 2}', {"m": 2}),
        ('{"uri": "http://h/2", "m": {"k": 1, "k": 2}}', {"m": {"k": 2}}),
        ('{"uri": "http://h/2", "uri": "http://h/2"}', {}),
        ('{"uri": "http://h/2", "m": ' + "9" * 5000 + "}", {"m": "9" * 5000}),
        ('{"uri": "http://h/2", "m": 123456789012345678901234567890}', {"m": 123456789012345678901234567890}),
        (b'{"uri": "http://h/2", "m": ["caf\xe9"], "\xe9": 1}', {"m": ["caf\ufffd"], "\ufffd": 1}),
        ('{"uri": "http://h/2",\r"m":\r1}', {"m": 1}),
        ('\ufeff{"uri": "http://h/2"}', {}),
        ('{"uri": "http://h/2", "m": "a\u2028b\u2029c\x85d"}', {"m": "a\u2028b\u2029c\x85d"}),
    ],
)
def test_a_value_that_is_odd_fails_no_row(tmp_path, line, meta):
    raw = line.encode() if isinstance(line, str) else line
    _, entry, _ = entries_of(tmp_path, FIRST.encode() + raw + b"\n" + LAST.encode())
    assert (entry.uri, json.loads(entry.meta)) == ("http://h/2", meta)
    assert not isinstance(entry.location, UnreadableEntry)


def test_half_a_surrogate_pair_in_a_text_is_replaced_and_its_row_is_read(tmp_path):
    (entry,) = entries_of(tmp_path, '{"uri": "http://h/1", "text": "half \\ud83d", "m": "\\udc80"}')
    assert (entry.text, isinstance(entry.location, UnreadableEntry)) == ("half \ufffd", False)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n", "\n  \n"])
def test_lines_may_end_in_any_of_three_ways_and_blank_ones_are_no_rows(tmp_path, end):
    entries = entries_of(tmp_path, "\ufeff" + (FIRST + LAST + FIRST).replace("\n", end))
    assert [e.text for e in entries] == ["one", "nine", "one"]


OBJECTS = [{"uri": "http://h/1"}, {"uri": "http://h/2"}]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (json.dumps(OBJECTS), "holds one JSON array, not an object on each line"),
        ("\ufeff" + json.dumps(OBJECTS, indent=2), "holds one JSON array"),
        ("[" + ",\n".join(map(json.dumps, OBJECTS)) + "]\n", "holds one JSON array"),
        (json.dumps(OBJECTS[0], indent=1), "no line of it is a JSON object"),
        ((FIRST + LAST).encode("utf-16"), "is UTF-16"),
        ((FIRST + LAST).encode("utf-16-le"), "no line of it is a JSON object"),
        (b"\x1f\x8b\x08" + bytes(20), "is compressed with gzip"),
        ("", "no column 'uri'"),
    ],
)
def test_what_is_no_json_lines_is_refused_in_a_sentence(tmp_path, raw, says):
    with pytest.raises(CurateError, match=says):
        entries_of(tmp_path, raw)


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
def test_a_line_that_is_too_long_to_be_held_fails_alone(tmp_path, monkeypatch, end):
    monkeypatch.setattr(json_rows, "LONGEST", 1 << 21)
    long = '{"uri": "http://h/2", "text": "' + "w" * (5 << 20) + '"}'
    entries = entries_of(tmp_path, FIRST + long + end + (LAST if end else ""))
    assert "larger than 1048576 bytes" in entries.pop(1).location.message
    assert [e.text for e in entries] == ["one", "nine"][: len(entries)]


def test_lines_that_end_in_cr_are_read_a_piece_at_a_time(tmp_path, monkeypatch):
    monkeypatch.setattr(json_rows, "LONGEST", 100)
    entries = entries_of(tmp_path, (FIRST + LAST).replace("\n", "\r") * 50)
    assert [e.text for e in entries] == ["one", "nine"] * 50


def test_a_large_table_is_checked_by_its_beginning_and_read_to_its_end(tmp_path, monkeypatch):
    more = '{"uri": "http://h/1", "by": "' + "Ann" * 100 + '"}\n'
    more *= 4000
    late = '{"uri": "http://h/9", "text": "nine"}\n'
    (tmp_path / "t.jsonl").write_text(more + late)
    asked = SOURCE.model_copy(update={"path": str(tmp_path / "t.jsonl")})
    source = open_source(asked, tmp_path, {})
    source.check()
    entries = entries_in(source, Folder(tmp_path), units_of(source, Folder(tmp_path)))
    assert (len(entries), entries[-1].text) == (4001, "nine")
    other = TableSource(kind="table", name="s", path=str(tmp_path / "t.jsonl"), licence_column="licence")
    source = open_source(other, tmp_path, {})
    source.check()  # the column may come late
    with pytest.raises(CurateError, match="has no column 'licence'"):
        entries_in(source, Folder(tmp_path), units_of(source, Folder(tmp_path)))
    with pytest.raises(CurateError, match="has no column 'url'"):
        open_source(asked.model_copy(update={"uri": "url"}), tmp_path, {}).check()
