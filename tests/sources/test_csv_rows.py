"""CSV after RFC 4180, and what becomes of lines around a stray quote: each is in some entry."""

from __future__ import annotations

import csv
import gzip
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from listed import list_table

from curate.schema.errors import CurateError
from curate.schema.recipe import TableSource
from curate.sources.csv_rows import LONGEST
from curate.sources.entry import Entry, UnreadableEntry

ROWS = 200


def entries_of(folder: Path, raw: str | bytes, **more) -> list[Entry]:
    (folder / "t.csv").write_bytes(raw.encode() if isinstance(raw, str) else raw)
    source = TableSource.model_validate({"kind": "table", "name": "s", "path": "unused", **more})
    return list_table(source, folder / "t.csv")


def table(changed: dict[int, str], row: str = "http://h/{i}.jpg,caption {i}", header: str = "uri,text") -> str:
    return "\n".join([header] + [changed.get(i, row.format(i=i)) for i in range(ROWS)]) + "\n"


def failed(entries: list[Entry]) -> list[str]:
    return [e.location.message for e in entries if isinstance(e.location, UnreadableEntry)]


CAPTIONS_FIRST = {"row": "caption {i},http://h/{i}.jpg", "header": "text,uri"}
THREE = {"row": "http://h/{i}.jpg,caption {i},Ann", "header": "uri,text,by"}
NUMBERS = {"row": "{i:06},caption {i}"}
WORDS = {"row": "dog,caption {i}"}
ALL_QUOTED = {"row": '"http://h/{i}.jpg","caption {i}"'}


@pytest.mark.parametrize(
    ("changed", "more", "lost"),
    [
        ({100: 'http://h/100.jpg,"5 inch'}, {}, [100]),
        ({0: 'http://h/0.jpg,"5 inch'}, {}, [0]),
        ({ROWS - 1: 'http://h/199.jpg,"5 inch'}, {}, [ROWS - 1]),
        ({ROWS - 2: 'http://h/198.jpg,"5 inch'}, {}, [ROWS - 2]),
        ({100: '"'}, {}, [100]),
        ({100: '"http://h/100.jpg,5 inch'}, {}, [100]),
        # closed by another stray quote, 50 rows on: at the end of a field, where it begins, and inside
        ({100: 'http://h/100.jpg,"5 inch', 150: 'http://h/150.jpg,7"'}, {}, [100]),
        ({100: 'http://h/100.jpg,"5 inch', 150: 'http://h/150.jpg,"7 inch'}, {}, [100, 150]),
        ({100: 'http://h/100.jpg,"5 inch', 150: 'http://h/150.jpg,a "big" cat'}, {}, [100]),
        ({100: 'http://h/100.jpg,"5 inch', 102: 'http://h/102.jpg,7"'}, {}, [100]),
        ({0: 'http://h/0.jpg,"5 inch', 50: 'http://h/50.jpg,7"'}, {}, [0]),
        # rows that are quoted, of one line and of two, go on
        ({100: 'http://h/100.jpg,"5 inch', 101: 'http://h/101.jpg,"a, b"'}, {}, [100]),
        ({100: 'http://h/100.jpg,"5 inch', 103: 'http://h/103.jpg,"a,\nb"'}, {}, [100]),
        ({100: 'http://h/100.jpg,"5 inch', 101: 'http://h/101.jpg,"a,\nb"'}, {}, [100]),
        # other tables
        ({100: '"5 inch,http://h/100.jpg'}, CAPTIONS_FIRST, [100]),
        ({0: '"5 inch,http://h/0.jpg'}, CAPTIONS_FIRST, [0]),
        ({100: '"5 inch,http://h/100.jpg', 150: '7",http://h/150.jpg'}, CAPTIONS_FIRST, [100]),
        ({100: '"5 inch,http://h/100.jpg', 102: '7",http://h/102.jpg'}, CAPTIONS_FIRST, [100]),
        ({100: 'http://h/100.jpg,"5 inch, wide', 150: 'http://h/150.jpg,7"'}, {}, [100]),
        ({100: 'http://h/100.jpg,"5 inch,Ann', 150: 'http://h/150.jpg,7",Bob'}, THREE, [100]),
        ({100: '000100,"5 inch', 150: '000150,7"'}, NUMBERS, [100]),
        ({100: 'dog,"5 inch', 150: 'cat,7"'}, WORDS, [100]),
        ({100: '"http://h/100.jpg","5 inch'}, ALL_QUOTED, [100]),
        ({100: '"http://h/100.jpg","5" pipe"'}, ALL_QUOTED, [100]),
    ],
)
def test_a_stray_quote_fails_its_own_line_and_every_other_row_is_there(tmp_path, changed, more, lost):
    whole, broken = (entries_of(tmp_path, table(some, **more), base_url=None) for some in ({}, changed))
    assert len(broken) == ROWS
    assert [i for i, e in enumerate(broken) if "is no row of a csv" in getattr(e.location, "message", "")] == lost
    same = [i for i in range(ROWS) if i not in changed]
    assert [replace(broken[i], ordinal=0) for i in same] == [replace(whole[i], ordinal=0) for i in same]
    assert f"line {lost[0] + 2} is no row" in broken[lost[0]].location.message


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_may_end_in_any_of_three_ways(tmp_path, end):
    raw = table({100: 'http://h/100.jpg,"5 inch'}).replace("\n", end)
    entries = entries_of(tmp_path, raw)
    assert (len(entries), len(failed(entries)), entries[-1].text) == (ROWS, 1, "caption 199")


