"""Verdicts on everything, by tasks: what one process holds is one group of partitions, one bucket, one cell, or sums.

    load -> exact duplicates -> percentiles and rules -> groups of near duplicates -> verdict fragments

Records are failed, else dropped by the first rule they break, else duplicate, else sampled; samples of sampled records
are failed, else dropped, else near duplicate, else kept. Samples of other records have no verdict; they take no part in
percentiles and keep nothing, but they are compared (`curate.decide.groups` says why). A rule on copies of a text counts
samples that did not fail and that no rule before it drops; near duplicates come after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isqrt

from curate.decide.bounds import Threshold, is_said, thresholds_of
from curate.decide.copied import settle_copies, times_by_bucket, too_often
from curate.decide.duplicates import copies
from curate.decide.engine import Engine, Held
from curate.decide.groups import Embedding, near_duplicates
from curate.decide.ledger import Fragment, write_verdicts
from curate.decide.methods import Material, method
from curate.decide.partitions import STALE, PartitionFiles, Wanted, load
from curate.decide.percentiles import Bin, Counts, resolve
from curate.decide.rules import check_near_duplicates, check_record_rules, check_rules
from curate.decide.survey import (
    contents,
    kinds,
    record_counts,
    record_not_numbers,
    refuse_not_numbers,
    sample_counts,
    sample_not_numbers,
    settle_records,
    settle_samples,
)
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS, SignalField
from curate.schema.recipe import Decide
from curate.signals.probed import PROBED
from curate.storage import Store

GROUP = (16, 128, 1024)
"""Partitions of one task: from the first to the last, and up to the second as many as leave four tasks for each place
that they run in, since tasks have a price. Beyond that it is the square root of all: then pieces between tasks are
about as many as partitions."""


@dataclass(frozen=True)
class Decided:
    """What came out.

    Attributes:
        fragments: verdicts, one a partition, in order.
        records, samples: the bounds of both levels with percentiles resolved.
        pairs: files of links in use.
    """

    fragments: tuple[Fragment, ...]
    records: tuple[Threshold, ...]
    samples: tuple[Threshold, ...]
    pairs: tuple[str, ...]


@dataclass(frozen=True)
class _Tasks:
    """The partitions of each task, and what was loaded of them."""

    groups: list[tuple[PartitionFiles, ...]]
    loaded: list[Held]
    engine: Engine


def decide(
    build: Store,
    partitions: Sequence[PartitionFiles],
    options: Decide,
    fields: Mapping[str, SignalField],
    homes: Mapping[str, str],
    signal_groups: Mapping[str, str],
    seed: int,
    engine: Engine,
    failed: Mapping[str, Sequence[str]] | None = None,
    per_task: int | None = None,
    second: frozenset[str] = frozenset(),
) -> Decided:
    """What becomes of each record and each sample; fragments of it are written to `verdicts/`.

    Args:
        build: holds the fragments of all partitions.
        partitions: in the order of the build.
        options: of the recipe.
        fields: fields of the signals by name. Probed fields (`width`, `pixels`, `duration`, ...) may be used as well.
        homes: group of signals that has each field.
        signal_groups: group of each signal, in the recipe's order: of a sample that failed in several, the ledger has
            the failure of the first.
        seed: of the recipe.
        engine: runs the tasks.
        failed: by partition Arrow files of `tokenized/`, with `sample_id` and the FAILURE columns. A sample that would
            be kept and whose tokenizing failed is failed, and the next best of its group is kept. It stays among those
            that percentiles are taken over, so that no threshold moves.
        per_task: partitions of one task; changes no byte of what comes out.
        second: groups of the second look, which partitions may have of some samples or not at all. A sample that would
            be kept and failed there is failed, as in tokenizing.

    Raises:
        CurateError: rules that `check_rules` refuses; fragments that do not belong together; NaN in a field that a rule
            looks at; no space for what is written.
    """
    fields = {**PROBED, **fields}
    check_record_rules(options.records)
    check_rules(options.rules, fields)
    check_near_duplicates(options.near_duplicates, fields)
    record_rules = [of_its_kinds(bound, fields) for bound in thresholds_of(options.records)]
    rules = [of_its_kinds(bound, fields) for bound in thresholds_of(options.rules)]
    if not partitions:
        return Decided((), tuple(record_rules), tuple(rules), ())
    some = per_task or _per_task(len(partitions), engine.width)
    groups = [tuple(partitions[i : i + some]) for i in range(0, len(partitions), some)]
    wanted = _wanted(options, record_rules, rules, homes, signal_groups, second)
    later = failed or {}
    loaded = engine.hold(
        partial(load, build, wanted),
        [(group, {p.name: tuple(later[p.name]) for p in group if p.name in later}) for group in groups],
    )
    tasks = _Tasks(groups, loaded, engine)

    record_rules, states = _records(tasks, record_rules)
    rules, states = _samples(tasks, rules, states)
    verdicts: list[Held] = [None] * len(groups)
    pairs: list[str] = []
    if options.near_duplicates:
        pairs, verdicts = _near(build, tasks, options, fields, homes, seed, states)
    write = partial(write_verdicts, build, record_rules, rules)
    written = engine.map(write, zip(groups, loaded, states, verdicts, strict=True))
    fragments = tuple(fragment for some in written for fragment in some)
    return Decided(fragments, tuple(record_rules), tuple(rules), tuple(sorted(set(pairs))))


def _per_task(partitions: int, width: int) -> int:
    least, enough, most = GROUP
    return min(max(isqrt(partitions), min(-(-partitions // (4 * width)), enough), least), most)


def of_its_kinds(bound: Threshold, fields: Mapping[str, SignalField]) -> Threshold:
    """A bound; what asks whether there is a value, only of the kinds that can have one."""
    if bound.op != "not missing" or bound.field not in fields:
        return bound
    return replace(bound, kinds=tuple(k for k in bound.kinds if k in fields[bound.field].kinds))


def _wanted(
    options: Decide,
    records: Sequence[Threshold],
    rules: Sequence[Threshold],
    homes: Mapping[str, str],
    signal_groups: Mapping[str, str],
    second: frozenset[str],
) -> Wanted:
    texts = frozenset(b.copies_of for b in rules if b.copies_of)
    used = texts | {b.field for b in rules if b.is_number} | {f for spec in options.near_duplicates for f in spec.keep}
    words = {
        b.field for b in rules if b.is_words and b.field not in PROBED and (b.field in homes or not is_said(b.field))
    }
    for field in sorted(used | words | {spec.embedding for spec in options.near_duplicates}):
        if field not in PROBED and field not in homes:
            raise CurateError(f"no signal of this build has the field {field}", STALE)
    names = dict.fromkeys([*signal_groups.values(), *(homes[f] for f in sorted(used | words) if f not in PROBED)])
    return Wanted(
        tuple(sorted({b.field for b in records if b.is_number})),
        tuple(sorted(used & set(PROBED))),
        {g: tuple(f for f in sorted(used) if f not in PROBED and homes[f] == g) for g in names},
        dict(signal_groups),
        second,
        texts,
        tuple((i, b) for i, b in enumerate(records) if b.is_words),
        tuple((i, b) for i, b in enumerate(rules) if b.is_words),
        {g: tuple(f for f in sorted(words) if homes[f] == g) for g in names},
    )


def _records(tasks: _Tasks, rules: list[Threshold]) -> tuple[list[Threshold], list[Held]]:
    """Resolved bounds of records, and for each task the state of its records."""
    engine = tasks.engine
    alone = [(one,) for one in tasks.loaded]
    if rules:
        used = sorted({b.field for b in rules if b.is_number})
        refuse_not_numbers(list(engine.map(partial(record_not_numbers, used), alone)), used)

        def ask(bins: Mapping[Bin, bool]) -> Iterator[Mapping[Bin, Counts]]:
            return engine.map(partial(record_counts, bins), alone)

        rules = resolve(rules, ask)
    buckets = len(tasks.groups)
    pieces = engine.exchange(partial(contents, rules, buckets), enumerate(tasks.loaded), buckets)
    found = engine.hold(copies, [tuple(some) for some in pieces])
    items = [(number, one, *found) for number, one in enumerate(tasks.loaded)]
    return rules, engine.hold(partial(settle_records, rules), items)


def _samples(tasks: _Tasks, rules: list[Threshold], states: list[Held]) -> tuple[list[Threshold], list[Held]]:
    """Resolved bounds of samples, and states that know which samples break them."""
    if not rules:
        return rules, states
    engine = tasks.engine
    items = list(zip(tasks.loaded, states, strict=True))
    used = sorted({b.field for b in rules if b.is_number})
    refuse_not_numbers(list(engine.map(partial(sample_not_numbers, used), items)), used)

    def ask(bins: Mapping[Bin, bool]) -> Iterator[Mapping[Bin, Counts]]:
        return engine.map(partial(sample_counts, bins), items)

    resolved = resolve(rules, ask)
    settled, buckets = engine.hold(partial(settle_samples, resolved), items), len(tasks.groups)
    for number, bound in enumerate(resolved):
        if bound.copies_of:
            items = list(zip(tasks.loaded, settled, strict=True))
            pieces = engine.exchange(partial(times_by_bucket, bound, number, buckets), items, buckets)
            found = engine.hold(partial(too_often, bound), [tuple(some) for some in pieces])
            settled = engine.hold(partial(settle_copies, bound, number), [(*item, *found) for item in items])
    return resolved, settled


def _near(
    build: Store,
    tasks: _Tasks,
    options: Decide,
    fields: Mapping[str, SignalField],
    homes: Mapping[str, str],
    seed: int,
    states: list[Held],
) -> tuple[list[str], list[Held]]:
    """Files of links, and for each task its verdicts on near duplicates."""
    counted = sum(tasks.engine.map(kinds, [(one,) for one in tasks.loaded]))
    rows = {kind: int(n) for kind, n in zip(KINDS, counted, strict=True) if n}
    links: list[tuple[str, float]] = []
    for spec in options.near_duplicates:
        material = Material(
            build,
            tasks.groups,
            tasks.loaded,
            rows,
            homes[spec.embedding],
            fields[spec.embedding],
            seed,
            tasks.engine,
        )
        links += [(path, spec.threshold) for path in method(spec.method).links(material, spec)]
    specs = options.near_duplicates
    keep = {kind: next((s.keep for s in specs if kind in fields[s.embedding].kinds), specs[0].keep) for kind in rows}
    compared = dict.fromkeys((s.embedding, s.method) for s in specs)
    verdicts = near_duplicates(
        build,
        tasks.groups,
        tasks.loaded,
        states,
        links,
        keep,
        [Embedding(homes[e], fields[e], method(m)) for e, m in compared],
        tasks.engine,
    )
    return [path for path, _ in links], verdicts
