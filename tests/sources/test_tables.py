"""Tables of uris: columns, kinds of uris, rows that are none."""

from __future__ import annotations

import csv
import datetime
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listed import list_table

from curate.schema.errors import CurateError
from curate.schema.recipe import TableSource
from curate.sources.entry import File, UnreadableEntry, Url

ROWS = [
    {"uri": "https://example.org/a.jpg", "text": "A cat, asleep.\nIn two lines.", "by": "Ann"},
    {"uri": "b.jpg", "text": None, "by": None},
    {"uri": "", "text": "nothing to show", "by": "Bob"},
]


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def source(**more) -> TableSource:
    return TableSource.model_validate({"kind": "table", "name": "s", "path": "unused", **more})


def message(entry) -> str:
    assert isinstance(entry.location, UnreadableEntry), entry
    return entry.location.message


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_the_three_kinds_of_tables_say_the_same(tmp_path, suffix):
    (tmp_path / "b.jpg").write_bytes(b"123")
    a, b, c = list_table(source(licence="MIT"), write(tmp_path / f"t{suffix}", ROWS))
    assert (a.uri, a.text, a.licence) == ("https://example.org/a.jpg", "A cat, asleep.\nIn two lines.", "MIT")
    assert a.location == Url("https://example.org/a.jpg")
    assert a.meta == '{"by": "Ann"}'
    assert (b.text, b.meta) == (None, '{"by": null}')
    assert b.location == File(str(tmp_path / "b.jpg"), 3)
    assert c.uri == f"t{suffix}#3"
    assert message(c) == "its uri is empty"
    assert c.text == "nothing to show"


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize(
    ("columns", "key", "wrong"),
    [
        ({"uri": "url"}, "uri", "url"),
        ({"text": "txet"}, "text", "txet"),
        ({"licence_column": "lic"}, "licence_column", "lic"),
    ],
)
def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path, suffix, columns, key, wrong):
    with pytest.raises(CurateError) as error:
        list_table(source(**columns), write(tmp_path / f"t{suffix}", ROWS))
    assert error.value.message == f"{key}: t{suffix} has no column '{wrong}'"
    assert "it has: uri, text, by" in error.value.hint


def test_the_nearest_column_is_named(tmp_path):
    with pytest.raises(CurateError, match="did you mean 'text'"):
        list_table(source(text="txt"), write(tmp_path / "t.csv", ROWS))


def test_a_table_without_text_needs_no_text_column(tmp_path):
    (entry,) = list_table(source(), write(tmp_path / "t.csv", [{"uri": "http://h/x"}]))
    assert entry.text is None
    assert list_table(source(text=None), write(tmp_path / "t.csv", ROWS))[0].text is None


def test_licences_are_the_rows_own_or_the_sources(tmp_path):
    rows = [{"uri": "http://h/1", "l": "CC0-1.0"}, {"uri": "http://h/2", "l": ""}]
    entries = list_table(source(licence="MIT", licence_column="l"), write(tmp_path / "t.csv", rows))
    assert [e.licence for e in entries] == ["CC0-1.0", "MIT"]


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("gs://bucket/x.jpg", "scheme gs, which is not read"),
        ("s3://bucket", "names no bucket and object"),
        ("s3:///x.jpg", "names no bucket and object"),
        ("file://other-host/x.jpg", "names another host"),
        ("../outside.jpg", "leaves the folder of the table"),
        ("sub/../../outside.jpg", "leaves the folder of the table"),
        ("link.jpg", "leaves the folder of the table"),
        ("missing.jpg", "there is no such file"),
        ("file:///missing.jpg", "there is no such file"),
        ("sub", "there is no such file"),
        ("nul\0.jpg", "not valid"),
        ("x" * 5000, "not valid"),
    ],
)
def test_uris_that_cannot_be_read_are_broken_entries(tmp_path, uri, says):
    folder = tmp_path / "in"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "outside.jpg").write_bytes(b"secret")
    (folder / "link.jpg").symlink_to(tmp_path / "outside.jpg")
    (entry,) = list_table(source(), write(folder / "t.jsonl", [{"uri": uri}]))
    assert says in message(entry)
    assert entry.uri == uri


def test_paths_in_all_their_forms(tmp_path):
    (tmp_path / "sub").mkdir()
    target = tmp_path / "sub" / "a b.jpg"
    target.write_bytes(b"1234")
    uris = [
        "sub/a b.jpg",
        "sub/../sub/a b.jpg",
        str(target),
        f"file://{tmp_path}/sub/a%20b.jpg",
        f"file://localhost{target}",
    ]
    entries = list_table(source(), write(tmp_path / "t.csv", [{"uri": uri} for uri in uris]))
    assert [e.uri for e in entries] == uris
    assert {e.location for e in entries} == {File(str(target), 4)}


