"""Bounds: each end of a rule, and what breaks it, over whole columns.

A bound on numbers works on float64: a float32 column is widened, never the threshold narrowed, so `value` and
`threshold` in the ledger are the two numbers that were compared. A null value ("not applicable", "not evaluated")
breaks no bound but one that asks whether there is a value.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.schema.fields import KINDS
from curate.schema.ids import key_of
from curate.schema.recipe import Rule

SAID = ("licence", "source", "kind")
"""Columns of records and samples that rules on words may name."""

META = "meta."
"""What comes before the name of a column of a table, or of a key of a sidecar."""

LISTED = 6
"""Words that the name of a rule lists."""

DIGEST = 8
"""Hex digits of a digest of words in a name."""


@dataclass(frozen=True)
class Threshold:
    """One end of a rule.

    Attributes:
        name: what the ledger and the card call it: `sharpness >= 20`, `motion >= p5`. Where another rule of the recipe
            would otherwise have the same name, a digest of all its words is added, if these differ, and then the kinds,
            as in `motion >= p5 (video)`.
        field: column; of a bound on copies, what is counted, `copies of caption`.
        op: values for which `value op threshold` is false are dropped.
        value: absolute; None for a percentile that is not resolved yet or that no sample has a value for, and of one on
            words.
        percentile: 0 to 100 for a percentile, else None.
        kinds: kinds of samples that it looks at.
        copies_of: text field of a bound on how many samples carry the same text; empty of one on a number.
        words: of `in` and `not in` the words, of `matches` the expression.
        fails: what breaks it is failed, not dropped.
    """

    name: str
    field: str
    op: Literal[">=", "<=", "in", "not in", "matches", "not missing"]
    value: float | None
    percentile: float | None
    kinds: tuple[str, ...]
    copies_of: str = ""
    words: tuple[str, ...] = ()
    fails: bool = False

    @property
    def is_number(self) -> bool:
        """True if it compares a column of numbers."""
        return self.op in (">=", "<=") and not self.copies_of

    @property
    def is_words(self) -> bool:
        """True if it is on words, or on whether there is a value: then each partition settles it by itself."""
        return self.op not in (">=", "<=")

    def looks_at(self, kind: NDArray[np.int8]) -> NDArray[np.bool_]:
        """Rows of its kinds, from their numbers in KINDS."""
        return np.isin(kind, [KINDS.index(k) for k in self.kinds])


def thresholds_of(rules: Sequence[Rule]) -> list[Threshold]:
    """The bounds of `rules` in recipe order; in a rule: min, max, min_percentile, max_percentile, in, not_in, matches,
    missing."""
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
                    Threshold(f"{of} {op} {short(absolute)}", of, op, absolute, None, tuple(rule.kinds), rule.copies_of)
                )
            if percentile is not None:
                called = f"{of} {op} p{short(percentile)}"
                out.append(Threshold(called, of, op, None, percentile, tuple(rule.kinds)))
        out += _on_words(rule)
    words: dict[str, set[tuple[str, ...]]] = {}
    for bound in out:
        words.setdefault(bound.name, set()).add(bound.words)
    # lists that begin with the same words, or words that hold commas
    out = [replace(b, name=f"{b.name} #{key_of(b.words)[:DIGEST]}") if len(words[b.name]) > 1 else b for b in out]
    times = Counter(b.name for b in out)
    return [replace(b, name=f"{b.name} ({', '.join(b.kinds)})") if times[b.name] > 1 else b for b in out]


def _on_words(rule: Rule) -> list[Threshold]:
    kinds = tuple(rule.kinds)
    out = []
    lists: tuple[tuple[Literal["in", "not in"], Sequence[object]], ...] = (("in", rule.in_), ("not in", rule.not_in))
    for op, listed in lists:
        if listed:
            words = tuple(map(word_of, listed))
            shown = ", ".join(words[:LISTED]) + (f" and {len(words) - LISTED} more" if len(words) > LISTED else "")
            out.append(Threshold(f"{rule.field} {op} [{shown}]", rule.field, op, None, None, kinds, words=words))
    if rule.matches:
        name = f"{rule.field} matches {rule.matches}"
        out.append(Threshold(name, rule.field, "matches", None, None, kinds, words=(rule.matches,)))
    if rule.missing != "keep":
        fails = rule.missing == "fail"
        out.append(Threshold(f"{rule.field} not missing", rule.field, "not missing", None, None, kinds, fails=fails))
    return out


def first_broken(
    rules: Sequence[Threshold],
    values: Mapping[str, NDArray[np.float64]],
    kind: NDArray[np.int8],
    words: Mapping[int, pa.Array] | None = None,
) -> NDArray[np.int16]:
    """The number of the first bound that each row breaks, -1 where it breaks none.

    Args:
        rules: with percentiles resolved; bounds on copies are left to `curate.decide.copied`.
        values: by field, `(n,)`, NaN for null.
        kind: `(n,)`, numbers in KINDS, -1 for none.
        words: by number of a bound on words, strings `(n,)`, null where it is not broken.
    """
    broke = np.full(len(kind), -1, np.int16)
    for i, bound in enumerate(rules):
        if bound.value is not None and not bound.copies_of:
            breaks = beyond(bound, values[bound.field])
        elif words is not None and i in words:
            breaks = words[i].is_valid().to_numpy(zero_copy_only=False)
        else:
            continue
        broke[breaks & (broke < 0) & bound.looks_at(kind)] = i
    return broke


def beyond(bound: Threshold, values: NDArray[Any]) -> NDArray[np.bool_]:
    """Numbers that break an absolute bound, bool `(n,)`.

    Args:
        values: float32 or float64 `(n,)`, compared as float64; NaN breaks none.
    """
    edge = np.float64(math.nan if bound.value is None else bound.value)
    return values < edge if bound.op == ">=" else values > edge


def is_said(field: str) -> bool:
    """True if a source says it: a column of records that rules on words may name."""
    return field in SAID or (field.startswith(META) and field != META)


def word_of(word: object) -> str:
    """A word of a recipe as it stands in a column: a boolean as JSON writes it."""
    return str(word).lower() if isinstance(word, bool) else str(word)


def short(value: float) -> str:
    """The shortest text that reads back as this number: `20`, `0.05`."""
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
