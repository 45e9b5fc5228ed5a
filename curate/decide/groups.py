"""Groups of near duplicates and their keepers, from the links that a method found.

A group is a connected component of the links at or above the threshold, over *all* samples that have the embedding,
whatever their verdict. So a dropped sample may connect two others that are further apart, and a moved rule looks at
the same groups again and compares nothing. Links of several specifications count together: samples of one kind have
one set of groups.

The keeper of a group is the best of its samples that are neither failed nor dropped and whose record is sampled: by
`keep` of the first specification whose embedding the kind has, then the smallest id. The others of these are
duplicates of it, and say their exact cosine with it; of several embeddings the largest, 0 where both have none.

Where tokenizing or the second look failed, the next best is the keeper. Where a keeper fell at the second look, as many
of its duplicates as have fallen in the group are looked at together with the next. A sample that comes after the keeper
was not tokenized for this group, so a failure of an earlier run says nothing about it: the ledger follows from the
input and the recipe alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.decide.engine import Engine, Held
from curate.decide.forest import components, slices
from curate.decide.keys import EMPTY, Keys, distinct, keys_of, look_up, words
from curate.decide.methods import Method
from curate.decide.near import unit_vectors
from curate.decide.partitions import Loaded, PartitionFiles
from curate.decide.survey import State
from curate.schema.fields import KINDS, SignalField
from curate.storage import Store
from curate.storage.tables import read_table

KEPT, FAILED, DUPLICATE = 0, 1, 2


class Linked(NamedTuple):
    """Samples that are linked.

    Attributes:
        key: `(n,)`, sorted.
        group: int32 `(n,)`.
        pair: int64 `(e,)`, sorted, `a * n + b` of the rows of each link; empty where there are several embeddings.
        similarity: float64 `(e,)`.
    """

    key: Keys
    group: NDArray[np.int32]
    pair: NDArray[np.int64]
    similarity: NDArray[np.float64]


class Members(NamedTuple):
    """Samples of one task's partitions that may keep or be duplicates; all arrays `(n, ...)`.

    Attributes:
        task: number of the task.
        row: int32, rows of the task.
        at: int32, rows of Linked.
        group: int32.
        key: the samples.
        failed: bool, in the second look or in tokenizing.
        unseen: bool, not looked at a second time, where that is asked for.
        keep: float64 `(n, k)`, NaN for none.
        fallen: int32 `(m,)`, not `(n,)`: groups of the samples that were looked at and are no members any more.
    """

    task: int
    row: NDArray[np.int32]
    at: NDArray[np.int32]
    group: NDArray[np.int32]
    key: Keys
    failed: NDArray[np.bool_]
    unseen: NDArray[np.bool_]
    keep: NDArray[np.float64]
    fallen: NDArray[np.int32]


class Verdicts(NamedTuple):
    """What becomes of members, sorted by task and row; all arrays `(n,)`.

    Attributes:
        task, row: int32, which they are.
        outcome: int8, KEPT, FAILED or DUPLICATE.
        keeper: the sample that each is a duplicate of.
        keeper_task, keeper_row: int32, where that is.
        similarity: float64; NaN where it must still be computed.
        ahead: bool, duplicates that are looked at with their keeper, which has not been: as many as have fallen.
    """

    task: NDArray[np.int32]
    row: NDArray[np.int32]
    outcome: NDArray[np.int8]
    keeper: Keys
    keeper_task: NDArray[np.int32]
    keeper_row: NDArray[np.int32]
    similarity: NDArray[np.float64]
    ahead: NDArray[np.bool_]

    def of(self, task: int) -> Verdicts:
        """Those of one task."""
        here = slice(*np.searchsorted(self.task, [task, task + 1]))
        return Verdicts._make(column[here] for column in self)


class Embedding(NamedTuple):
    """Where vectors of a specification are."""

    home: str
    field: SignalField
    method: Method


class Lent(NamedTuple):
    """Vectors of keepers that another task needs.

    Attributes:
        task: whose they are.
        row: int32 `(n,)`, ascending.
        vectors: float32 `(n, d)`, of unit length.
    """

    task: int
    row: NDArray[np.int32]
    vectors: NDArray[np.float32]


def near_duplicates(
    build: Store,
    groups: Sequence[Sequence[PartitionFiles]],
    loaded: Sequence[Held],
    states: Sequence[Held],
    links: Sequence[tuple[str, float]],
    keep: Mapping[str, Sequence[str]],
    embeddings: Sequence[Embedding],
    engine: Engine,
) -> list[Held]:
    """Verdicts on members of groups, for each task a held `Verdicts`.

    Args:
        build: holds the files.
        groups, loaded, states: partitions of each task, their held `Loaded` and `State`.
        links: files of LINKS, and the threshold that counts for each.
        keep: fields to keep by, of each kind.
        embeddings: of the specifications.
        engine: runs the tasks.
    """
    tasks = len(groups)
    (linked,) = engine.hold(partial(read_links, build, len(embeddings) == 1), [(tuple(links),)])
    members = engine.exchange(
        partial(_members, keep, tasks),
        [(n, mine, state, linked) for n, (mine, state) in enumerate(zip(loaded, states, strict=True))],
        tasks,
    )
    judged, missing = engine.exchange(_judge, [(linked, *pieces) for pieces in members], 2)
    mine = engine.hold(_of_task, [(n, *judged) for n in range(tasks)])
    if not sum(engine.fetch(missing)):
        return mine
    similar = []
    for embedding in embeddings:
        lent = engine.exchange(
            partial(_lend, build, embedding, tasks),
            [(n, group, one, *judged) for n, (group, one) in enumerate(zip(groups, loaded, strict=True))],
            tasks,
        )
        similar.append(
            engine.hold(
                partial(_similar, build, embedding),
                [
                    (group, one, verdicts, *pieces)
                    for group, one, verdicts, pieces in zip(groups, loaded, mine, lent, strict=True)
                ],
            )
        )
    return engine.hold(_with_similarity, [(v, *s) for v, *s in zip(mine, *similar, strict=True)])


def read_links(build: Store, with_pairs: bool, links: Sequence[tuple[str, float]]) -> Linked:
    """Connected components of links at or above their thresholds: union-find over linked samples only."""
    a, b, w, near = [EMPTY], [EMPTY], [np.empty(0)], [np.empty(0, bool)]
    for path, threshold in links:
        table = read_table(build, path)
        a.append(keys_of(table["a"]))
        b.append(keys_of(table["b"]))
        w.append(table["similarity"].to_numpy())
        near.append(w[-1] >= threshold)
    key, which = distinct(np.concatenate([*a, *b]))
    ends, similarity, linked = which.reshape(2, -1), np.concatenate(w), np.concatenate(near)
    group = components(len(key), *ends[:, linked])
    some = np.zeros(len(key), bool)
    some[ends[:, linked]] = True
    place = np.cumsum(some) - 1
    inside = some[ends].all(axis=0) & with_pairs  # also pairs that are less alike, of the same group or not
    ends, similarity = place[ends[:, inside]], similarity[inside]
    pair, once = np.unique(ends.min(axis=0) * some.sum() + ends.max(axis=0), return_index=True)
    return Linked(key[some], group[some], pair, similarity[once])


def _members(
    keep: Mapping[str, Sequence[str]], tasks: int, task: int, loaded: Loaded, state: State, linked: Linked
) -> list[Members]:
    """A task's members of groups, by bucket of the group."""
    row = np.flatnonzero(state.alive(loaded))
    at = look_up(linked.key, loaded.sample[row])
    row, at = row[at >= 0], at[at >= 0]
    wide = max(map(len, keep.values()), default=0)
    by = np.full((len(row), wide), np.nan)
    for kind, fields in keep.items():
        some = loaded.sample_kind[row] == KINDS.index(kind)
        for number, field in enumerate(fields):
            by[some, number] = loaded.sample_values[field][row[some]]
    columns = (
        row.astype(np.int32),
        at.astype(np.int32),
        linked.group[at],
        loaded.sample[row],
        loaded.later_failed[row],
        loaded.unseen[row],
        by,
    )
    seen = ~loaded.unseen if loaded.not_evaluated else np.zeros(len(loaded.sample), bool)
    gone = look_up(linked.key, loaded.sample[np.flatnonzero(state.listed & seen & ~state.alive(loaded))])
    fallen = _by_bucket(linked.group[gone[gone >= 0]], tasks)
    pieces = _by_bucket(columns[2], tasks, columns)
    return [Members._make([task, *mine, *lost]) for mine, lost in zip(pieces, fallen, strict=True)]


