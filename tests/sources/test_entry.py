"""Entries are plain data: to a row and back, and named by content, not by machine."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.sources.entry import (
    ENTRIES,
    Entry,
    File,
    TarMember,
    UnreadableEntry,
    Url,
    clean,
    entries_of,
    entries_table,
    identities,
    meta_json,
)

LOCATIONS = [
    File("/a/b.jpg", 7),
    TarMember("/t.tar", 512, 9),
    Url("http://h/x"),
    UnreadableEntry("SourceError", "is a link"),
]


def entry(location=LOCATIONS[0], **changes):
    return replace(Entry("s", "b.jpg", 0, "a cat", None, "{}", location), **changes)


def test_entries_survive_an_arrow_table():
    entries = [entry(location, uri=f"{i}") for i, location in enumerate(LOCATIONS)]
    entries += [
        entry(File("/caf\udce9/b.jpg", 0), unit="t#1", text=None),
        Entry.whole("s", "t.tar", "MIT", "E", "gone"),
    ]
    table = entries_table(entries)
    assert table.schema == ENTRIES
    assert entries_of(table) == entries
    assert entries_of(pa.concat_tables([table, table]).slice(2, 7)) == (entries * 2)[2:9]
    assert entries_of(entries_table([])) == []


def test_identity_names_the_content_and_no_machine():
    here = entry().identity()
    assert here == entry(File("/elsewhere/b.jpg", 7)).identity()
    assert entry(Url("http://127.0.0.1:4000/x")).identity() == entry(Url("http://127.0.0.1:5000/x")).identity()
    others = [
        entry(File("/a/b.jpg", 8)),
        entry(text="a dog"),
        entry(licence="CC0-1.0"),
        entry(uri="c.jpg"),
        entry(ordinal=1),
        entry(unit="t.parquet#1"),
        entry(meta='{"x": 1}'),
        entry(UnreadableEntry("SourceError", "is a link")),
    ]
    digests = identities([entry(), *others])
    assert len(set(digests)) == len(digests) == 9
    assert {len(digest) for digest in digests} == {32}


def test_record_ids_differ_for_the_same_uri_listed_twice():
    assert entry().record_id != entry(ordinal=1).record_id
    assert entry().record_id == entry(text="other").record_id
    assert len({e.record_id for e in (entry(), entry(unit="a"), entry(unit="b"), entry(unit="a", ordinal=1))}) == 4


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(st.dictionaries(st.text(), json_values))
def test_meta_is_always_strict_json_with_sorted_keys(value):
    text = meta_json(value)

    def refuse(word: str) -> None:
        raise AssertionError(word)

    back = json.loads(text, parse_constant=refuse)
    assert text.isascii()
    assert list(back) == sorted(back)


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_stored_as_utf8(text):
    stored = clean(text)
    if stored is not None:
        stored.encode()
    if not any("\ud800" <= c <= "\udfff" for c in text):
        assert (stored or "") == text
