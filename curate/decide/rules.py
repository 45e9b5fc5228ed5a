"""Rules of a recipe, checked before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from curate.decide.bounds import META, SAID, is_said, short, word_of
from curate.decide.methods import method
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS, SignalField
from curate.schema.nearest import closest
from curate.schema.recipe import NearDuplicates, Rule
from curate.signals.probed import PROBED
from curate.signals.registry import provider


def check_record_rules(rules: Sequence[Rule]) -> None:
    """As `check_rules`, of rules on records: these have what probing gives, and no signal's field."""
    for rule in rules:
        wanted = rule.copies_of or rule.field
        if wanted not in PROBED and not is_said(wanted):
            near = closest(wanted, [*PROBED, *SAID])
            raise CurateError(
                f"records have no field {wanted}" + (f"; did you mean {near}?" if near else ""),
                f"they have {', '.join([*PROBED, *SAID])}, meta.NAME; what signals give is for `decide: rules`",
            )
    check_rules(rules, PROBED)


def check_rules(rules: Sequence[Rule], fields: Mapping[str, SignalField]) -> None:
    """Refuse rules that cannot mean what they say; called before anything runs (law 5).

    Args:
        rules: of the recipe.
        fields: fields that rules may bound, by name.

    Raises:
        CurateError: a field that does not exist or is no number, or no text where copies are counted; a threshold
            outside the field's range; words of another type than the field's; an expression that is none; lower above
            upper percentile; kinds of samples that never have the field.
    """
    for rule in rules:
        field = _ruled(rule, fields)
        for value in (rule.min, rule.max):
            if field.is_number and value is not None and not (math.isfinite(value) and field.contains(value)):
                raise CurateError(
                    f"threshold {short(value)} for {field.name} is outside its range {field.range_text()}",
                    f"{field.name}: {field.about}" if field.about else "",
                )
        low, high = rule.min_percentile, rule.max_percentile
        if low is not None and high is not None and low > high:
            raise CurateError(
                f"{field.name}: min_percentile {short(low)} is above max_percentile {short(high)}: nothing could pass"
            )
        if not set(rule.kinds) & set(field.kinds):
            raise CurateError(
                f"the rule on {field.name} is for {_words(rule.kinds)}, which never have it",
                f"only {_words(field.kinds)} samples have {field.name}",
            )


def check_near_duplicates(specs: Sequence[NearDuplicates], fields: Mapping[str, SignalField]) -> None:
    """Refuse specifications of near duplicates whose embedding is not a vector or whose `keep` are not numbers.

    Raises:
        CurateError: with the nearest names.
    """
    vectors = {n: f for n, f in fields.items() if f.is_embedding}
    for spec in specs:
        method(spec.method)
        if spec.embedding not in fields:
            raise CurateError(*_unknown(spec.embedding, vectors, "vector fields"))
        if spec.embedding not in vectors:
            raise CurateError(
                f"{spec.embedding} is {fields[spec.embedding].type}, not a vector: near duplicates need an embedding",
                f"vector fields: {', '.join(vectors) or 'none'}",
            )
        for field in spec.keep:
            _number(field, fields, "`keep` can sort by")


def _ruled(rule: Rule, fields: Mapping[str, SignalField]) -> SignalField:
    """The field that a rule is on, of a type that it can be on."""
    if rule.copies_of:
        return _text(rule.copies_of, fields)
    known = {rule.field: SignalField(rule.field, pa.string())} if is_said(rule.field) else {}
    field = {**known, **fields}.get(rule.field)
    if rule.on_words:
        if field is None:
            words = [*(n for n, f in fields.items() if _has_words(f.type)), *SAID, f"{META}NAME"]
            raise CurateError(*_unknown(rule.field, words, "fields with words"))
        _check_words(rule, field)
        return field
    if field is not None and not rule.on_numbers:
        return field
    if known and rule.field not in fields:
        raise CurateError(f"{rule.field} is words, not a number", "rules on it: in, not_in, matches, missing")
    return _number(rule.field, fields, "a rule can bound")


def _check_words(rule: Rule, field: SignalField) -> None:
    """Refuse a field that has no words, words of another type, and an expression that is none."""
    if field.is_number:
        raise CurateError(
            f"{rule.field} is a number, not words", "rules on it: min, max, min_percentile, max_percentile"
        )
    if not _has_words(field.type):
        raise CurateError(f"{rule.field} is {field.type}, neither words nor a number", "no rule can look at it")
    boolean = pa.types.is_boolean(field.type)
    for word in (*rule.in_, *rule.not_in):
        if not field.name.startswith(META) and isinstance(word, bool) != boolean:
            want = "true or false" if boolean else "text"
            raise CurateError(f"{rule.field} is {want}, and {word_of(word)} is not", "put text in quotes in YAML")
        if field.name == "kind" and word not in KINDS:
            near = closest(word_of(word), KINDS)
            raise CurateError(
                f"there is no kind {word_of(word)}" + (f"; did you mean {near}?" if near else ""),
                f"kinds: {', '.join(KINDS)}",
            )
    if rule.matches:
        if boolean:
            raise CurateError(f"{rule.field} is true or false: `matches` looks at text", "say in: [true]")
        try:
            pc.match_substring_regex(pa.array([""]), rule.matches)
        except pa.ArrowInvalid as exc:
            raise CurateError(
                f"matches of {rule.field} is no regular expression: {exc}", "the syntax is that of RE2"
            ) from exc


def _has_words(kind: pa.DataType) -> bool:
    """True for strings, booleans, and lists of strings."""
    item = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_string(item) or (pa.types.is_boolean(item) and item is kind))


def _number(wanted: str, fields: Mapping[str, SignalField], use: str) -> SignalField:
    numbers = {n: f for n, f in fields.items() if f.is_number}
    if wanted not in fields:
        raise CurateError(*_unknown(wanted, numbers, f"fields that {use}"))
    if wanted not in numbers:
        raise CurateError(
            f"{wanted} is {fields[wanted].type}, not a number", f"fields that {use}: {', '.join(numbers) or 'none'}"
        )
    return numbers[wanted]


def _text(wanted: str, fields: Mapping[str, SignalField]) -> SignalField:
    texts = {n: f for n, f in fields.items() if pa.types.is_string(f.type)}
    if wanted not in fields:
        raise CurateError(*_unknown(wanted, texts, "fields with text"))
    if wanted not in texts:
        raise CurateError(
            f"{wanted} is {fields[wanted].type}, not text", f"fields with text: {', '.join(texts) or 'none'}"
        )
    return texts[wanted]


def _unknown(wanted: str, known: Iterable[str], what: str) -> tuple[str, str]:
    names = list(known)
    near, giver = closest(wanted, names), provider(wanted)
    if giver is not None:
        return f"there is no field {wanted}: the signal {giver} gives it", f"list it: annotate: [{{name: {giver}}}]"
    return (
        f"there is no field {wanted}" + (f"; did you mean {near}?" if near else ""),
        f"{what}: {', '.join(names) or 'none'}",
    )


def _words(kinds: Iterable[str]) -> str:
    return " and ".join(k for k in KINDS if k in set(kinds))