def _by_bucket(
    group: NDArray[np.int32], tasks: int, columns: Sequence[NDArray[Any]] | None = None
) -> list[list[NDArray[Any]]]:
    """Columns, or the groups alone, cut up by the task that judges each group."""
    bucket = group % tasks
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(tasks + 1))
    return [[c[order[i:j]] for c in columns or (group,)] for i, j in pairwise(ends)]


def _judge(linked: Linked, *pieces: Members) -> tuple[Verdicts, int]:
    """Verdicts on the members of some groups, and how many similarities are missing."""
    task = np.repeat([p.task for p in pieces], [len(p.row) for p in pieces]).astype(np.int32)
    *columns, fallen = (np.concatenate(column) for column in list(zip(*pieces, strict=True))[1:])
    row, at, group, key, failed, unseen, keep = columns
    # the largest first key comes first, then the largest second; NaN is the smallest of all; then the smallest id
    best = -np.where(np.isnan(keep), -np.inf, keep)
    order = np.lexsort((*words(key)[::-1], *best.T[::-1], group))
    task, row, at, group, key, failed, unseen = (c[order] for c in (task, row, at, group, key, failed, unseen))

    n = len(group)
    place = np.arange(n)
    start = np.maximum.accumulate(np.where(np.r_[True, group[1:] != group[:-1]][:n], place, 0))
    # the first of each group that did not fail: n where all did
    first = np.full(n + 1, n)
    np.minimum.at(first, start[~failed], place[~failed])
    keeper = first[start]
    outcome = np.where(place < keeper, FAILED, np.where(place == keeper, KEPT, DUPLICATE)).astype(np.int8)
    duplicate = outcome == DUPLICATE
    by = np.where(duplicate, keeper, place)

    # one by one, a group of look-alikes that all fall would take as many rounds as it has members
    lost = np.bincount(fallen, minlength=int(group.max(initial=-1)) + 1)[group] + (keeper - start)
    ahead = duplicate & unseen & unseen[by] & (place <= keeper + lost)

    similarity = np.full(n, np.nan)
    if len(linked.pair):
        ends = np.stack([at, at[by]]).astype(np.int64)
        pair = ends.min(axis=0) * len(linked.key) + ends.max(axis=0)
        where = np.minimum(np.searchsorted(linked.pair, pair), len(linked.pair) - 1)
        direct = duplicate & (linked.pair[where] == pair)
        similarity[direct] = linked.similarity[where[direct]]
    order = np.lexsort((row, task))
    found = (task, row, outcome, key[by], task[by], row[by], similarity, ahead)
    return Verdicts._make(c[order] for c in found), int((duplicate & np.isnan(similarity)).sum())