def test_where_the_next_line_may_be_caption_or_row_each_fails_and_says_which_lines_they_are(tmp_path):
    entries = entries_of(tmp_path, table({100: 'http://h/100.jpg,"see', 101: 'http://h/101.jpg,here"'}))
    assert len(entries) == ROWS
    assert [re.findall(r"\d+", message) for message in failed(entries)] == [
        ["102", "102", "103"],
        ["103", "102", "103"],
    ]


CAPTIONS = [
    "A cat, asleep.\nOn a mat, warm.\nAt noon, still.",
    "Warm, cosy\nsalt, pepper\nred, blue\n",
    'A "quoted" word,\n""two"" lines\r\nand "3',
    "He wrote:\nhttp://h/7.jpg,caption\nand left",
    "\n\n,\n,,\n",
    "Costs\n$3.50, cheap",
    '",\n"',
    "one\rtwo, three\r\nfour",
]


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("first", ["uri", "text"])
def test_captions_of_several_lines_are_read_as_rfc_4180_has_them(tmp_path, caption, quoting, first):
    rows = [{"uri": f"http://h/{i}.jpg", "text": caption if i % 3 else "plain"} for i in range(9)]
    file = io.StringIO()
    writer = csv.DictWriter(file, ["uri", "text"] if first == "uri" else ["text", "uri"], quoting=quoting)
    writer.writeheader()
    writer.writerows(rows)
    entries = entries_of(tmp_path, file.getvalue())
    assert [(e.uri, e.text) for e in entries] == [(row["uri"], row["text"].strip()) for row in rows]


LIKE_ROWS = [
    "A list:\nhttp://h/1.jpg,one",
    "csv:\nuri,text\nhttp://h/1.jpg,one\nhttp://h/2.jpg,two\nend",
    'A "b"\n',
    "c",
]


@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_that_is_well_written_throughout_is_read_whatever_its_captions_look_like(tmp_path, quoting, end):
    file = io.StringIO()
    rows = [[f"http://h/{i}.jpg", LIKE_ROWS[i % 4]] for i in range(60)]
    csv.writer(file, quoting=quoting, lineterminator=end).writerows([["uri", "text"], *rows])
    assert [[e.uri, e.text] for e in entries_of(tmp_path, file.getvalue())] == [[u, t.strip()] for u, t in rows]
    # once a quote is left open or bare, or a row is broken, nothing is trusted
    for line in ('http://h/99.jpg,"5 inch', 'http://h/99.jpg,5"', "http://h/99.jpg"):
        assert len(failed(entries_of(tmp_path, file.getvalue() + line + end))) > 15


@pytest.mark.parametrize("pairs", [3, 20])
@pytest.mark.parametrize("apart", [3, 6])
@pytest.mark.parametrize("quoted", [0, 15])
def test_pairs_of_stray_quotes_take_no_rows_however_many_there_are(tmp_path, pairs, apart, quoted):
    changed = {i: f'http://h/{i}.jpg,"a, ""b"" {i}"' for i in range(quoted)}
    for i in range(20, 20 + 8 * pairs, 8):
        changed |= {i: f'http://h/{i}.jpg,"5 inch', i + apart: f'http://h/{i + apart}.jpg,7"'}
    entries = entries_of(tmp_path, table(changed))
    assert len(entries) == ROWS
    assert [e.uri for e in entries if not isinstance(e.location, UnreadableEntry)] == [
        f"http://h/{i}.jpg" for i in range(ROWS) if changed.get(i, "")[-6:] != "5 inch"
    ]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1e"])
def test_what_only_some_readers_take_for_a_line_end_is_text(tmp_path, mark):
    (entry,) = entries_of(tmp_path, f"uri,text\nhttp://h/1,a{mark}b\n")
    assert entry.text == f"a{mark}b"


def test_blank_lines_are_no_rows_before_the_header_and_after_it(tmp_path):
    entries = entries_of(tmp_path, "\n\r\nuri,text\n\nhttp://h/1,one\n\n\nhttp://h/2,two\n\n")
    assert [e.uri for e in entries] == ["http://h/1", "http://h/2"]


def test_fields_too_many_or_too_few_fail_their_row_alone(tmp_path):
    entries = entries_of(tmp_path, table({5: "http://h/5.jpg", 6: "http://h/6.jpg,a,b", 7: "   ", 8: '"a\nb",c,d'}))
    assert len(entries) == ROWS
    assert failed(entries) == [
        "it has 1 fields, the header has 2",
        "it has 3 fields, the header has 2",
        "it has 1 fields, the header has 2",
        "lines 10 to 11 are no row of a csv: it has 3 fields, the header has 2",
    ]


