"""Rules that are moved on the page: what would be kept, and what the recipe would say. The build stays as it is.

The page names a bound by its rule's number in `decide: rules` and its key (`min`, `max_percentile`); rules that it adds
come after those. Everything else that it sends is a name of a field, or a number.
"""

from __future__ import annotations

import difflib
import os
import shlex
import tempfile
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray
from pydantic import ValidationError

from curate.browse.columns import BINS, Columns
from curate.browse.histograms import Histograms
from curate.browse.judged import Judged, Mask, Verdicts
from curate.browse.labels import Labels
from curate.browse.query import known, number
from curate.browse.recipe_text import KEYS, with_rules, written
from curate.browse.table import Browsed
from curate.decide.bounds import Threshold
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.schema.recipe import Recipe, Rule
from curate.schema.recipe_file import RecipeFile

SHOWN = 24
"""Samples that fall, or come back, that are shown."""

NEAR = 10
"""Samples that are shown on each side of a line."""

STRIP = 16
"""Places along an axis that a sample is shown of."""

THREADS = 2
"""Histograms that are made at once; of a million samples each takes 30 MB meanwhile."""

MOST_ADDED = 100
"""Rules that the page may add."""


@dataclass(frozen=True)
class Moved:
    """Rules as the page has them.

    Attributes:
        changes: by number of a rule of the recipe and key, the new value; None takes it away.
        added: rules after those of the recipe.
        rules: numbers and rules, with the shortest length that `cut` sets as number -1; a rule that lost all of its
            bounds is left out.
    """

    changes: dict[tuple[int, str], float | None]
    added: list[dict[str, Any]]
    rules: list[tuple[int, Rule]]

    @property
    def ends(self) -> list[tuple[int, str]]:
        """The rule and key of each bound, in the order of `thresholds_of`; of one that cannot be moved no key."""
        out = []
        for which, rule in self.rules:
            keys = [key for key in KEYS if getattr(rule, key) is not None]
            more = bool(rule.in_) + bool(rule.not_in) + bool(rule.matches) + (rule.missing != "keep")
            out += [(which, "" if which < 0 else key) for key in keys] + [(which, "")] * more
        return out


