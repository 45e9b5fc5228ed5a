"""What becomes of every sample as rules move: the verdicts of `curate.decide`, of all samples in one process at once.

Verdicts follow the same functions (`beyond`, rules on words, percentiles, groups of near duplicates), so a rule
that is saved gives what was shown. What is left out is what only a run can find out: of a sample that comes back,
whether it can be tokenized, and what signals of the second look say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.browse.columns import Columns
from curate.browse.table import Browsed
from curate.decide.bounds import META, Threshold, beyond, thresholds_of
from curate.decide.decide import of_its_kinds
from curate.decide.groups import read_links
from curate.decide.keys import distinct, keys_of, look_up, words
from curate.decide.methods import Material, method
from curate.decide.partitions import PartitionFiles
from curate.decide.percentiles import resolve_in
from curate.decide.rules import check_rules
from curate.decide.texts import NO_TEXT, text_keys
from curate.decide.words import broken, said_of, whole
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS
from curate.schema.recipe import NearDuplicates, Recipe, Rule
from curate.schema.verdict import Outcome

HELD = 64
"""Bounds of which it is remembered who breaks them, a byte a sample."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Verdicts:
    """What rules make of all samples; arrays are `(s,)` unless said otherwise.

    Attributes:
        bounds: with percentiles resolved.
        breaks: for each bound, samples that break it, whatever other bounds say.
        first: for each bound, of how many samples it is the first that they break.
        kept: samples that are kept.
        alive: samples that break no bound and did not fail before any was looked at.
        failed: samples that did.
        broken: uint8, how many bounds each breaks.
        counts: samples by outcome.
    """

    bounds: tuple[Threshold, ...]
    breaks: tuple[Mask, ...]
    first: tuple[int, ...]
    kept: Mask
    alive: Mask
    failed: Mask
    broken: NDArray[np.uint8]
    counts: dict[str, int]

    def rest(self, field: str) -> Mask:
        """Samples that break no bound but ones on a field, and did not fail."""
        bounds = zip(self.bounds, self.breaks, strict=True)
        own = [mask.view(np.uint8) for bound, mask in bounds if bound.is_number and bound.field == field]
        return np.asarray((self.broken == sum(own[1:], own[0])) & ~self.failed) if own else self.alive

    def take(self, rows: NDArray[np.int64]) -> Verdicts:
        """Those of some samples; sums stay those of all."""
        return replace(
            self,
            breaks=tuple(mask.take(rows) for mask in self.breaks),
            kept=self.kept.take(rows),
            alive=self.alive.take(rows),
            failed=self.failed.take(rows),
            broken=self.broken.take(rows),
        )


