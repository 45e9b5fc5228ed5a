"""Rules are refused before anything runs, or they mean what they say."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from curate.decide.bounds import beyond, thresholds_of
from curate.decide.rules import check_near_duplicates, check_rules
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.recipe import NearDuplicates, Rule
from curate.signals.probed import PROBED


def refused(rule: Rule, fields: dict[str, SignalField]) -> CurateError:
    with pytest.raises(CurateError) as caught:
        check_rules([rule], fields)
    return caught.value


@pytest.mark.parametrize(
    ("field", "bound", "sentence"),
    [
        ("aesthetic", {"min": 0.5}, "threshold 0.5 for aesthetic is outside its range 1 to 10 score"),
        ("aesthetic", {"max": 10.5}, "threshold 10.5 for aesthetic is outside its range 1 to 10 score"),
        ("sharpness", {"min": -0.001}, "threshold -0.001 for sharpness is outside its range 0 to 100 score"),
        ("motion", {"min": -1}, "threshold -1 for motion is outside its range 0 to inf px/frame"),
        ("loudness", {"min": float("nan")}, "threshold nan for loudness is outside its range -inf to inf LUFS"),
        ("loudness", {"max": float("inf")}, "threshold inf for loudness is outside its range -inf to inf LUFS"),
    ],
)
def test_a_threshold_outside_the_range_is_refused_with_the_range(tables, field, bound, sentence):
    assert refused(Rule(field=field, **bound), tables.fields).message == sentence


@pytest.mark.parametrize("threshold", [1, 5.5, 10])
def test_a_threshold_inside_the_range_or_on_its_end_is_accepted(tables, threshold):
    check_rules([Rule(field="aesthetic", min=threshold)], tables.fields)


def test_a_float32_is_widened_and_a_threshold_never_narrowed():
    values = np.array([0.1, np.nextafter(np.float32(0.1), np.float32(0)), np.nan], np.float32)  # the first is above 0.1
    most, least = thresholds_of([Rule(field="sharpness", max=0.1), Rule(field="sharpness", min=0.1)])
    assert beyond(most, values).tolist() == [True, False, False]
    assert beyond(least, values).tolist() == [False, True, False]


def test_an_unknown_field_comes_with_the_nearest_name_and_the_fields_there_are(tables):
    error = refused(Rule(field="sharpnes", min=1), tables.fields)
    assert error.message == "there is no field sharpnes; did you mean sharpness?"
    assert error.hint == "fields that a rule can bound: sharpness, motion, aesthetic, loudness, faces"
    assert refused(Rule(field="zzz", min=1), tables.fields).message == "there is no field zzz"


def test_a_field_of_a_signal_that_is_not_listed_comes_with_the_line_to_add(tables):
    error = refused(Rule(field="brightness", min=1), tables.fields)
    assert error.message == "there is no field brightness: the signal brightness gives it"
    assert error.hint == "list it: annotate: [{name: brightness}]"


@pytest.mark.parametrize("field", ["tags", "look"])
def test_text_and_vectors_cannot_be_bounded(tables, field):
    error = refused(Rule(field=field, min=1), tables.fields)
    assert error.message.startswith(f"{field} is ")
    assert error.message.endswith(", not a number")


def test_a_rule_for_kinds_that_never_have_the_field_is_refused(tables):
    error = refused(Rule(field="motion", min=1, kinds=["image", "audio"]), tables.fields)
    assert error.message == "the rule on motion is for image and audio, which never have it"
    assert error.hint == "only video samples have motion"
    check_rules([Rule(field="motion", min=1, kinds=["image", "video"])], tables.fields)


def test_percentiles_that_let_nothing_pass_are_refused(tables):
    error = refused(Rule(field="motion", min_percentile=95, max_percentile=5), tables.fields)
    assert "min_percentile 95 is above max_percentile 5" in error.message


def test_records_have_the_probed_fields():
    check_rules([Rule(field=f, min=1) for f in ("width", "pixels", "duration", "fps")], PROBED)
    assert "range 1 to inf px" in refused(Rule(field="width", min=0), dict(PROBED)).message


def test_names_of_bounds_are_read_by_people():
    rule = Rule(field="motion", min=0.25, max=1234567, min_percentile=5, max_percentile=99.9)
    assert [b.name for b in thresholds_of([rule, Rule(field="sharpness", min=20)])] == [
        "motion >= 0.25",
        "motion <= 1234567",
        "motion >= p5",
        "motion <= p99.9",
        "sharpness >= 20",
    ]


def test_equal_names_for_different_kinds_are_told_apart():
    rules = [Rule(field="sharpness", min_percentile=5, kinds=[kind]) for kind in ("image", "video")]
    assert [b.name for b in thresholds_of(rules)] == ["sharpness >= p5 (image)", "sharpness >= p5 (video)"]


def test_near_duplicates_need_a_vector_and_numbers_to_keep_by(tables):
    def refusal(**spec):
        with pytest.raises(CurateError) as caught:
            check_near_duplicates([NearDuplicates(**spec)], {**PROBED, **tables.fields})
        return caught.value

    check_near_duplicates([NearDuplicates(embedding="look")], {**PROBED, **tables.fields})
    assert refusal(embedding="lok").message == "there is no field lok; did you mean look?"
    assert refusal(embedding="lok").hint == "vector fields: look, sound"
    assert refusal(embedding="motion").message.startswith(f"motion is {pa.float32()}, not a vector")
    assert refusal(embedding="look", keep=["tags"]).message == "tags is string, not a number"


def test_a_method_that_does_not_exist_comes_with_the_nearest_name(tables):
    with pytest.raises(CurateError) as caught:
        check_near_duplicates([NearDuplicates(embedding="look", method="cosin")], tables.fields)
    assert caught.value.message == "no method for near duplicates `cosin`; did you mean `cosine`?"
    assert caught.value.hint == "there are: cosine; or package.module:Class for one of your own"
