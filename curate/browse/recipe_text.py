"""Rules of a recipe changed in its text: what is not a changed rule stays as it is, to the byte, comments too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from curate.schema.errors import CurateError
from curate.schema.recipe import Recipe

KEYS = ("min", "max", "min_percentile", "max_percentile")
"""Of a rule, that can be moved."""

Changes = Mapping[tuple[int, str], float | None]
"""By number of a rule in `decide: rules` and one of KEYS: its new value; None takes it away."""


def with_rules(text: str, changes: Changes, added: Sequence[Mapping[str, Any]]) -> str:
    """The text of a recipe with other bounds.

    A value is replaced where it stands; a rule that loses a bound is written anew on one line, or goes with its lines
    if it has no other; a new rule comes after the last.

    Args:
        added: rules, as a recipe writes them.

    Raises:
        CurateError: the file is written in a way (anchors, merge keys) that this cannot change.
    """
    decide = _value(yaml.compose(text, Loader=yaml.SafeLoader), "decide")
    rules = _value(decide, "rules")
    listed: list[dict[str, Any]] = ((yaml.safe_load(text).get("decide") or {}).get("rules")) or []
    wanted = [dict(rule) for rule in listed]
    gone = set[int]()
    edits: list[tuple[int, int, str]] = []  # from, to, what comes in place
    rewritten = set[int]()
    for (number, key), value in changes.items():
        if value is None:
            wanted[number].pop(key, None)
            rewritten.add(number)
        else:
            wanted[number][key] = written(value)
    for number in rewritten:
        if (
            not set(wanted[number])
            - {"field", "kinds", "copies_of"}
            - {k for k, v in wanted[number].items() if v is None}
        ):
            gone.add(number)
    left = [rule for number, rule in enumerate(wanted) if number not in gone] + [dict(rule) for rule in added]
    whole = (gone or added) and (
        not isinstance(rules, yaml.SequenceNode) or rules.flow_style or len(gone) == len(wanted)
    )
    if whole:
        edits.append(_whole(text, decide, rules, left))
    else:
        assert isinstance(rules, yaml.SequenceNode), "there are rules"
        for number, item in enumerate(rules.value):
            start, end = item.start_mark.index, _end(item)
            if number in gone:
                edits.append((*_lines(text, start, end), ""))
            elif number in rewritten:
                edits.append((start, end, _flow(wanted[number])))
            else:
                for key in KEYS:
                    if (number, key) in changes:
                        node = _value(item, key)
                        if node is None:
                            raise CurateError(f"rule {number + 1} has no {key} to change")
                        edits.append((node.start_mark.index, _end(node), _flow(wanted[number][key])))
        if added:
            at = _lines(text, 0, _end(rules))[1]
            indent = " " * rules.start_mark.column
            lines = "".join(f"{indent}- {_flow(rule)}\n" for rule in added)
            edits.append((at, at, lines if text[:at].endswith("\n") else f"\n{lines}"))
    after = text
    for start, end, new in sorted(edits, reverse=True):
        after = after[:start] + new + after[end:]
    _check(text, after, left)
    return after


def _whole(
    text: str, decide: yaml.Node | None, rules: yaml.Node | None, left: list[dict[str, Any]]
) -> tuple[int, int, str]:
    """An edit that writes all rules anew."""
    if rules is not None:
        space = "" if text[rules.start_mark.index - 1].isspace() else " "
        return rules.start_mark.index, _end(rules), space + _flow(left)
    if isinstance(decide, yaml.MappingNode) and decide.value:
        first = decide.value[0][0].start_mark
        separator = ", " if decide.flow_style else "\n" + " " * first.column
        return first.index, first.index, f"rules: {_flow(left)}{separator}"
    if decide is not None:
        return decide.start_mark.index, _end(decide), f" {{rules: {_flow(left)}}}"
    lines = "".join(f"\n    - {_flow(rule)}" for rule in left)
    return len(text), len(text), f"{'' if text.endswith(chr(10)) else chr(10)}decide:\n  rules:{lines}\n"


def _check(before: str, after: str, left: list[dict[str, Any]]) -> None:
    """Refuse a text that does not say what it was to say, or says something else differently."""
    wanted = yaml.safe_load(before)
    wanted["decide"] = {**(wanted.get("decide") or {}), "rules": left}
    try:
        said = yaml.safe_load(after)
        Recipe.model_validate(said)
    except (yaml.YAMLError, ValueError) as error:
        raise CurateError(f"the rules cannot be written into this file: {error}", "edit it by hand") from error
    said["decide"] = {"rules": [], **(said.get("decide") or {})}
    if said != wanted:
        raise CurateError(
            "the rules cannot be written into this file: it may use anchors or merge keys", "edit it by hand"
        )


def _value(node: yaml.Node | None, key: str) -> yaml.Node | None:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for name, value in node.value if name.value == key), None)


def _end(node: yaml.Node) -> int:
    """Where a node's text ends; of block collections that is where their last value does."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _lines(text: str, start: int, end: int) -> tuple[int, int]:
    """The whole lines around a span."""
    after = text.find("\n", end)
    return text.rfind("\n", 0, start) + 1, len(text) if after < 0 else after + 1


def _flow(value: Any) -> str:
    """A value on one line."""
    said: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    return said.removesuffix("\n").removesuffix("\n...").removesuffix("...").rstrip()


def written(value: float) -> float | int:
    """A number as a person writes it: whole ones without a point."""
    return int(value) if value.is_integer() and abs(value) < 1e15 else value