class Moving:
    """Answers the page about rules.

    Args:
        labels: that rules are held against.
        recipe: file that rules may be written into; its rules are those that the page starts from. Without one they
            are those of the build.

    Raises:
        CurateError: the recipe cannot be read.
    """

    def __init__(self, browsed: Browsed, columns: Columns, labels: Labels, recipe: Path | None) -> None:
        self._browsed, self._columns, self._labels, self._file = browsed, columns, labels, recipe
        self._histograms = Histograms(columns)
        self._lock = threading.RLock()
        self._recipe, self._text = self._read()

    def about(self) -> dict[str, Any]:
        """The histograms of all numbers that some sample has, those with rules first, and what the counts stand on."""
        with self._lock, ThreadPoolExecutor(THREADS) as pool:
            pool.map(self._columns.number, self._browsed.numbers)  # they are read while samples are made ready
            judged, manifest = self._judged, self._browsed.tables.manifest
            start = self._moved({})
            bounds = judged.bounds([rule for _, rule in start.rules])
            ruled = [bound.field for bound in bounds if bound.is_number]
            for bound in map(judged.resolved, bounds):
                if bound.is_number and bound.value is not None:
                    self._columns.include(bound.field, bound.value)
            names = [name for name in dict.fromkeys([*ruled, *self._browsed.numbers]) if name in self._browsed.fields]
            second = manifest.second_look
            return {
                "fields": [told for told in pool.map(self._field, names) if told["count"]],
                "bounds": [
                    {"rule": which, "key": key, "field": bound.field, "op": bound.op}
                    for (which, key), bound in zip(start.ends, bounds, strict=True)
                    if key
                ],
                "count": len(self._recipe.decide.rules),
                "recipe": self._file and str(self._file),
                "second": [] if second is None else second.signals,
                "groups": judged.with_groups,
            }

    def judge(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What becomes of all samples by the page's rules.

        Args:
            asked: `changes` and `added` (see `Moved`), `fields` whose histograms are wanted, and `line`, the number of
                the bound whose neighbours are.

        Raises:
            CurateError: something is not in the vocabulary, or is no rule.
        """
        with self._lock:
            moved = self._moved(asked)
            judged = self._judged
            found = judged.judge(judged.bounds([rule for _, rule in moved.rules]))
            fields = asked.get("fields", [])
            if not isinstance(fields, list):
                raise CurateError("fields are a list")
            names = [known(name, self._browsed.numbers, "number") for name in fields]
            falls, back = judged.was_kept & ~found.kept, found.kept & ~judged.was_kept
            ends = moved.ends
            line = asked.get("line")
            labelled = self._labels.labelled()
            return {
                "counts": found.counts,
                "was": self._browsed.tables.manifest.counts.samples,
                "failed_first": int(np.count_nonzero(found.failed)),
                "bounds": [
                    self._bound(*end, bound, first, mask & ~found.failed)
                    | {"labels": labelled.agree(~mask[labelled.rows])}
                    for end, bound, first, mask in zip(ends, found.bounds, found.first, found.breaks, strict=True)
                ],
                "histograms": self._histograms.of(names, found),
                "falls": self._some(falls),
                "back": self._some(back),
                "unseen": int(np.count_nonzero(back & judged.unseen)),
                "near": self._near(found, line),
                "labelled": len(labelled.good),
                "labels": labelled.agree(found.kept[labelled.rows]),
            }

    def strip(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A sample for each of `STRIP` places along the axis of a field, where one lies there."""
        field = known(asked.get("field"), self._browsed.numbers, "number")
        with self._lock:
            edges = self._columns.spread(field).edges
            order, values = self._columns.order(field)
            out = []
            for i in range(STRIP):
                low, middle, high = np.interp(np.array([i, i + 0.5, i + 1]) * BINS / STRIP, np.arange(BINS + 1), edges)
                at = int(np.searchsorted(values, middle))
                near = [k for k in (at - 1, at) if 0 <= k < len(values) and low <= values[k] <= high]
                if near:
                    best = min(near, key=lambda k: abs(float(values[k]) - middle))
                    out.append({"at": (i + 0.5) / STRIP, **self._row(int(order[best]), float(values[best]))})
            return out

    def preview(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """What saving would change, and the command that makes it so."""
        with self._lock:
            moved = self._moved(asked)
            if self._file is None:
                rules = [
                    rule.model_dump(mode="json", exclude_defaults=True) for which, rule in moved.rules if which >= 0
                ]
                text = yaml.safe_dump({"decide": {"rules": rules}}, sort_keys=False, default_flow_style=None)
                return {"file": None, "diff": text, "digest": "", "command": self._command("RECIPE")}
            self._recipe, before = self._read()
            after = with_rules(before, moved.changes, moved.added)
            lines = difflib.unified_diff(before.splitlines(), after.splitlines(), "now", "then", lineterm="", n=2)
            return {
                "file": str(self._file),
                "diff": "\n".join(list(lines)[2:]),
                "digest": digest((before + after).encode()),
                "command": self._command(str(self._file)),
            }

    def save(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Write the rules into the recipe, if it is as it was when the difference was shown.

        Raises:
            CurateError: there is no recipe, it was changed meanwhile, or it cannot be written.
        """
        with self._lock:
            if self._file is None:
                raise CurateError("no recipe was named", "curate browse BUILD --recipe FILE")
            shown = self.preview(asked)
            if asked.get("digest") != shown["digest"]:
                raise CurateError(f"{self._file} was changed meanwhile", "look at the difference again")
            moved = self._moved(asked)
            _write(self._file, with_rules(self._text_now(), moved.changes, moved.added))
            self._recipe, self._text = self._read()
            return {"file": shown["file"], "command": shown["command"]}

    @cached_property
    def _judged(self) -> Judged:
        return Judged(self._browsed, self._columns)

    def _read(self) -> tuple[Recipe, str]:
        if self._file is None:
            return Recipe.model_validate(self._browsed.tables.manifest.recipe), ""
        return RecipeFile.load(self._file).recipe, self._text_now()

    def _text_now(self) -> str:
        assert self._file is not None
        return self._file.read_text(encoding="utf-8")

    def _moved(self, asked: Mapping[str, Any]) -> Moved:
        rules = self._recipe.decide.rules
        own = self._recipe.sample_rules
        out = [(-1, rule) for rule in own[: len(own) - len(rules)]]
        changes: dict[tuple[int, str], float | None] = {}
        for one in _objects(asked, "changes"):
            which, key = one.get("rule"), known(one.get("key"), KEYS, "bound")
            if not isinstance(which, int) or not 0 <= which < len(rules) or getattr(rules[which], key) is None:
                raise CurateError(f"the recipe has no {key} in a rule {which}")
            changes[which, key] = self._value(rules[which], key, one)
        for which, rule in enumerate(rules):
            mine = {key: value for (of, key), value in changes.items() if of == which}
            if mine:
                said = {**rule.model_dump(exclude_defaults=True), **mine}
                if not set(said) - {"field", "copies_of", "kinds"} - {k for k, v in said.items() if v is None}:
                    continue
                rule = _rule(said)
            out.append((which, rule))
        added = _objects(asked, "added")
        if len(added) > MOST_ADDED:
            raise CurateError(f"at most {MOST_ADDED} rules can be added")
        more = [
            {
                "field": known(one.get("field"), self._browsed.numbers, "number"),
                known(one.get("key"), KEYS, "bound"): written(number(one.get("value"))),
            }
            for one in added
        ]
        out += [(len(rules) + i, _rule(said)) for i, said in enumerate(more)]
        return Moved(changes, more, out)

    def _value(self, rule: Rule, key: str, given: Mapping[str, Any]) -> float | None:
        """A new value of a bound: `value`, or of a percentile the one that comes to the number `at`."""
        if key.endswith("percentile") and given.get("at") is not None:
            values = self._judged.sorted(rule.field, tuple(rule.kinds))
            below = int(np.searchsorted(values, number(given["at"])))
            return round(min(100.0, 100 * below / max(1, len(values) - 1)), 1)
        return None if given.get("value") is None else number(given["value"])

    def _field(self, name: str) -> dict[str, Any]:
        field, spread = self._browsed.fields[name], self._columns.spread(name)
        return {
            "name": name,
            "unit": field.unit,
            "about": field.about,
            "range": field.range,
            "whole": bool(pa.types.is_integer(field.type)),
            "edges": spread.edges.tolist(),
            "ticks": spread.ticks,
            "counts": spread.counts.tolist(),
            "count": spread.count,
        }

    def _bound(self, which: int, key: str, bound: Threshold, first: int, alone: Mask) -> dict[str, Any]:
        return {
            "rule": which,
            "key": key,
            "name": bound.name,
            "field": bound.field if bound.is_number else None,
            "op": bound.op,
            "value": bound.value,
            "percentile": bound.percentile,
            "kinds": bound.kinds,
            "first": first,
            "alone": int(np.count_nonzero(alone)),
            "fails": bound.fails,
        }

    def _near(self, found: Verdicts, line: object) -> dict[str, Any] | None:
        """Of the samples that no rule on another field drops, those nearest to a line on both of its sides."""
        if not isinstance(line, int) or not 0 <= line < len(found.bounds):
            return None
        bound = found.bounds[line]
        if not bound.is_number or bound.value is None:
            return None
        order, values = self._columns.order(bound.field)
        some = found.rest(bound.field) & self._judged.of_kinds(bound.kinds)
        # numpy would widen all values to look for one
        at = (bisect_left if bound.op == ">=" else bisect_right)(values, bound.value, key=float)
        below = [self._row(int(order[k]), float(values[k])) for k in _walk(order, some, at - 1, -1)]
        above = [self._row(int(order[k]), float(values[k])) for k in _walk(order, some, at, 1)]
        return {"below": below[::-1], "above": above, "drops": "below" if bound.op == ">=" else "above"}

    def _some(self, mask: Mask) -> dict[str, Any]:
        """How many there are, and some of them from all of the build."""
        count = int(np.count_nonzero(mask))
        step = max(1, count // (SHOWN * 64))  # of many, to look for all would take longer than the rest of an answer
        rows = np.flatnonzero(mask[::step]) * step
        if len(rows) < SHOWN < count:
            rows = np.flatnonzero(mask)
        picked = np.unique(np.linspace(0, len(rows) - 1, min(SHOWN, len(rows))).astype(int))
        return {"count": count, "rows": [self._row(int(row), None) for row in rows[picked]]}

    def _row(self, row: int, value: float | None) -> dict[str, Any]:
        was = self._judged.OUTCOMES[self._judged.outcome[row]]
        return {"n": int(self._columns.rows[row]), "outcome": str(was), "value": value}

    def _command(self, recipe: str) -> str:
        return shlex.join(["curate", "run", recipe, "--out", str(self._browsed.tables.build)])


def _walk(order: NDArray[np.int32], some: Mask, at: int, step: int) -> list[int]:
    """The first `NEAR` places of `order` from one on, up or down, whose samples are of `some`."""
    out: list[int] = []
    size = 1024
    while len(out) < NEAR and 0 <= at < len(order):
        stop = min(at + size, len(order)) if step > 0 else max(at - size, -1)
        places = np.arange(at, stop, step)
        out += places[some[order[places]]][: NEAR - len(out)].tolist()
        at, size = stop, size * 2
    return out


def _rule(said: Mapping[str, Any]) -> Rule:
    try:
        return Rule.model_validate(said)
    except ValidationError as error:
        raise CurateError(error.errors()[0]["msg"].removeprefix("Value error, ")) from error


def _objects(asked: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    given = asked.get(name, [])
    if not isinstance(given, list) or not all(isinstance(one, dict) for one in given):
        raise CurateError(f"{name} are a list of objects")
    return given


def _write(file: Path, text: str) -> None:
    """Put a text in a file's place whole."""
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        Path(name).chmod(file.stat().st_mode)
        Path(name).replace(file)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise CurateError(f"{file} cannot be written: {error.strerror}") from error
