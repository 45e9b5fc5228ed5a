"""Links of vectors that are compared with each other: the maximum spanning forest over their cosines.

m look-alikes have m * (m - 1) / 2 pairs. Groups are connected components, and those need only m - 1 of them: of each
cycle of pairs the one of the smallest cosine can go (single linkage, Gower and Ross 1969). For *every* threshold
at or above the one it was made for, what is left has the components that all pairs have.

The forest is that of the cosines in float64, computed from the two vectors alone, with ties in the order of the rows,
so it depends neither on the shape of a block nor on the machine. A float32 matrix product, whose last bits vary with
both, only says which pairs are worth that look: those that may reach the threshold, and of a dense block those that
may be better than the path that is there already.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK = 2048  # rows of a block of a matrix product: 16 MiB of float32 cosines
DENSE = 16  # pairs for each row of a block above which it is thinned before they are looked at
LEVELS = 8  # cosines at which the forest's components are known while a block is thinned
ROUNDS = 4  # of thinning
_WIDE = 1 << 21  # float64 numbers widened at once: 16 MiB

Edges = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]
"""Pairs of rows a < b, each `(p,)`, and their cosines."""


def spanning_forest(vectors: NDArray[np.float32], threshold: float, split: int | None = None) -> Edges:
    """The maximum spanning forest of the pairs with a cosine of at least `threshold`.

    Args:
        vectors: `(m, d)`, of unit length (or zero: those are like no other).
        threshold: cosine above 0.
        split: compare only rows below it with rows from it on; None: all with all.

    Returns:
        Fewer than m pairs, sorted by rows. Equal vectors are all linked to the first of them, at 1.
    """
    first = first_equal(vectors)
    rows = np.flatnonzero((first == np.arange(len(vectors))) & vectors.any(axis=1))
    copy = np.flatnonzero((first != np.arange(len(vectors))) & vectors.any(axis=1))
    some = vectors if len(rows) == len(vectors) else vectors[rows]
    ends = None if split is None else int(np.searchsorted(rows, split))
    a, b, w = _forest(some, threshold, ends)
    edges = (
        np.concatenate([rows[a], first[copy]]),
        np.concatenate([rows[b], copy]),
        np.concatenate([w, np.ones(len(copy))]),
    )
    order = np.lexsort((edges[1], edges[0]))
    return edges[0][order], edges[1][order], edges[2][order]


def completed(vectors: NDArray[np.float32], edges: Edges, most: int) -> Edges:
    """A forest with *all* pairs of each of its components of at most `most` rows, whatever their cosine.

    Args:
        vectors: `(m, d)`, of unit length.
        edges: of a forest of them, sorted by rows, as the answer is.
        most: rows of a component.
    """
    linked, ends = np.unique(np.concatenate(edges[:2]), return_inverse=True)
    if len(linked) == len(ends):
        return edges  # pairs that share no row
    ends = ends.reshape(2, -1)
    label = components(len(linked), *ends)
    size = np.bincount(label)[label]
    order = np.argsort(label, kind="stable")  # of a component in the order of the rows
    kept = (size[ends[0]] < 3) | (size[ends[0]] > most)
    parts = [(edges[0][kept], edges[1][kept], edges[2][kept])]
    for m in np.unique(size[(size > 2) & (size <= most)]):
        rows = linked[order[size[order] == m]].reshape(-1, m)
        a, b = (rows[:, some].ravel() for some in np.triu_indices(m, 1))
        parts.append((a, b, _pair_cosines(vectors, a, b)))
    a, b, w = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((b, a))
    return a[order], b[order], w[order]


def heaviest_forest(rows: int, a: NDArray[np.int64], b: NDArray[np.int64], w: NDArray[np.float64]) -> Edges:
    """Of pairs a < b the maximum spanning forest: the largest weight first, then the smallest a and b."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    order = np.lexsort((b, a, -w))
    pair = a[order] * rows + b[order]
    _, once = np.unique(pair, return_index=True)
    order = order[np.sort(once)]
    if len(np.unique(np.concatenate([a[order], b[order]]))) == 2 * len(order):
        return a[order], b[order], w[order]  # pairs that share no row
    # The place in the order as weight: no two are equal, and none is 0, which scipy takes for no pair.
    graph = coo_array((np.arange(1.0, len(order) + 1), (a[order], b[order])), shape=(rows, rows))
    kept = order[np.sort(minimum_spanning_tree(graph).data).astype(np.int64) - 1]
    return a[kept], b[kept], w[kept]


