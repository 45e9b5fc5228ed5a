"""Parquet: a cell that cannot be read takes down itself, a page the rows in it, and all rows are in some entry."""

from __future__ import annotations

import datetime
import decimal
import json

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from listed import list_table

from curate.schema.errors import CurateError
from curate.schema.recipe import TableSource
from curate.sources import parquet_rows
from curate.sources.entry import Entry, UnreadableEntry

URIS = [f"http://h/{i}" for i in range(4)]
RAW = [b"one", b"C\xc9TEz", b"x", None]
"""Four cells, of which the second is Latin-1, and the last is none."""


def entries_of(folder, columns: dict | None = None, **more) -> list[Entry]:
    if columns is not None:
        pq.write_table(pa.table({"uri": URIS} | columns), folder / "t.parquet")
    source = TableSource.model_validate({"kind": "table", "name": "s", "path": "unused", **more})
    return list_table(source, folder / "t.parquet")


def failed(entries: list[Entry]) -> dict[int, str]:
    return {i: e.location.message for i, e in enumerate(entries) if isinstance(e.location, UnreadableEntry)}


def unchecked(kind: pa.DataType) -> pa.Array:
    """RAW as strings, which `cast` would refuse."""
    if kind == pa.string_view():
        return pa.array(RAW, pa.binary_view()).view(kind)
    return pa.array(RAW, pa.large_binary() if kind == pa.large_string() else pa.binary()).view(kind)


def dictionary(values: pa.Array, index: pa.DataType) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, None], index), values[:3])


ONE_EACH = pa.array([0, 1, 2, 3, 4], pa.int32())
AS_TEXT = {
    "string": unchecked(pa.string()),
    "large_string": unchecked(pa.large_string()),
    "string_view": unchecked(pa.string_view()),
    "dictionary": dictionary(unchecked(pa.string()), pa.int32()),
    "categories as pandas writes them": dictionary(unchecked(pa.string()), pa.int8()),
    "binary": pa.array(RAW, pa.binary()),
    "large_binary": pa.array(RAW, pa.large_binary()),
    "binary_view": pa.array(RAW, pa.binary_view()),
    "dictionary of binary": dictionary(pa.array(RAW), pa.int32()),
}
NESTED = {
    "list": (pa.ListArray.from_arrays(ONE_EACH, unchecked(pa.string())), ["C\ufffdTEz"]),
    "large_list": (pa.LargeListArray.from_arrays(ONE_EACH.cast(pa.int64()), unchecked(pa.string())), ["C\ufffdTEz"]),
    "struct": (pa.StructArray.from_arrays([unchecked(pa.string())], ["s"]), {"s": "C\ufffdTEz"}),
    "map": (
        pa.MapArray.from_arrays(ONE_EACH[:4], unchecked(pa.string())[:3], unchecked(pa.string())[:3]),
        [["C\ufffdTEz", "C\ufffdTEz"]],
    ),
    "list of categories": (
        pa.ListArray.from_arrays(ONE_EACH, dictionary(unchecked(pa.string()), pa.int8())),
        ["C\ufffdTEz"],
    ),
}


@pytest.mark.parametrize("kind", AS_TEXT)
def test_a_text_that_is_not_utf8_fails_its_row_and_others_are_text_however_they_are_stored(tmp_path, kind):
    for asked in ({}, {"text": "text"}):
        entries = entries_of(tmp_path, {"text": AS_TEXT[kind]}, **asked)
        assert [(e.uri, e.text) for e in entries] == list(zip(URIS, ["one", None, "x", None], strict=True))
        assert failed(entries) == {1: "its text is not UTF-8"}


