"""Rules written into the text of a recipe: what is not a changed rule stays, to the byte."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from curate.browse.recipe_text import with_rules
from curate.schema.errors import CurateError

HEAD = """\
# our recipe
name: mine   # short
sources: [{kind: folder, name: a, path: x}]
annotate: [{name: brightness}, {name: sharpness}]
"""
TAIL = """\
# at last
tokenize: {streams: [{name: caption, tokenizer: text-bpe-8k}]}
"""
BLOCK = """\
decide:
  # what is dropped
  rules:
    # dark ones
    - {field: brightness, min: 10}  # luma
    # blurred ones
    - field: sharpness   # of the middle
      min: 25.5
      max: 900
  # and copies
  near_duplicates: []
"""


def rules_of(text: str) -> list[Any]:
    rules: list[Any] = yaml.safe_load(text)["decide"]["rules"]
    return rules


def test_a_value_is_replaced_where_it_stands() -> None:
    text = HEAD + BLOCK + TAIL
    found = with_rules(text, {(0, "min"): 12.5, (1, "max"): 800.0}, [])
    assert found == text.replace("min: 10}", "min: 12.5}").replace("max: 900", "max: 800")


def test_a_bound_that_is_taken_away_and_one_that_is_added() -> None:
    found = with_rules(HEAD + BLOCK + TAIL, {(1, "max"): None}, [{"field": "contrast", "max": 3}])
    assert rules_of(found) == [
        {"field": "brightness", "min": 10},
        {"field": "sharpness", "min": 25.5},
        {"field": "contrast", "max": 3},
    ]
    for comment in (
        "# our recipe",
        "# short",
        "# what is dropped",
        "# dark ones",
        "# luma",
        "# blurred",
        "# and copies",
    ):
        assert comment in found
    assert found.startswith(HEAD)
    assert found.endswith(TAIL)


def test_a_rule_without_a_bound_goes_with_its_line_and_the_comments_above_stay() -> None:
    found = with_rules(HEAD + BLOCK + TAIL, {(0, "min"): None}, [])
    assert found == (HEAD + BLOCK + TAIL).replace("    - {field: brightness, min: 10}  # luma\n", "")


@pytest.mark.parametrize(
    "decide",
    [
        "",
        "decide:\n",
        "decide: {}\n",
        "decide: {near_duplicates: []}\n",
        "decide:\n  near_duplicates: []\n",
        "decide:\n  rules: []\n",
        "decide:\n  rules:\n",
        "decide: {rules: [{field: brightness, min: 1}]}\n",
        "decide:\n  rules: [\n    {field: brightness, min: 1},  # dark\n  ]\n",
        "decide:\n  rules:\n  - {field: brightness, min: 1}\n",
    ],
)
def test_rules_are_added_however_the_recipe_is_written(decide: str) -> None:
    text = HEAD + decide + TAIL
    before = (yaml.safe_load(text).get("decide") or {}).get("rules") or []
    found = with_rules(text, {}, [{"field": "sharpness", "min": 2}])
    assert rules_of(found) == [*before, {"field": "sharpness", "min": 2}]
    at_the_end = with_rules(HEAD + TAIL + decide.rstrip("\n"), {}, [{"field": "sharpness", "min": 1e-7}])
    assert rules_of(at_the_end) == [*before, {"field": "sharpness", "min": 1e-7}]


@pytest.mark.parametrize("decide", ["decide: {rules: [{field: brightness, min: 1}]}\n", BLOCK])
def test_the_last_rule_can_go(decide: str) -> None:
    gone = dict.fromkeys([(0, "min"), (1, "min"), (1, "max")] if decide is BLOCK else [(0, "min")])
    assert rules_of(with_rules(HEAD + decide + TAIL, gone, [])) == []


def test_a_value_that_stands_elsewhere_is_not_changed_there() -> None:
    text = HEAD + "decide:\n  rules:\n  - &first {field: brightness, min: &low 1}\n  - {field: sharpness, min: *low}\n"
    with pytest.raises(CurateError, match=r"anchors|written"):
        with_rules(text, {(1, "min"): 3.0}, [])