def test_bytes_that_are_not_utf8_fail_the_row_in_a_uri_or_text_and_not_elsewhere(tmp_path):
    raw = 'uri,text,by\nhttp://h/é,x,y\nhttp://h/2,é,y\nhttp://h/3,"x, z",André\nhttp://h/4,x,y\n'.encode("latin-1")
    entries = entries_of(tmp_path, raw)
    assert failed(entries) == ["it is not UTF-8", "it is not UTF-8"]
    assert [(e.text, e.meta) for e in entries[2:]] == [("x, z", '{"by": "Andr\\ufffd"}'), ("x", '{"by": "y"}')]


def test_a_zero_byte_in_a_caption_is_text_and_in_a_path_fails_its_row(tmp_path):
    first, second = entries_of(tmp_path, "uri,text\nhttp://h/1,a\0b\nx\0.jpg,c\n")
    assert first.text == "a\0b"
    assert "not valid" in second.location.message


def test_a_field_of_four_megabytes_fails_its_row_and_a_quote_that_closes_after_longest_takes_no_rows(tmp_path):
    long = f"{'x' * 999}\n" * 4000
    first, second = entries_of(tmp_path, f'uri,text\nhttp://h/1.jpg,"{long}"\nhttp://h/2.jpg,y\n')
    assert second.text == "y"
    assert "its text has 4000000 characters, more than" in first.location.message
    lines = ["http://h/0.jpg," + "x" * 1_000_000] * (LONGEST // 1_000_000 + 2)
    huge = "http://h/2.jpg," + "x" * (LONGEST + 1)
    assert len(failed(entries_of(tmp_path, f'uri,text\nhttp://h/1.jpg,"5 inch\n{huge}\nhttp://h/3.jpg,x\n'))) == 1
    entries = entries_of(tmp_path, "uri,text\n" + "\n".join(['http://h/1.jpg,"5 inch', *lines, 'http://h/2.jpg,7"']))
    assert (len(entries), len(failed(entries)), entries[-1].text) == (len(lines) + 2, 1, '7"')


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (table({}, header='uri,"text'), "its header is none of a csv"),
        (table({50: 'http://h/50.jpg,7"'}, header='uri,"text'), "its header opens a quote"),
        (table({}, header="uri,text,text"), "more than one column named text"),
        (table({}, header="uri,uri"), "more than one column named uri"),
        (table({}).encode("utf-16"), "is UTF-16"),
        (table({}).encode("utf-16-le"), "zero bytes"),
        (gzip.compress(table({}).encode()), "is compressed with gzip"),
        (b"PAR1" + bytes(100), "is parquet"),
        (table({}, header="uri;text"), "no column 'uri'"),
        ("", "no column 'uri'"),
        (b"\xe9,text\nx,y\n", "no column 'uri'"),
    ],
)
def test_what_is_no_csv_is_refused_in_a_sentence_that_can_be_printed(tmp_path, raw, says):
    with pytest.raises(CurateError, match=says) as error:
        entries_of(tmp_path, raw)
    str(error.value).encode()


@pytest.mark.parametrize(
    ("raw", "meta"),
    [
        ("uri,text,,\nhttp://h/1,one,,\n", '{"": null}'),  # Excel, where the table was once wider
        ("uri,text,,\nhttp://h/1,one,,x\n", '{"": "x"}'),
        ("uri,text,tag,tag\nhttp://h/1,one,x,y\n", '{"tag": "y"}'),
        (b"uri,text,tag,tag\nhttp://h/1,one,\xe9,y\n", '{"tag": "y"}'),
        (",uri,text\n0,http://h/1,one\n", '{"": "0"}'),  # pandas' index
    ],
)
def test_of_two_columns_of_one_name_that_nobody_asked_for_the_last_is_read(tmp_path, raw, meta):
    (entry,) = entries_of(tmp_path, raw)
    assert (entry.uri, entry.text, entry.meta) == ("http://h/1", "one", meta)


def test_a_header_of_two_lines_and_one_that_is_latin_1_are_headers(tmp_path):
    (entry,) = entries_of(tmp_path, 'uri,"text\n(en)"\nhttp://h/1,one\n', text="text\n(en)")
    assert entry.text == "one"
    (entry,) = entries_of(tmp_path, "uri,text,né\nhttp://h/1,one,two\n".encode("latin-1"))
    assert entry.meta == '{"n\\ufffd": "two"}'
    for raw in ("uri,text\n", "uri,text"):
        with pytest.raises(CurateError, match="has no rows"):
            entries_of(tmp_path, raw)


def test_quotes_that_never_agree_take_time_in_the_number_of_lines_only(tmp_path):
    entries = entries_of(tmp_path, "uri,text\n" + 'a","b\n' * 20_000)  # each line closes a field and opens one
    assert len(failed(entries)) == len(entries) == 20_000
