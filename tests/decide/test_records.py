"""Records: failed, dropped, duplicate or sampled, in that order."""

from __future__ import annotations

import pytest

from curate.decide.ledger import override
from curate.decide.records import decide_records
from curate.schema.errors import CurateError
from curate.schema.recipe import Rule
from curate.schema.tables import LEDGER
from curate.schema.verdict import Failure


def test_what_becomes_of_each_record(tables, by_id):
    files = tables.records(
        [
            {"record_id": "broken", "content_id": None, "kind": None, **tables.failed},
            {"record_id": "broken-and-small", "width": 10, **tables.failed},
            {"record_id": "small", "width": 10, "height": 900},
            {"record_id": "small-copy", "content_id": "small", "width": 10, "height": 900},
            {"record_id": "first", "content_id": "same", "width": 640, "height": 480},
            {"record_id": "second", "content_id": "same", "width": 640, "height": 480, "text": "a caption"},
            {"record_id": "sound", "kind": "audio", "duration": 3.0},
        ],
        parts=3,
    )
    ledger = decide_records(files, [Rule(field="width", min=64)])
    assert ledger.schema.equals(LEDGER)
    rows = by_id(ledger)
    assert list(rows) == sorted(rows)
    assert {i: r["outcome"] for i, r in rows.items()} == {
        "broken": "failed",
        "broken-and-small": "failed",
        "small": "dropped",
        "small-copy": "dropped",
        "first": "duplicate",
        "second": "sampled",
        "sound": "sampled",
    }
    assert rows["broken"] == {
        "level": "record",
        "id": "broken",
        "record_id": "broken",
        "source": "s",
        "uri": "broken.png",
        "outcome": "failed",
        **tables.failed,
    }
    assert {k: rows["small"][k] for k in ("rule", "value", "threshold")} == {
        "rule": "width >= 64",
        "value": 10.0,
        "threshold": 64.0,
    }
    assert (rows["first"]["duplicate_of"], rows["first"]["match"]) == ("second", "exact")
    assert "similarity" not in rows["first"]


def test_rules_on_pixels_and_percentiles_of_records(tables, by_id):
    files = tables.records({"record_id": f"{i}", "width": i, "height": 2} for i in range(1, 10))
    rows = by_id(decide_records(files, [Rule(field="pixels", min_percentile=50)]))
    assert {i for i, r in rows.items() if r["outcome"] == "dropped"} == {"1", "2", "3", "4"}
    assert (rows["1"]["rule"], rows["1"]["threshold"]) == ("pixels >= p50", 10.0)


def test_records_that_cannot_be_cut_are_failed_and_their_duplicates_still_point_to_them(tables, by_id):
    files = tables.records([{"record_id": "a", "content_id": "x"}, {"record_id": "b", "content_id": "x"}])
    failure = Failure("cut", "MediaError", "no frame decodes", 1)
    rows = by_id(override(decide_records(files, []), [("a", failure)]))
    assert rows["a"]["outcome"] == "failed"
    assert rows["a"]["message"] == "no frame decodes"
    assert (rows["b"]["outcome"], rows["b"]["duplicate_of"]) == ("duplicate", "a")


def test_a_record_that_is_listed_twice_is_refused(tables):
    files = tables.records([{"record_id": "a"}, {"record_id": "a"}])
    with pytest.raises(CurateError, match="1 records are listed more than once, the first a"):
        decide_records(files, [])


def test_a_rule_on_a_field_that_records_do_not_have_is_refused(tables):
    with pytest.raises(CurateError, match="there is no field sharpness"):
        decide_records(tables.records([]), [Rule(field="sharpness", min=1)])


def test_no_records():
    assert decide_records([], []).equals(LEDGER.empty_table())
