"""Rules on words and on what is missing: refused with a sentence, or meaning what they say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from curate.decide.bounds import thresholds_of
from curate.decide.rules import check_record_rules, check_rules
from curate.decide.words import SHOWN, broken
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.recipe import Rule

MORE = {
    "labels": SignalField("labels", pa.list_(pa.string())),
    "hdr": SignalField("hdr", pa.bool_()),
    "tags": SignalField("tags", pa.string()),
    "sharpness": SignalField("sharpness", pa.float32(), "score", (0, 100), ("image", "video")),
    "look": SignalField("look", pa.list_(pa.float32(), 8)),
}


def rule(**said):
    return Rule.model_validate(said)


def sentence(**said):
    with pytest.raises(CurateError) as caught:
        check_rules([rule(**said)], MORE)
    return caught.value.message


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"field": "licens", "in": ["a"]}, "there is no field licens; did you mean licence?"),
        ({"field": "tag", "in": ["a"]}, "there is no field tag; did you mean tags?"),
        ({"field": "licence", "min": 1}, "licence is words, not a number"),
        ({"field": "tags", "min": 1}, "tags is string, not a number"),
        ({"field": "sharpness", "matches": "a"}, "sharpness is a number, not words"),
        ({"field": "hdr", "matches": "a"}, "hdr is true or false: `matches` looks at text"),
        ({"field": "hdr", "in": ["yes"]}, "hdr is true or false, and yes is not"),
        ({"field": "licence", "in": [False]}, "licence is text, and false is not"),
        ({"field": "kind", "in": ["imge"]}, "there is no kind imge; did you mean image?"),
        ({"field": "look", "in": ["a"]}, "look is fixed_size_list<item: float>[8], neither words nor a number"),
    ],
)
def test_a_rule_that_cannot_mean_what_it_says_is_refused(said, message):
    assert sentence(**said) == message


def test_an_expression_that_does_not_compile_is_refused_with_what_is_wrong():
    assert sentence(field="licence", matches="CC(").startswith("matches of licence is no regular expression: ")
    assert "no regular expression" in sentence(field="licence", matches=r"(a)\1")  # RE2 has no references back


@pytest.mark.parametrize(
    "said",
    [
        {"field": "licence"},
        {"field": "licence", "in": ["a"], "min": 1},
        {"copies_of": "tags", "max": 3, "missing": "drop"},
        {"copies_of": "tags", "max": 3, "in": ["a"]},
        {"field": "licence", "missing": "lose"},
    ],
)
def test_a_rule_says_one_thing(said):
    with pytest.raises(ValidationError):
        rule(**said)


def test_names_of_rules_on_words_are_read_by_people():
    rules = [
        rule(field="licence", not_in=["all-rights-reserved"], missing="drop"),
        rule(field="meta.shop", **{"in": list("abcdefgh")}),
        rule(field="source", matches="^web-"),
        rule(field="hdr", **{"in": [True]}),
    ]
    assert [b.name for b in thresholds_of(rules)] == [
        "licence not in [all-rights-reserved]",
        "licence not missing",
        "meta.shop in [a, b, c, d, e, f and 2 more]",
        "source matches ^web-",
        "hdr in [true]",
    ]


def test_no_two_lists_have_one_name():
    lists = [list("abcdefgh"), list("abcdefgi"), list("abcdefg"), ["a, b"], ["a", "b"]]
    first, second, alone, *commas = (b.name for b in thresholds_of([rule(field="kind", **{"in": x}) for x in lists]))
    assert first.startswith("kind in [a, b, c, d, e, f and 2 more] #")
    assert second.startswith("kind in [a, b, c, d, e, f and 2 more] #")
    assert alone == "kind in [a, b, c, d, e, f and 1 more]", "as it was where it tells"
    assert len({first, second, alone, *commas}) == 5
    same = [rule(field="licence", **{"in": ["x"]}, kinds=[kind]) for kind in ("image", "audio")]
    assert [b.name for b in thresholds_of(same)] == ["licence in [x] (image)", "licence in [x] (audio)"]


META = [
    {"shop": "x"},
    {"shop": ["x", "y"]},
    {"shop": []},
    {"shop": None},
    {},
    {"shop": 5, "a/b~": True},
    {"shop": "all\nof\nit"},
]


@pytest.mark.parametrize(
    ("said", "dropped"),
    [
        ({"field": "meta.shop", "in": ["x"]}, {"2": "", "5": "5", "6": "all\nof\nit"}),
        ({"field": "meta.shop", "not_in": ["x"]}, {"0": "x", "1": "x, y"}),
        ({"field": "meta.shop", "in": [5]}, {"0": "x", "1": "x, y", "2": "", "6": "all\nof\nit"}),
        ({"field": "meta.shop", "matches": "[x5l]"}, {"2": ""}),
        ({"field": "meta.shop", "missing": "drop"}, {"3": "missing", "4": "missing"}),
        ({"field": "meta.a/b~", "not_in": [True]}, {"5": "true"}),
        ({"field": "licence", "in": ["0", "1"], "missing": "drop"}, dict.fromkeys("2345", "own") | {"6": "missing"}),
        ({"field": "source", "in": ["s"]}, {}),
        ({"field": "kind", "not_in": ["image"], "kinds": ["video"]}, {}),
    ],
)
@pytest.mark.parametrize("parts", [1, 3])
def test_what_the_source_says(tables, said, dropped, parts):
    licences = ["0", "1", "own", "own", "own", "own", None]
    records = [
        {"record_id": f"r{i}", "meta": json.dumps(meta), "licence": licence}
        for i, (meta, licence) in enumerate(zip(META, licences, strict=True))
    ]
    samples = [{"sample_id": str(i), "record_id": f"r{i}", "licence": licence} for i, licence in enumerate(licences)]
    build = tables.build(samples, [{"sample_id": s["sample_id"]} for s in samples], records, parts=parts)
    rows = build.verdicts([rule(**said)])
    assert {i: r["value_text"] for i, r in rows.items() if r["outcome"] == "dropped"} == dropped
    assert all(r["rule"] in [b.name for b in thresholds_of([rule(**said)])] for r in rows.values() if "rule" in r)
    of_records = build.verdicts(records=[rule(**said)], level="record")
    assert {i: r["value_text"] for i, r in of_records.items() if r["outcome"] == "dropped"} == {
        f"r{i}": value for i, value in dropped.items()
    }


@pytest.mark.parametrize(
    ("said", "dropped"),
    [
        ({"field": "tags", "in": ["a"]}, {"1": "b", "3": ""}),
        ({"field": "tags", "not_in": ["a", ""]}, {"0": "a", "3": ""}),
        ({"field": "tags", "matches": "^a$"}, {"1": "b", "3": ""}),
        ({"field": "tags", "missing": "drop"}, {"2": "missing"}),
    ],
)
def test_strings_of_a_signal(tables, said, dropped):
    signals = [{"sample_id": str(i), "tags": tag} for i, tag in enumerate(["a", "b", None, ""])]
    rows = tables.build([{"sample_id": s["sample_id"]} for s in signals], signals).verdicts([rule(**said)])
    assert {i: r["value_text"] for i, r in rows.items() if r["outcome"] == "dropped"} == dropped


@pytest.mark.parametrize(
    ("kind", "values", "said", "dropped"),
    [
        (pa.bool_(), [True, False, None], {"in": [True]}, {"1": "false"}),
        (pa.bool_(), [True, False, None], {"not_in": [True], "missing": "drop"}, {"0": "true", "2": "missing"}),
        (pa.list_(pa.string()), [["a", None], [], None, ["b"]], {"in": ["a"]}, {"1": "", "3": "b"}),
        (pa.list_(pa.string()), [["a", None], [], None, ["b"]], {"not_in": ["a"]}, {"0": "a, null"}),
        (pa.list_(pa.string()), [["a", None], [], None, ["b"]], {"matches": "[ab]"}, {"1": ""}),
    ],
)
def test_booleans_and_lists_of_a_signal(tables, kind, values, said, dropped):
    fields = {**tables.fields, "tags": replace(tables.fields["tags"], type=kind)}
    signals = [{"sample_id": str(i), "tags": value} for i, value in enumerate(values)]
    build = tables.build([{"sample_id": s["sample_id"]} for s in signals], signals, fields=fields, parts=2)
    rows = build.verdicts([rule(field="tags", **said)])
    assert {i: r["value_text"] for i, r in rows.items() if r["outcome"] == "dropped"} == dropped


def test_a_number_that_is_missing_is_kept_dropped_or_failed_as_the_rule_says(tables):
    samples = [{"sample_id": "none"}, {"sample_id": "some"}, {"sample_id": "less"}]
    samples += [{"sample_id": "sound", "kind": "audio"}, {"sample_id": "broken"}]
    signals = [{"sample_id": s["sample_id"]} for s in samples]
    signals[1]["sharpness"], signals[2]["sharpness"], signals[4]["one"] = 30.0, 10.0, tables.failed
    build = tables.build(samples, signals)

    def said(**more):
        rows = build.verdicts([rule(field="sharpness", min=20, **more)])
        return {i: r.get("rule") or r.get("error") or r["outcome"] for i, r in rows.items()}, rows

    ends = {"some": "kept", "less": "sharpness >= 20", "sound": "kept", "broken": "MediaError"}
    assert said()[0] == ends | {"none": "kept"}
    assert said(missing="drop")[0] == ends | {"none": "sharpness not missing"}
    found, rows = said(missing="fail")
    assert found == ends | {"none": "MissingValue"}  # audio never has it, so it misses nothing
    assert rows["none"]["message"] == "there is no sharpness, and a rule says `missing: fail`"
    assert (rows["none"]["stage"], rows["none"]["attempt"]) == ("decide", 1)


def test_a_record_without_a_licence_fails_where_the_rule_says_so(tables):
    records = [{"record_id": "r1", "licence": "CC0"}, {"record_id": "r2"}]
    build = tables.build([{"sample_id": "a", "record_id": r} for r in ("r1", "r2")][:1], [{"sample_id": "a"}], records)
    rows = build.verdicts(records=[rule(field="licence", missing="fail")], level="record")
    assert {i: (r["outcome"], r.get("error")) for i, r in rows.items()} == {
        "r1": ("sampled", None),
        "r2": ("failed", "MissingValue"),
    }


def test_a_failed_tokenizing_does_not_hide_that_a_value_is_missing(tables):
    build = tables.build(
        [{"sample_id": "a"}, {"sample_id": "b"}], [{"sample_id": "a"}, {"sample_id": "b", "tags": "x"}]
    )
    build.tokenize({"a": {**tables.failed, "stage": "tokenize:t"}, "b": None})
    rows = build.verdicts([rule(field="tags", missing="fail")])
    assert (rows["a"]["stage"], rows["b"]["outcome"]) == ("decide", "kept")


def test_what_the_second_look_has_not_seen_is_not_missing():
    (bound,) = thresholds_of([rule(field="tags", missing="drop")])
    said = broken(bound, pa.array([None, None, "a"]), np.array([True, False, True]))
    assert said.to_pylist() == ["missing", None, None]


def test_the_ledger_shows_the_start_of_a_long_value():
    (bound,) = thresholds_of([rule(field="tags", matches="x")])
    assert broken(bound, pa.array(["ä" * 1000]), np.ones(1, bool)).to_pylist() == ["ä" * SHOWN]


def test_records_have_no_field_of_a_signal():
    check_record_rules([rule(field="meta.shop", matches="a"), rule(field="licence", missing="drop")])
    with pytest.raises(CurateError) as caught:
        check_record_rules([rule(field="licenc", missing="drop")])
    assert caught.value.message == "records have no field licenc; did you mean licence?"