@pytest.mark.parametrize("kind", AS_TEXT)
def test_a_uri_that_is_not_utf8_fails_its_row_which_is_called_by_its_number(tmp_path, kind):
    entries = entries_of(tmp_path, {"where": AS_TEXT[kind]}, uri="where", base_url=None)
    assert [e.uri for e in entries] == ["one", "t.parquet#2", "x", "t.parquet#4"]
    assert failed(entries)[1] == "its uri is not UTF-8".replace("uri", "where")


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary", *list(AS_TEXT)[4:5], *NESTED])
def test_a_value_that_is_not_utf8_in_another_column_fails_no_row(tmp_path, kind):
    column, shown = NESTED[kind] if kind in NESTED else (AS_TEXT[kind], "C\ufffdTEz")
    column = pa.concat_arrays([column, pa.nulls(4 - len(column), column.type)])
    entries = entries_of(tmp_path, {"text": list("abcd"), "note": column})
    assert (failed(entries), [e.text for e in entries]) == ({}, list("abcd"))
    assert json.loads(entries[1].meta) == {"note": shown}


def test_captions_of_a_fixed_number_of_bytes_are_text(tmp_path):
    entries = entries_of(tmp_path, {"text": pa.array([b"four", "né!".encode(), b"n\xe9ee", None], pa.binary(4))})
    assert [e.text for e in entries] == ["four", "né!", None, None]
    assert failed(entries) == {2: "its text is not UTF-8"}


def test_a_licence_of_bytes_is_text_and_columns_of_bytes_that_nobody_asked_for_are_not_read(tmp_path):
    entries = entries_of(
        tmp_path, {"l": pa.array([b"MIT"] * 4), "jpg": pa.array([b"\xff\xd8"] * 4)}, licence_column="l"
    )
    assert {(e.licence, e.meta) for e in entries} == {("MIT", "{}")}


