"""Records: failed, dropped, duplicate or sampled, in that order."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from curate.schema.recipe import Rule


def one_each(records, **more):
    """A sample for each record that may get one; samples of records of the same bytes have the same ids."""
    alive = [r for r in records if "stage" not in r]
    content = [r.get("content_id", r["record_id"]) for r in alive]
    return [
        {"sample_id": c, "record_id": r["record_id"], "kind": r.get("kind", "image"), **more}
        for r, c in zip(alive, content, strict=True)
        if c is not None
    ]


def build_of(tables, records, parts=1):
    samples = one_each(records)
    return tables.build(
        samples, [{"sample_id": i} for i in dict.fromkeys(s["sample_id"] for s in samples)], records, parts
    )


def test_what_becomes_of_each_record(tables):
    records = [
        {"record_id": "broken", "content_id": None, "kind": None, **tables.failed},
        {"record_id": "broken-and-small", "width": 10, **tables.failed},
        {"record_id": "small", "width": 10, "height": 900},
        {"record_id": "small-copy", "content_id": "small", "width": 10, "height": 900},
        {"record_id": "first", "content_id": "same", "width": 640, "height": 480},
        {"record_id": "second", "content_id": "same", "width": 640, "height": 480, "text": "a caption"},
        {"record_id": "sound", "kind": "audio", "duration": 3.0},
    ]
    rows = build_of(tables, records).verdicts(records=[Rule(field="width", min=64)], level="record")
    assert list(rows) == [r["record_id"] for r in records]  # in the order of the partition
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


def test_the_keeper_has_text_and_then_the_smallest_id(tables):
    records = [
        {"record_id": "a1", "content_id": "cat"},
        {"record_id": "a2", "content_id": "cat", "text": "  "},
        {"record_id": "a4", "content_id": "cat", "text": "a cat"},
        {"record_id": "a3", "content_id": "cat", "text": "the cat"},
        {"record_id": "b2", "content_id": "dog"},
        {"record_id": "b1", "content_id": "dog"},
        {"record_id": "c1", "content_id": "owl"},
    ]
    rows = build_of(tables, records).verdicts(level="record")
    keeper = {i: r["duplicate_of"] for i, r in rows.items() if r["outcome"] == "duplicate"}
    assert keeper == {"a1": "a3", "a2": "a3", "a4": "a3", "b2": "b1"}


def test_failed_records_keep_nothing_and_are_no_duplicates(tables):
    cut = {**tables.failed, "stage": "cut"}
    records = [
        {"record_id": "a", "content_id": "x", "text": "best", **tables.failed},
        {"record_id": "b", "content_id": "x", "text": "left out", **cut},
        {"record_id": "c", "content_id": "x"},
        {"record_id": "d", "content_id": "x"},
        {"record_id": "e", "content_id": None, **tables.failed},
        {"record_id": "f", "content_id": None, **tables.failed},
    ]
    rows = build_of(tables, records).verdicts(level="record")
    assert {i: r["outcome"] for i, r in rows.items()} == dict(
        zip("abcdef", ["failed", "failed", "sampled", "duplicate", "failed", "failed"], strict=True)
    )
    assert rows["d"]["duplicate_of"] == "c"


def test_rules_on_pixels_and_percentiles_of_records(tables):
    build = build_of(tables, [{"record_id": f"{i}", "width": i, "height": 2} for i in range(1, 10)], parts=3)
    rows = build.verdicts(records=[Rule(field="pixels", min_percentile=50)], level="record")
    assert {i for i, r in rows.items() if r["outcome"] == "dropped"} == {"1", "2", "3", "4"}
    assert (rows["1"]["rule"], rows["1"]["threshold"]) == ("pixels >= p50", 10.0)


def test_a_record_that_is_listed_twice_is_refused(tables, refused):
    twice = build_of(tables, [{"record_id": "a"}])
    twice.files = [twice.files[0], twice.files[0]]
    assert "1 records are listed more than once, the first 61" in refused(twice, per_task=1)
    build = tables.build(records=[{"record_id": "a", **tables.failed}, {"record_id": "a", **tables.failed}])
    assert "1 records of s-0000 are listed more than once" in refused(build)


def test_a_record_without_samples_and_without_a_failure_is_refused(tables, refused):
    assert "1 records have neither samples nor a failure" in refused(tables.build(records=[{"record_id": "a"}]))


def test_a_rule_on_a_field_that_records_do_not_have_is_refused(tables, refused):
    assert refused(tables.build(), records=[Rule(field="sharpness", min=1)]) == "records have no field sharpness"
    assert "did you mean width" in refused(tables.build(), records=[Rule(field="widht", min=1)])


def test_no_records(tables):
    build = tables.build()
    assert build.ledger().num_rows == 0
    build.files = []
    assert build.decide().fragments == ()


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from([None, "", "words"])), max_size=12), st.data())
def test_every_content_is_kept_exactly_once_in_any_order(tables, contents, data):
    rows = [{"record_id": f"{i:02d}", "content_id": c, "text": t} for i, (c, t) in enumerate(contents)]
    build = build_of(tables, data.draw(st.permutations(rows)), parts=data.draw(st.integers(1, 4)))
    said = build.verdicts(level="record", per_task=data.draw(st.integers(1, 3)))
    content = {row["record_id"]: row["content_id"] for row in rows}
    kept = [r for r, row in said.items() if row["outcome"] == "sampled"]
    assert sorted(content[r] for r in kept) == sorted({c for c, _ in contents})
    best = {}
    for row in sorted(rows, key=lambda r: (not (r["text"] or "").strip(), r["record_id"])):
        best.setdefault(row["content_id"], row["record_id"])
    assert {r: row.get("duplicate_of", r) for r, row in said.items()} == {r: best[c] for r, c in content.items()}
