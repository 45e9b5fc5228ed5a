"""Rules on how many samples carry the same text."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.decide.texts import NO_TEXT, normal, text_keys
from curate.schema.recipe import NearDuplicates, Recipe, Rule

BEFORE, COPIES, AFTER = (
    Rule(field="sharpness", min=20),
    Rule(copies_of="tags", max=2),
    Rule(field="faces", max=3),
)
RULES = [BEFORE, COPIES, AFTER]


def test_what_is_there_too_often_is_dropped_with_its_count(tables: Any) -> None:
    tags = {"a": "A cup", "b": "a  CUP ", "c": "Ａ\u00a0cup", "d": "tea", "e": "tea", "f": None, "g": " ", "h": ""}
    build = tables.build([{"sample_id": i} for i in tags], [{"sample_id": i, "tags": t} for i, t in tags.items()])
    rows = build.verdicts([COPIES])
    said = {i: (r.get("rule"), r.get("value"), r.get("threshold")) for i, r in rows.items()}
    assert said == {i: ("copies of tags <= 2", 3, 2) if i in "abc" else (None, None, None) for i in tags}


ROW = st.fixed_dictionaries(
    {
        "tags": st.sampled_from([None, "", "x", " X", "y", "z", "Ÿ", "y\u0308"]),
        "sharpness": st.sampled_from([None, 10.0, 30.0]),
        "faces": st.sampled_from([None, 1, 9]),
        "kind": st.sampled_from(["image", "video"]),
        "fails": st.booleans(),
    }
)


@settings(deadline=None, max_examples=60)
@given(st.lists(ROW, min_size=1, max_size=30), st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_against_a_plain_counter(
    tables: Any, rows: list[dict[str, Any]], parts: int, per_task: int, most: int, is_for_all: bool
) -> None:
    kinds: Any = ["image", "video"] if is_for_all else ["image"]
    ids = [f"s{i:02d}" for i in range(len(rows))]
    samples = [{"sample_id": i, "kind": r["kind"]} for i, r in zip(ids, rows, strict=True)]
    signals = [
        {"sample_id": i, "one": tables.failed if r["fails"] else None}
        | {f: r[f] for f in ("tags", "sharpness", "faces")}
        for i, r in zip(ids, rows, strict=True)
    ]
    rules = [BEFORE, Rule(copies_of="tags", max=most, kinds=kinds), AFTER]
    found = tables.build(samples, signals, parts=parts).verdicts(rules, per_task=per_task)

    counted = [not r["fails"] and (r["sharpness"] is None or r["sharpness"] >= 20) and r["kind"] in kinds for r in rows]
    text = [normal(r["tags"] or "") for r in rows]
    times = Counter(t for t, c in zip(text, counted, strict=True) if c and t)
    for i, row, is_counted, said in zip(ids, rows, counted, text, strict=True):
        if row["fails"]:
            assert found[i]["outcome"] == "failed"
        elif row["sharpness"] == 10:
            assert found[i]["rule"] == "sharpness >= 20"
        elif is_counted and times[said] > most:
            assert (found[i]["rule"], found[i]["value"]) == (f"copies of tags <= {most}", times[said])
        elif row["faces"] == 9:
            assert found[i]["rule"] == "faces <= 3"
        else:
            assert found[i]["outcome"] == "kept"


def test_copies_of_records_are_not_counted_and_near_duplicates_are(tables: Any) -> None:
    """The same bytes twice are one sample that counts; what near duplicates leave is decided after it."""
    records = [{"record_id": i, "content_id": "same" if i in "ab" else i} for i in "abcd"]
    samples = [{"sample_id": "s", "record_id": "a"}, {"sample_id": "s", "record_id": "b"}]
    samples += [{"sample_id": i, "record_id": i} for i in "cd"]
    look = [1.0, 0, 0, 0, 0, 0, 0, 0]
    signals = [{"sample_id": i, "tags": "x", "look": look} for i in ("s", "c", "d")]
    near = [NearDuplicates(embedding="look")]
    for most, outcomes in ((3, {"kept": 1, "duplicate": 2}), (2, {"dropped": 3})):
        build = tables.build(samples, signals, records, parts=2)
        found = build.verdicts([Rule(copies_of="tags", max=most)], near)
        assert Counter(row["outcome"] for row in found.values()) == outcomes


def test_two_rules_on_copies_count_what_the_first_leaves(tables: Any) -> None:
    samples = [{"sample_id": i, "kind": "image" if i < "c" else "video"} for i in "abcd"]
    signals = [{"sample_id": i, "tags": "x"} for i in "abcd"]
    rules = [Rule(copies_of="tags", max=1, kinds=["image"]), Rule(copies_of="tags", max=2)]
    found = tables.build(samples, signals).verdicts(rules)
    assert {i: row["outcome"] for i, row in found.items()} == {"a": "dropped", "b": "dropped", "c": "kept", "d": "kept"}


def test_keys_of_texts() -> None:
    texts = pa.chunked_array([["A", "a ", None], [" ", "ﬁ", "FI"]], pa.string())
    keys = text_keys(texts)
    assert keys[0] == keys[1] != keys[4] == keys[5]
    assert (keys == NO_TEXT).tolist() == [False, False, True, True, False, False]
    assert len(text_keys(pa.chunked_array([], pa.string()))) == 0
    assert text_keys(pa.chunked_array([pa.nulls(2)])).dtype == np.dtype("S16")


@pytest.mark.parametrize(
    "wrong",
    [
        {"max": 2},
        {"field": "sharpness", "copies_of": "tags", "max": 2},
        {"copies_of": "tags"},
        {"copies_of": "tags", "min": 1},
        {"copies_of": "tags", "max": 0.5},
        {"copies_of": "tags", "max": 2, "max_percentile": 5},
    ],
)
def test_a_rule_is_on_a_number_or_on_copies(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"needs one of field, copies_of|max of at least 1 and no other"):
        Rule.model_validate(wrong)


def test_a_rule_reads_back_with_its_defaults() -> None:
    assert Rule.model_validate(COPIES.model_dump(mode="json")) == COPIES
    assert "copies_of" in Recipe.model_json_schema()["$defs"]["Rule"]["properties"]


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Rule(copies_of="tag", max=2), "there is no field tag; did you mean tags?"),
        (Rule(copies_of="sharpness", max=2), "sharpness is float, not text"),
    ],
)
def test_copies_of_what_is_no_text_are_refused(tables: Any, refused: Any, rule: Rule, message: str) -> None:
    build = tables.build([{"sample_id": "a"}], [{"sample_id": "a"}])
    assert refused(build, [rule]) == message
    assert "records have no field tags" in refused(build, records=[COPIES])