AFTER = 253402300800
"""Seconds from 1970 to the year 10000, of which `datetime` has no day; one less is its last second."""
BEFORE = -62167219200
"""Seconds from 1970 back to the year 0 of ISO 8601, a year before the first of `datetime`."""
OUT_OF_RANGE = [
    (pa.timestamp("s"), AFTER, "10000-01-01T00:00:00.000"),
    (pa.timestamp("ms"), AFTER * 1000, "10000-01-01T00:00:00.000"),
    (pa.timestamp("us"), AFTER * 10**6 + 5, "10000-01-01T00:00:00.000005"),
    (pa.timestamp("us"), BEFORE * 10**6, "0000-01-01T00:00:00.000000"),
    (pa.timestamp("us", "UTC"), AFTER * 10**6, "10000-01-01T00:00:00.000000Z[UTC]"),
    (pa.timestamp("us", "Europe/Rome"), AFTER * 10**6, "10000-01-01T00:00:00.000000Z[Europe/Rome]"),
    (pa.timestamp("us", "Mars/Olympus"), 0, "1970-01-01T00:00:00.000000Z[Mars/Olympus]"),
    (pa.timestamp("ns", "+25:00"), 0, "1970-01-01T00:00:00.000000000Z[+25:00]"),
    (pa.date32(), AFTER // 86400, "10000-01-01"),
    (pa.date64(), BEFORE * 1000, "0000-01-01"),
    (pa.time64("us"), 2**60, "1152921504606846976 (time64[us])"),
    (pa.duration("s"), 2**62, "4611686018427387904 (duration[s])"),
    (pa.list_(pa.timestamp("us")), [AFTER * 10**6], ["10000-01-01T00:00:00.000000"]),
]


@pytest.mark.parametrize(("kind", "value", "shown"), OUT_OF_RANGE)
def test_a_time_that_python_has_no_value_for_is_told_and_fails_no_row(tmp_path, kind, value, shown):
    entries = entries_of(tmp_path, {"text": list("abcd"), "at": pa.array([None, value, None, None], kind)})
    assert failed(entries) == {}
    assert [json.loads(e.meta)["at"] for e in entries] == [None, shown, None, None]


def test_a_time_out_of_range_as_the_text_fails_its_row_alone(tmp_path):
    entries = entries_of(tmp_path, {"text": pa.array([None, 2**60, None, None], pa.timestamp("us"))})
    assert list(failed(entries)) == [1]
    assert "its text is timestamp[us], not text" in failed(entries)[1]


KNOWN = [
    (pa.array([datetime.datetime(2024, 2, 29, 12, 0, 1)] * 4, pa.timestamp("s")), "2024-02-29 12:00:01"),
    (pa.array([datetime.datetime(2024, 2, 29)] * 4, pa.timestamp("us", "UTC")), "2024-02-29 00:00:00+00:00"),
    (pa.array([datetime.date(9999, 12, 31)] * 4), "9999-12-31"),
    (pa.array([datetime.time(23, 59, 59)] * 4), "23:59:59"),
    (pa.array([datetime.timedelta(1, 2)] * 4), "1 day, 0:00:02"),
    (pa.array([decimal.Decimal("1.50")] * 4), "1.50"),
    (pa.array([decimal.Decimal(10) ** 60] * 4, pa.decimal256(76, 0)), "1" + "0" * 60),
    (pa.array(np.full(4, 1.5, np.float16)), 1.5),
    (pa.array([float("nan")] * 4), None),
    (pa.array([[{"a": [1, None]}]] * 4), [{"a": [1, None]}]),
    (pa.array([[("k", 1)]] * 4, pa.map_(pa.string(), pa.int8())), [["k", 1]]),
    (pa.array([{"bytes": b"abc", "path": "x"}] * 4), {"bytes": "<3 bytes>", "path": "x"}),
    (pa.array([b"a" * 16] * 4, pa.uuid()), "61616161-6161-6161-6161-616161616161"),
    (pa.nulls(4), None),
]


@pytest.mark.parametrize(("column", "shown"), KNOWN, ids=[str(column.type) for column, _ in KNOWN])
def test_values_of_all_other_types_are_told_as_before(tmp_path, column, shown):
    """As of commit c4c4a00: what partitions are named by holds these."""
    entries = entries_of(tmp_path, {"m": column})
    assert [json.loads(e.meta) for e in entries] == [{"m": shown}] * 4


def test_what_duckdb_writes_is_read(tmp_path):
    query = "select 'http://h/1' as uri, 'a cat'::blob as text, interval 3 month as i, date '290000-01-01' as d"
    duckdb.sql(f"copy ({query}, 'infinity'::timestamp as t, '101'::bit as b) to '{tmp_path}/t.parquet'")
    (entry,) = entries_of(tmp_path)
    assert (entry.text, failed([entry])) == ("a cat", {})
    assert json.loads(entry.meta) == {"b": "101", "d": "290000-01-01", "t": "294247-01-10T04:00:54.775807"}


GROUP, GROUPS = 2000, 3


def damaged(path, column: int | None, **options) -> None:
    """A table of three row groups; in the second the middle of a column, or of all the beginning, is overwritten."""
    n = GROUP * GROUPS
    columns = {"uri": [f"http://h/{i}" for i in range(n)], "text": [f"c {i}" for i in range(n)], "n": list(range(n))}
    options |= {"row_group_size": GROUP, "data_page_size": 2048, "write_batch_size": 100, "use_dictionary": False}
    pq.write_table(pa.table(columns), path, **options)
    raw, group = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(1)
    for i in range(3) if column is None else [column]:
        chunk = group.column(i)
        at = chunk.data_page_offset + (chunk.total_compressed_size // 2 if column is not None else 0)
        raw[at : at + 200] = b"\xff" * 200
    path.write_bytes(raw)


@pytest.mark.parametrize("options", [{"compression": "snappy"}, {"compression": "none", "write_page_checksum": True}])
@pytest.mark.parametrize(("column", "name"), [(0, "uri"), (1, "text")])
def test_a_page_that_cannot_be_read_fails_its_rows_and_those_after_it_in_its_row_group(tmp_path, column, name, options):
    damaged(tmp_path / "t.parquet", column, **options)
    entries = entries_of(tmp_path)
    assert len(entries) == len({e.uri for e in entries}) == GROUP * GROUPS
    bad = failed(entries)
    assert GROUP < min(bad) < max(bad) == 2 * GROUP - 1
    assert len(bad) == 2 * GROUP - min(bad)
    assert all(message.startswith(f"its {name} cannot be read: ") for message in bad.values())
    assert [e.text for i, e in enumerate(entries) if i not in bad] == [f"c {i}" for i in range(6000) if i not in bad]


def test_a_page_of_another_column_that_cannot_be_read_is_told_in_meta_and_fails_no_row(tmp_path):
    damaged(tmp_path / "t.parquet", 2, compression="snappy")
    entries = entries_of(tmp_path)
    assert (len(entries), failed(entries)) == (GROUP * GROUPS, {})
    told = [json.loads(e.meta)["n"] for e in entries]
    assert told[:GROUP] + told[2 * GROUP :] == [*range(GROUP), *range(2 * GROUP, 3 * GROUP)]
    assert told[2 * GROUP - 1] == "<cannot be read: Corrupt snappy compressed data.>"


def test_a_row_group_of_which_nothing_can_be_read_fails_with_all_its_rows(tmp_path):
    damaged(tmp_path / "t.parquet", None)
    assert list(failed(entries_of(tmp_path))) == list(range(GROUP, 2 * GROUP))


@pytest.mark.parametrize("stated", [2 * GROUP - 1, 2 * GROUP + 1])
def test_a_file_that_states_another_number_of_rows_than_its_row_groups_is_refused(tmp_path, stated):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"uri": ["http://h/1"] * 2 * GROUP}), path, row_group_size=GROUP)
    raw, true, false = path.read_bytes(), _varint(2 * GROUP), _varint(stated)
    assert raw.count(true) == 1
    path.write_bytes(raw.replace(true, false))
    with pytest.raises(CurateError, match=rf"t\.parquet states {stated} rows, and 4000 are accounted for"):
        entries_of(tmp_path)