def test_base_url_goes_before_relative_uris_only(tmp_path):
    rows = [{"uri": uri} for uri in ("x.jpg", "d/x.jpg?v=1", "https://other.org/x.jpg", "/top.jpg")]
    entries = list_table(source(), write(tmp_path / "t.csv", rows), "http://h:80/base")
    assert [e.location for e in entries] == [
        Url("http://h:80/base/x.jpg"),
        Url("http://h:80/base/d/x.jpg?v=1"),
        Url("https://other.org/x.jpg"),
        Url("http://h:80/top.jpg"),
    ]
    assert [e.uri for e in entries] == [row["uri"] for row in rows]


def test_csv_rows_that_are_none_are_broken_and_the_others_are_kept(tmp_path):
    (tmp_path / "t.csv").write_bytes(
        b'\xef\xbb\xbfuri,text\nhttp://h/1,one\nhttp://h/2,too,many\n\nhttp://h/3\nhttp://h/4,caf\xe9\n"http://h/5"x,y\nhttp://h/6,six\n'
    )
    entries = list_table(source(), tmp_path / "t.csv")
    assert [e.uri for e in entries] == ["http://h/1", "t.csv#2", "t.csv#3", "t.csv#4", "t.csv#5", "http://h/6"]
    assert message(entries[1]) == "it has 3 fields, the header has 2"
    assert message(entries[2]) == "it has 1 fields, the header has 2"
    assert message(entries[3]) == "it is not UTF-8"
    assert "line 7 is no row" in message(entries[4])


def test_csv_values_stay_text(tmp_path):
    (tmp_path / "t.csv").write_text("uri,text,n\nhttp://h/1,007,1e5\n")
    (entry,) = list_table(source(), tmp_path / "t.csv")
    assert (entry.text, entry.meta) == ("007", '{"n": "1e5"}')


def test_jsonl_lines_that_are_none_are_broken_and_the_others_are_kept(tmp_path):
    (tmp_path / "t.jsonl").write_bytes(
        b'{"uri": "http://h/1"}\n{"uri": \n[1]\n\xff\n{"uri": 5}\n{"uri": "http://h/2", "x": NaN}\n'
    )
    entries = list_table(source(), tmp_path / "t.jsonl")
    assert [e.uri for e in entries] == ["http://h/1", "t.jsonl#2", "t.jsonl#3", "t.jsonl#4", "t.jsonl#5", "http://h/2"]
    assert message(entries[2]) == "it is not a JSON object"
    assert message(entries[4]) == "its uri is int, not text"
    assert entries[5].meta == '{"x": null}'


def test_parquet_columns_of_bytes_are_left_and_dates_are_told(tmp_path):
    day = datetime.date(2024, 2, 29)
    rows = [{"uri": "http://h/1", "jpg": b"\xff\xd8", "day": day, "score": float("nan"), "box": [1.5, None]}]
    (entry,) = list_table(source(), write(tmp_path / "t.parquet", rows))
    assert json.loads(entry.meta) == {"day": "2024-02-29", "score": None, "box": [1.5, None]}


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("t.parquet", b"PAR1 is not enough", "is not a parquet file"),
        ("t.xlsx", b"", "a table is .parquet, .csv or .jsonl"),
        ("t.tsv", b"uri\ttext\n", "a table is .parquet, .csv or .jsonl"),
        ("t.csv.gz", b"", "a table is .parquet, .csv or .jsonl"),
        ("t.csv", b"uri,uri\nx,y\n", "more than one column named uri"),
        ("t.csv", b"", "has no column 'uri'"),
    ],
)
def test_tables_that_are_none(tmp_path, name, data, says):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(CurateError, match=says):
        list_table(source(), tmp_path / name)


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_a_text_above_a_mebibyte_is_a_failure_of_its_row_and_one_below_is_kept_whole(tmp_path, suffix):
    texts = ["w" * 10_000_000, "w" * 1_000_000, "short"]
    rows = [{"uri": f"http://h/{i}", "text": text} for i, text in enumerate(texts)]
    long, kept, short = list_table(source(), write(tmp_path / f"t{suffix}", rows))
    assert any(words in message(long) for words in ("more than 1048576", "larger than", "field larger"))
    assert long.text is None
    assert [kept.text, short.text] == texts[1:]


def test_uris_and_other_columns_have_a_limit_too(tmp_path):
    rows = [{"uri": "http://h/" + "x" * 9000, "by": ""}, {"uri": "http://h/2", "by": "é" * 300_000}, {"uri": "x:\0"}]
    first, second, third = list_table(source(), write(tmp_path / "t.parquet", rows))
    assert (first.uri, message(first)) == ("t.parquet#1", "its uri has 9009 characters, more than 8192")
    assert (second.uri, second.meta) == ("http://h/2", "{}")
    assert "more than 1048576" in message(second)
    assert isinstance(third.location, UnreadableEntry)
