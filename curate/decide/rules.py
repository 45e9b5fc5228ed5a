"""Rules: bounds on number columns, checked before anything runs and applied to whole columns.

A bound works on float64: a float32 column is widened, never the threshold narrowed, so `value` and `threshold` in the
ledger are the two numbers that were compared. A null value ("not applicable", "not evaluated") breaks no bound.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.decide.methods import method
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS, SignalField
from curate.schema.nearest import closest
from curate.schema.recipe import NearDuplicates, Rule
from curate.signals.probed import PROBED
from curate.signals.registry import provider


@dataclass(frozen=True)
class Threshold:
    """One end of a rule.

    Attributes:
        name: what the ledger and the card call it: `sharpness >= 20`, `motion >= p5`; the kinds are added, as in
            `motion >= p5 (video)`, where another rule of the recipe would otherwise have the same name.
        field: column; of a bound on copies, what is counted, `copies of caption`.
        op: values for which `value op threshold` is false are dropped.
        value: absolute; None for a percentile that is not resolved yet or that no sample has a value for.
        percentile: 0 to 100 for a percentile, else None.
        kinds: kinds of samples that it looks at.
        copies_of: text field of a bound on how many samples carry the same text; empty of one on a number.
    """

    name: str
    field: str
    op: Literal[">=", "<="]
    value: float | None
    percentile: float | None
    kinds: tuple[str, ...]
    copies_of: str = ""

    def looks_at(self, kind: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Rows of its kinds, from their numbers in KINDS."""
        return np.isin(kind, [KINDS.index(k) for k in self.kinds])


def thresholds_of(rules: Sequence[Rule]) -> list[Threshold]:
    """The bounds of `rules` in recipe order; in a rule: min, max, min_percentile, max_percentile."""
    out = []
    for rule in rules:
        of = f"copies of {rule.copies_of}" if rule.copies_of else rule.field
        ends: tuple[tuple[Literal[">=", "<="], float | None, float | None], ...] = (
            (">=", rule.min, None),
            ("<=", rule.max, None),
            (">=", None, rule.min_percentile),
            ("<=", None, rule.max_percentile),
        )
        for op, absolute, percentile in ends:
            if absolute is not None:
                out.append(
                    Threshold(
                        f"{of} {op} {_short(absolute)}", of, op, absolute, None, tuple(rule.kinds), rule.copies_of
                    )
                )
            if percentile is not None:
                called = f"{of} {op} p{_short(percentile)}"
                out.append(Threshold(called, of, op, None, percentile, tuple(rule.kinds)))
    times = Counter(b.name for b in out)
    return [replace(b, name=f"{b.name} ({', '.join(b.kinds)})") if times[b.name] > 1 else b for b in out]


def check_record_rules(rules: Sequence[Rule]) -> None:
    """As `check_rules`, of rules on records: these have what probing gives, and no signal's field."""
    for rule in rules:
        wanted = rule.copies_of or rule.field
        if wanted not in PROBED:
            near = closest(wanted, PROBED)
            raise CurateError(
                f"records have no field {wanted}" + (f"; did you mean {near}?" if near else ""),
                f"they have {', '.join(PROBED)}; what signals give is bounded under `decide: rules`",
            )
    check_rules(rules, PROBED)


def check_rules(rules: Sequence[Rule], fields: Mapping[str, SignalField]) -> None:
    """Refuse rules that cannot mean what they say; called before anything runs (law 5).

    Args:
        rules: of the recipe.
        fields: fields that rules may bound, by name.

    Raises:
        CurateError: a field that does not exist or is no number, or no text where copies are counted; a threshold
            outside the field's range; lower above upper percentile; kinds of samples that never have the field.
    """
    for rule in rules:
        field = _text(rule.copies_of, fields) if rule.copies_of else _number(rule.field, fields, "a rule can bound")
        for value in (rule.min, rule.max):
            if field.is_number and value is not None and not (math.isfinite(value) and field.contains(value)):
                raise CurateError(
                    f"threshold {_short(value)} for {field.name} is outside its range {field.range_text()}",
                    f"{field.name}: {field.about}" if field.about else "",
                )
        low, high = rule.min_percentile, rule.max_percentile
        if low is not None and high is not None and low > high:
            raise CurateError(
                f"{field.name}: min_percentile {_short(low)} is above max_percentile {_short(high)}: nothing could pass"
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


def first_broken(
    rules: Sequence[Threshold], values: Mapping[str, NDArray[np.float64]], kind: NDArray[np.int8]
) -> NDArray[np.int16]:
    """The number of the first bound that each row breaks, -1 where it breaks none.

    Args:
        rules: with percentiles resolved; bounds on copies are left to `curate.decide.copied`.
        values: by field, `(n,)`, NaN for null.
        kind: `(n,)`, numbers in KINDS, -1 for none.
    """
    broke = np.full(len(kind), -1, np.int16)
    for i, bound in enumerate(rules):
        if bound.value is not None and not bound.copies_of:
            value = values[bound.field]
            breaks = value < bound.value if bound.op == ">=" else value > bound.value
            broke[breaks & (broke < 0) & bound.looks_at(kind)] = i
    return broke


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


def _short(value: float) -> str:
    """The shortest text that reads back as this number: `20`, `0.05`."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