def components(rows: int, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int32]:
    """The number of each row's connected component, `(rows,)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    label = connected_components(coo_array((np.ones(len(a), bool), (a, b)), shape=(rows, rows)), directed=False)[1]
    return np.asarray(label, np.int32)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of `(n, d)` at unit length, float32; zero rows stay zero. A row's result does not depend on the others."""
    out = np.empty(vectors.shape, np.float32)
    for s in slices(vectors.shape):
        wide = np.ascontiguousarray(vectors[s], np.float64)
        length = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        out[s] = wide / np.where(length > 0, length, 1) + 0.0
    return out


def cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine of each row of `a` with the same row of `b`, both `(p, d)`: float64 `(p,)`; 0 with a zero vector.

    Equal vectors give exactly 1, since the square root of a rounded square is exact.
    """
    out = np.zeros(len(a))
    for s in slices(a.shape):
        x, y = np.ascontiguousarray(a[s], np.float64), np.ascontiguousarray(b[s], np.float64)
        scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        np.divide((x * y).sum(axis=1), scale, out=out[s], where=scale > 0)
    return np.clip(out, -1, 1)


def slices(shape: tuple[int, ...]) -> Iterator[slice]:
    """Rows of an array `(n, d)`, few enough at a time to be widened."""
    step = max(1, _WIDE // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, start + step)


def margin(d: int) -> float:
    """How far a float32 cosine of two unit vectors of `d` numbers may be from the true one."""
    # |fl(x.y) - x.y| <= d u / (1 - d u) * |x|.|y| in any order of summation (Higham, Accuracy and Stability, 3.1),
    # with u = 2^-24, and |x|.|y| <= 1 for unit vectors; some more for lengths that are 1 only to float32.
    return (d + 8) * 2.0**-23


def _pair_cosines(vectors: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.float64]:
    out = np.empty(len(a))
    for s in slices((len(a), vectors.shape[1])):
        out[s] = cosines(vectors[a[s]], vectors[b[s]])
    return out


def first_equal(vectors: NDArray[np.float32]) -> NDArray[np.int64]:
    """The first row that each row is equal to, itself where there is none before it."""
    m, d = vectors.shape
    odd = np.random.default_rng(0).integers(0, 1 << 63, d, dtype=np.uint64) << np.uint64(1) | np.uint64(1)
    mixed = np.empty(m, np.uint64)
    for s in slices(vectors.shape):
        bits = np.ascontiguousarray(vectors[s]).view(np.uint32).astype(np.uint64)
        mixed[s] = (bits * odd).sum(axis=1, dtype=np.uint64)
    order = np.argsort(mixed, kind="stable")
    first = np.arange(m)
    new = np.ones(m, bool)
    new[1:] = mixed[order][1:] != mixed[order][:-1]
    head = order[np.flatnonzero(new)][np.cumsum(new) - 1] if m else order
    candidates = np.flatnonzero(~new)
    for s in slices((len(candidates), d)):
        row, one = order[candidates[s]], head[candidates[s]]
        same = (vectors[row] == vectors[one]).all(axis=1)
        first[row[same]] = one[same]
    return first


def _forest(vectors: NDArray[np.float32], threshold: float, split: int | None) -> Edges:
    m, d = vectors.shape
    tree = _Tree(m)
    starts = range(0, m, BLOCK)
    if split is None:
        blocks = [(i, j, m, m) for i in starts for j in range(i, m, BLOCK)]
    else:
        blocks = [(i, j, split, m) for i in range(0, split, BLOCK) for j in range(split, m, BLOCK)]
    for i, j, end_i, end_j in blocks:
        x, y = vectors[i : min(i + BLOCK, end_i)], vectors[j : min(j + BLOCK, end_j)]
        product = x @ y.T
        some = product >= np.float32(threshold - margin(d))
        count = np.count_nonzero(some)
        if i == j:
            count = (count - np.count_nonzero(some.diagonal())) // 2
        if count > DENSE * (len(x) + len(y)):
            if i == j:
                product[np.tril_indices(len(x))] = -1
            some = _thinned(tree, vectors, i, j, product, threshold)
        a, b = np.divmod(np.flatnonzero(some), len(y))
        if i == j:
            a, b = a[a < b], b[a < b]
        _add(tree, vectors, a + i, b + j, threshold)
    tree.settle()
    return tree.a, tree.b, tree.w


def _add(
    tree: _Tree, vectors: NDArray[np.float32], a: NDArray[np.int64], b: NDArray[np.int64], threshold: float
) -> None:
    w = _pair_cosines(vectors, a, b)
    near = w >= threshold
    tree.add(a[near], b[near], w[near])


def _thinned(
    tree: _Tree, vectors: NDArray[np.float32], i: int, j: int, product: NDArray[np.floating], threshold: float
) -> NDArray[np.bool_]:
    """Of the pairs of a dense block those that the forest may still need, as a mask; some are added to it on the way.

    Each row is linked with the best of its partners first. Then most pairs have a path of better pairs already.
    """
    n, m = product.shape
    error = margin(vectors.shape[1])
    for turn in range(ROUNDS):
        a = np.concatenate([np.arange(n), product.argmax(axis=0)])
        b = np.concatenate([product.argmax(axis=1), np.arange(m)])
        some = product[a, b] >= threshold - error
        _add(tree, vectors, a[some] + i, b[some] + j, threshold)
        tree.settle()
        product[a, b] = -1
        path = tree.paths(slice(i, i + n), slice(j, j + m))
        product[product + error < path] = -1
        useful = product >= threshold - error
        if np.count_nonzero(useful) <= DENSE * (n + m):
            break
        if turn == 0:  # look-alikes may be nearer to each other than float32 can tell
            wide = _wide_unit(vectors[i : i + n]) @ _wide_unit(vectors[j : j + m]).T
            product = np.where(useful, wide, -1)
            error *= 2.0**-29
    return useful


def _wide_unit(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    wide = vectors.astype(np.float64)
    length = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
    wide /= length
    return wide


class _Tree:
    """A maximum spanning forest that grows."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.a = self.b = np.empty(0, np.int64)
        self.w = np.empty(0)
        self._new: list[Edges] = []
        self._waiting = 0

    def add(self, a: NDArray[np.int64], b: NDArray[np.int64], w: NDArray[np.float64]) -> None:
        """More pairs."""
        if len(a):
            self._new.append((a, b, w))
            self._waiting += len(a)
            if self._waiting > self.rows:
                self.settle()

    def settle(self) -> None:
        """Take in what was added."""
        if self._new:
            columns = zip((self.a, self.b, self.w), *self._new, strict=True)
            a, b, w = (np.concatenate(column) for column in columns)
            self.a, self.b, self.w = heaviest_forest(self.rows, a, b, w)
            self._new, self._waiting = [], 0

    def paths(self, a: slice, b: slice) -> NDArray[np.float64]:
        """How good a path connects each row of `a` with each of `b` at least: cosines, -1 where none is known."""
        out = np.full((a.stop - a.start, b.stop - b.start), -1.0)
        step = max(1, len(self.w) // LEVELS)
        for level in np.unique(np.sort(self.w)[::step]):
            above = self.w >= level
            label = components(self.rows, self.a[above], self.b[above])
            np.copyto(out, level, where=label[a, None] == label[None, b])
        return out