class Judged:
    """All samples of a build, to be judged by any rules.

    Attributes:
        was_kept: bool `(s,)`, what the build's ledger says.
        outcome: int8 `(s,)`, of the ledger, a number of OUTCOMES.
        unseen: bool `(s,)`, samples that the second look did not look at.
        with_groups: True if groups of near duplicates are known; else duplicates stay what they are in the ledger.
    """

    OUTCOMES = (Outcome.KEPT, Outcome.DROPPED, Outcome.DUPLICATE, Outcome.FAILED)

    def __init__(self, browsed: Browsed, columns: Columns) -> None:
        self._browsed, self._columns = browsed, columns
        recipe = Recipe.model_validate(browsed.tables.manifest.recipe)
        told = columns.arrow(["id", "kind", "outcome", "stage", "unseen"])
        self.kind = np.asarray(pc.fill_null(pc.index_in(told["kind"], pa.array(KINDS)), -1).to_numpy(), np.int8)
        names = pa.array([str(outcome) for outcome in self.OUTCOMES])
        self.outcome = pc.index_in(told["outcome"], names).to_numpy().astype(np.int8)
        self.was_kept: Mask = self.outcome == self.OUTCOMES.index(Outcome.KEPT)
        self.unseen: Mask = pc.fill_null(told["unseen"], False).to_numpy()
        failed = self.outcome == self.OUTCOMES.index(Outcome.FAILED)
        after, by_rule = self._later(whole(told["stage"]))
        self._later_failed: Mask = failed & after
        self._failed: Mask = failed & ~after & ~by_rule
        self._kinds: dict[tuple[str, ...], Mask] = {}
        self._broken: dict[Threshold, Mask] = {}
        self._texts: dict[str, tuple[NDArray[np.int64], Mask]] = {}
        self._sorted: dict[tuple[str, tuple[str, ...]], NDArray[np.float64]] = {}
        self._members, self._starts = self._groups(recipe.decide.near_duplicates, recipe.seed, told["id"])

    @property
    def with_groups(self) -> bool:
        return self._members is not None

    def bounds(self, rules: Sequence[Rule]) -> list[Threshold]:
        """The bounds of rules on samples.

        Raises:
            CurateError: rules that `check_rules` refuses.
        """
        fields = self._browsed.fields
        check_rules(rules, fields)
        return [of_its_kinds(bound, fields) for bound in thresholds_of(rules)]

    def judge(self, bounds: Sequence[Threshold]) -> Verdicts:
        """Verdicts by bounds, of which each sample is dropped by the first that it breaks.

        Raises:
            CurateError: a field is not in the build's table.
        """
        resolved = [self.resolved(bound) for bound in bounds]
        gone, fails = self._failed.copy(), 0
        broken = np.zeros(len(gone), np.uint8)
        breaks: list[Mask] = []
        first: list[int] = []
        for bound in resolved:
            mask = self._copies(bound, gone) if bound.copies_of else self._breaks(bound)
            new = mask & ~gone
            gone |= new
            broken += mask.view(np.uint8)
            breaks.append(mask)
            first.append(int(np.count_nonzero(new)))
            fails += first[-1] if bound.fails else 0
        alive = ~gone
        duplicate = self._duplicates(alive)
        kept = alive & ~self._later_failed
        kept[duplicate] = False
        later = np.count_nonzero(alive & self._later_failed) - np.count_nonzero(self._later_failed[duplicate])
        failed = np.count_nonzero(self._failed) + fails + later
        counts = {
            "total": len(kept),
            "kept": int(np.count_nonzero(kept)),
            "dropped": sum(first) - fails,
            "duplicate": len(duplicate),
            "failed": int(failed),
        }
        return Verdicts(tuple(resolved), tuple(breaks), tuple(first), kept, alive, self._failed, broken, counts)

    def resolved(self, bound: Threshold) -> Threshold:
        """A bound with the value of its percentile, over samples that did not fail in a signal."""
        return bound if bound.percentile is None else resolve_in(bound, self.sorted(bound.field, bound.kinds))

    def sorted(self, field: str, kinds: tuple[str, ...]) -> NDArray[np.float64]:
        """Values that percentiles of a field are taken over, ascending."""
        if (field, kinds) not in self._sorted:
            values = self._columns.number(field)
            some = ~self._failed & self.of_kinds(kinds) & ~np.isnan(values)
            self._sorted[field, kinds] = np.sort(values[some]).astype(np.float64)
        return self._sorted[field, kinds]

    def of_kinds(self, kinds: tuple[str, ...]) -> Mask:
        """Samples of some kinds."""
        if kinds not in self._kinds:
            self._kinds[kinds] = np.isin(self.kind, [KINDS.index(kind) for kind in kinds])
        return self._kinds[kinds]

    def _breaks(self, bound: Threshold) -> Mask:
        """Samples that break a bound on a number or on words."""
        mask = self._broken.pop(bound, None)
        if mask is None:
            if bound.is_number:
                mask = beyond(bound, self._columns.number(bound.field))
            else:
                said = broken(bound, self._words(bound.field), self._there(bound))
                mask = said.is_valid().to_numpy(zero_copy_only=False)
            mask = mask & self.of_kinds(bound.kinds)
        self._broken[bound] = mask  # now the youngest
        while len(self._broken) > HELD:
            del self._broken[next(iter(self._broken))]
        return mask

    def _words(self, field: str) -> pa.Array:
        """A column that a rule on words, or on what is missing, looks at."""
        if field.startswith(META):
            return said_of(self._columns.arrow(["meta"]), field)
        try:
            return whole(self._columns.arrow([field])[field])
        except (KeyError, pa.ArrowInvalid) as error:
            raise CurateError(f"the page's table of this build has no column {field}") from error

    def _there(self, bound: Threshold) -> Mask:
        """Samples of which a value can be expected."""
        second = self._browsed.tables.manifest.second_look
        late = () if second is None else second.signals
        given = {
            field["name"] for s in self._browsed.tables.manifest.signals if s["name"] in late for field in s["fields"]
        }
        return ~self.unseen if bound.field in given else np.ones(len(self.kind), bool)

    def _copies(self, bound: Threshold, gone: Mask) -> Mask:
        """Samples whose text more samples carry than the bound allows, of those that are left."""
        if bound.copies_of not in self._texts:
            keys = text_keys(self._columns.arrow([bound.copies_of])[bound.copies_of])
            self._texts[bound.copies_of] = distinct(keys)[1], keys != NO_TEXT
        code, is_text = self._texts[bound.copies_of]
        counted = ~gone & is_text & self.of_kinds(bound.kinds)
        assert bound.value is not None, "a bound on copies is absolute"
        return counted & (np.bincount(code[counted], minlength=len(code))[code] > bound.value)

    def _duplicates(self, alive: Mask) -> NDArray[np.int64]:
        """Samples that are near duplicates of another that is left."""
        if self._members is None:
            return np.flatnonzero(alive & (self.outcome == self.OUTCOMES.index(Outcome.DUPLICATE)))
        rows, starts = self._members, self._starts
        if not len(rows):
            return rows
        here, place = alive[rows], np.arange(len(rows))
        able = here & ~self._later_failed[rows]
        # the first of each group that can be kept, beyond the last row where none can
        keeper = np.minimum.reduceat(np.where(able, place, len(rows)), starts)
        keeper = np.repeat(keeper, np.diff(np.r_[starts, len(rows)]))
        return rows[here & (place > keeper)]

    def _later(self, stage: pa.Array) -> tuple[Mask, Mask]:
        """Of failures, which came after rules had been applied, and which are a rule's own (`missing: fail`)."""
        second = self._browsed.tables.manifest.second_look
        late = [f"annotate:{name}" for name in (() if second is None else second.signals)]
        after = pc.is_in(stage, pa.array(late, pa.string())).to_numpy(False)
        for beginning in ("tokenize", "look"):
            after |= pc.fill_null(pc.starts_with(stage, beginning), False).to_numpy(False)
        return after, pc.fill_null(pc.equal(stage, "decide"), False).to_numpy(False)

    def _groups(
        self, specs: Sequence[NearDuplicates], seed: int, ids: pa.ChunkedArray
    ) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
        """Samples that are linked, group after group, in each the one that is kept first; and where groups start."""
        none = np.empty(0, np.int64)
        if not specs:
            return none, none
        try:
            links = [link for spec in specs for link in self._links(spec, seed)]
        except _NotThere:
            return None, none
        linked = read_links(self._browsed.tables.build, False, links)
        keys = keys_of(ids)
        at = look_up(linked.key, keys)
        rows = np.flatnonzero(at >= 0)
        group, key = linked.group[at[rows]], keys[rows]
        fields = self._browsed.fields
        keep = {
            kind: next((s.keep for s in specs if kind in fields[s.embedding].kinds), specs[0].keep) for kind in KINDS
        }
        best = np.full((len(rows), max(map(len, keep.values()))), np.inf)
        for kind, by in keep.items():
            some = self.kind[rows] == KINDS.index(kind)
            for number, field in enumerate(by):
                value = self._columns.number(field)[rows[some]].astype(np.float64)
                best[some, number] = -np.where(np.isnan(value), -np.inf, value)
        order = np.lexsort((*words(key)[::-1], *best.T[::-1], group))
        rows, group = rows[order], group[order]
        return rows, np.flatnonzero(np.r_[True, group[1:] != group[:-1]][: len(group)])

    def _links(self, spec: NearDuplicates, seed: int) -> list[tuple[str, float]]:
        """Files of links that a run left in the build, with their threshold.

        Raises:
            _NotThere: none did, or they were removed.
        """
        tables = self._browsed.tables
        home = tables.fields[spec.embedding]
        of = tables.by_partition(home)
        try:
            group = [PartitionFiles(name, "", "", {home: of[name]}) for name in tables.partitions]
        except KeyError as error:
            raise _NotThere from error
        material = Material(tables.build, [group], [], {}, home, self._browsed.fields[spec.embedding], seed, _Idle())
        return [(path, spec.threshold) for path in method(spec.method).links(material, spec)]


class _NotThere(Exception):
    """Links would have to be made."""


class _Idle:
    """An engine that does nothing: a method that finds its links in the build asks it for nothing."""

    width = 1

    def map(self, *_: Any) -> Any:
        raise _NotThere

    hold = exchange = fetch = map