def test_a_row_group_that_states_more_rows_than_the_file_has_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_rows, "MAX_CLAIMED", 1000)
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"uri": ["http://h/1"] * 4000}), path)
    assert path.stat().st_size < 4000
    with pytest.raises(CurateError, match="row group 1 states 4000 rows, and the file has"):
        entries_of(tmp_path)


@pytest.mark.parametrize("most", [700, 2000, 2500])
def test_a_page_that_cannot_be_read_fails_the_same_rows_in_whatever_ranges_they_are_read(tmp_path, monkeypatch, most):
    damaged(tmp_path / "t.parquet", 1, compression="snappy")
    whole = [(e.uri, e.location) for e in entries_of(tmp_path)]
    monkeypatch.setattr(parquet_rows, "MOST_ROWS", most)
    parts = entries_of(tmp_path)
    assert [(e.uri, e.location) for e in parts] == whole
    assert len({e.unit for e in parts}) == (9 if most == 700 else 3)


def _varint(number: int) -> bytes:
    """Of two bytes, as Thrift's compact protocol writes an i64: zigzag, then 7 bits a byte."""
    return bytes([number * 2 & 127 | 128, number * 2 >> 7])


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image": [{"bytes": b"x", "path": "p"}], "jpg": [b"x"], "caption": ["c"]}, "it has: image, jpg, caption"),
        ({}, "it has: none"),
    ],
)
def test_a_table_without_a_uri_is_refused_with_the_columns_that_it_has(tmp_path, columns, says):
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    with pytest.raises(CurateError, match="has no column 'uri'") as error:
        entries_of(tmp_path)
    assert says in error.value.hint


def test_a_table_that_cannot_be_read_at_all_is_refused_in_a_sentence(tmp_path):
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"uri": URIS, "née": URIS}), path, store_schema=False)
    whole = path.read_bytes()
    for raw, says in [
        (whole[: len(whole) // 2], "is not a parquet file"),
        (whole[:-4] + b"PARE", "is not a parquet file"),
        (b"", "is not a parquet file"),
        (whole.replace("née".encode(), b"n\xe9ee"), "the name of one of its columns is not UTF-8"),
    ]:
        path.write_bytes(raw)
        with pytest.raises(CurateError, match=says):
            entries_of(tmp_path)


def test_a_column_of_uris_that_is_there_twice_is_refused_and_another_one_is_not(tmp_path):
    pq.write_table(pa.table([URIS, URIS], names=["uri", "uri"]), tmp_path / "t.parquet")
    with pytest.raises(CurateError, match="more than one column named uri"):
        entries_of(tmp_path)
    pq.write_table(pa.table([URIS, URIS, list("abcd")], names=["uri", "m", "m"]), tmp_path / "t.parquet")
    assert [e.meta for e in entries_of(tmp_path)] == [f'{{"m": "{c}"}}' for c in "abcd"]
