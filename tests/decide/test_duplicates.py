"""Records of the same bytes: one is kept, by a stated rule."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide.duplicates import exact_duplicates


def test_the_keeper_has_text_and_then_the_smallest_id(tables):
    files = tables.records(
        [
            {"record_id": "a1", "content_id": "cat"},
            {"record_id": "a2", "content_id": "cat", "text": "  "},
            {"record_id": "a4", "content_id": "cat", "text": "a cat"},
            {"record_id": "a3", "content_id": "cat", "text": "the cat"},
            {"record_id": "b2", "content_id": "dog"},
            {"record_id": "b1", "content_id": "dog"},
            {"record_id": "c1", "content_id": "owl"},
        ],
        parts=3,
    )
    assert exact_duplicates(files).to_pylist() == [
        {"record_id": "a1", "duplicate_of": "a3"},
        {"record_id": "a2", "duplicate_of": "a3"},
        {"record_id": "a4", "duplicate_of": "a3"},
        {"record_id": "b2", "duplicate_of": "b1"},
    ]


def test_failed_records_and_those_left_out_keep_nothing_and_are_no_duplicates(tables):
    files = tables.records(
        [
            {"record_id": "a", "content_id": "x", "text": "best", **tables.failed},
            {"record_id": "b", "content_id": "x", "text": "left out"},
            {"record_id": "c", "content_id": "x"},
            {"record_id": "d", "content_id": "x"},
            {"record_id": "e", "content_id": None},
            {"record_id": "f", "content_id": None},
        ]
    )
    left_out = pa.table({"id": ["b"]})
    assert exact_duplicates(files, without=left_out).to_pylist() == [{"record_id": "d", "duplicate_of": "c"}]


def test_no_files_have_no_duplicates():
    assert exact_duplicates([]).num_rows == 0


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([None, "", "words"])), max_size=12), st.randoms())
def test_every_content_is_kept_exactly_once_in_any_order(tables, contents, random):
    rows = [{"record_id": f"{i:02d}", "content_id": c, "text": t} for i, (c, t) in enumerate(contents)]
    shuffled = rows.copy()
    random.shuffle(shuffled)
    found = exact_duplicates(tables.records(shuffled, parts=2)).to_pylist()
    keeper = {row["record_id"]: row["duplicate_of"] for row in found}
    content = {row["record_id"]: row["content_id"] for row in rows}
    kept = [r for r in content if r not in keeper]
    assert sorted(content[r] for r in kept) == sorted({c for c, _ in contents})
    assert all(content[r] == content[k] and k in kept for r, k in keeper.items())