def _of_task(task: int, *judged: Verdicts) -> Verdicts:
    mine = [v.of(task) for v in judged]
    joined = Verdicts._make(np.concatenate(column) for column in zip(*mine, strict=True))
    order = np.argsort(joined.row, kind="stable")
    return Verdicts._make(column[order] for column in joined)


def _missing(verdicts: Verdicts) -> NDArray[np.bool_]:
    return np.asarray((verdicts.outcome == DUPLICATE) & np.isnan(verdicts.similarity))


def _lend(
    build: Store,
    embedding: Embedding,
    tasks: int,
    task: int,
    group: Sequence[PartitionFiles],
    loaded: Loaded,
    *judged: Verdicts,
) -> list[Lent]:
    """Vectors of a task's keepers, for each task that has duplicates of them."""
    asked = [_missing(v) & (v.keeper_task == task) for v in judged]
    who = np.concatenate([v.task[some] for v, some in zip(judged, asked, strict=True)])
    row = np.concatenate([v.keeper_row[some] for v, some in zip(judged, asked, strict=True)])
    who, row = np.unique(np.stack([who, row]), axis=1)
    wanted = np.zeros(len(loaded.sample), bool)
    wanted[row] = True
    rows, vectors = _vectors(build, embedding, group, loaded, wanted)
    at = np.minimum(np.searchsorted(rows, row), max(0, len(rows) - 1))
    there = rows[at] == row if len(rows) else np.zeros(len(row), bool)
    who, at = who[there], at[there]
    ends = np.searchsorted(who, np.arange(tasks + 1))
    return [Lent(task, rows[at[i:j]].astype(np.int32), vectors[at[i:j]]) for i, j in pairwise(ends)]


def _similar(
    build: Store,
    embedding: Embedding,
    group: Sequence[PartitionFiles],
    loaded: Loaded,
    verdicts: Verdicts,
    *lent: Lent,
) -> NDArray[np.float64]:
    """How alike a task's duplicates are to their keepers, `(n,)`; NaN where one has no embedding, or none is asked."""
    out = np.full(len(verdicts.row), np.nan)
    asked = np.flatnonzero(_missing(verdicts))
    wanted = np.zeros(len(loaded.sample), bool)
    wanted[verdicts.row[asked]] = True
    by_task = {one.task: one for one in lent}
    for rows, vectors in unit_vectors(build, embedding.home, embedding.field, group, loaded, wanted):
        here = asked[np.isin(verdicts.row[asked], rows)]
        own = np.searchsorted(rows, verdicts.row[here])
        for task in np.unique(verdicts.keeper_task[here]):
            given = by_task[int(task)]
            some = verdicts.keeper_task[here] == task
            known = np.isin(verdicts.keeper_row[here[some]], given.row)
            mine, theirs = here[some][known], own[some][known]
            keeper = np.searchsorted(given.row, verdicts.keeper_row[mine])
            for s in slices((len(mine), vectors.shape[1])):
                out[mine[s]] = embedding.method.similarity(vectors[theirs[s]], given.vectors[keeper[s]])
    return out


def _with_similarity(verdicts: Verdicts, *found: NDArray[np.float64]) -> Verdicts:
    best = np.full(len(verdicts.row), -np.inf)
    for one in found:
        np.fmax(best, one, out=best)
    computed = np.where(np.isinf(best), 0.0, best)
    return verdicts._replace(similarity=np.where(_missing(verdicts), computed, verdicts.similarity))


def _vectors(
    build: Store, embedding: Embedding, group: Sequence[PartitionFiles], loaded: Loaded, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    found = list(unit_vectors(build, embedding.home, embedding.field, group, loaded, wanted))
    dim = embedding.field.type.list_size
    rows = np.concatenate([np.empty(0, np.int64), *(r for r, _ in found)])
    return rows, np.concatenate([np.empty((0, dim), np.float32), *(v for _, v in found)])
