"""Near duplicates: samples whose embeddings point the same way.

The method, the fastest of those measured (SemDeDup, Abbas et al. 2023, arXiv 2303.09540, section 3, widened by a second
cell): spherical k-means cuts the vectors into cells, each row goes to its two nearest cells, and the rows of a cell are
compared with each other exactly. Groups are the connected components over the pairs found.

What is exact and what is not: every pair that is reported has a cosine of at least the threshold, always. Two rows that
share no cell are not compared, so a pair can be missed; up to `EXACT_ROWS` rows there is one cell and none is.

Why the result depends on nothing but the vectors, their ids and the seed (law 6): rows are taken in the order of their
ids, k-means trains on rows picked by a hash of the id and runs on one thread, and the verdict on a pair is computed in
float64 from its two vectors alone. A float32 matrix product, whose last bits vary with the shape of a block, only says
which pairs are worth that look.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.vectors import Vectors
from curate.schema.errors import CurateError
from curate.schema.ids import order_key

EXACT_ROWS = 4096
"""Up to so many rows all pairs are compared."""

TRAIN_ROWS_PER_CELL = 64
"""k-means trains on at most so many rows for each cell."""

_BLOCK = 2048  # rows of a block of a matrix product: 16 MiB of float32 cosines
_ASSIGN = 8192  # rows that FAISS assigns at once
_WIDE = 1 << 21  # float64 numbers widened at once: 16 MiB

Links = NDArray[np.int64]
"""`(p, 2)` row numbers."""


class Cell(NamedTuple):
    """Rows that are compared with each other.

    Attributes:
        rows: int64 `(m,)`, ascending row numbers in the order of the ids.
        vectors: float32 `(m, d)`, of unit length (or zero).
    """

    rows: NDArray[np.int64]
    vectors: NDArray[np.float32]


Mapper = Callable[[Callable[[Cell], Links], Iterable[Cell]], Iterable[Links]]
"""Runs a picklable function over cells, anywhere and in any order; the built-in `map` is one."""


@dataclass(frozen=True)
class Groups:
    """Near duplicates: one entry for each row that is a duplicate, in the order of its id.

    Attributes:
        ids: the duplicates.
        keepers: the keeper of each.
        similarity: float64 `(len(ids),)`, cosine of the two. Membership is transitive, so in a chain a - b - c it can
            be below the threshold: c is like b, b is like a, and a is kept.
    """

    ids: list[str]
    keepers: list[str]
    similarity: NDArray[np.float64]


def near_duplicates(
    ids: Sequence[str] | pa.StringArray,
    vectors: Vectors,
    keep_keys: NDArray[np.float64],
    threshold: float,
    cells: int | None = None,
    seed: int = 0,
    mapper: Mapper = map,
    exact_rows: int = EXACT_ROWS,
) -> Groups:
    """Group rows by cosine and name the keeper of each group.

    Args:
        ids: unique, in any order.
        vectors: `(n, d)` of any float type and any length; may lie in a file. Zero vectors are like no other.
        keep_keys: float64 `(n, k)`; the keeper has the largest first key, then the largest second, and so on; NaN is
            the smallest of all; among equals it is the row of the smallest id.
        threshold: cosine above 0, at most 1.
        cells: k-means cells; where None, sqrt(n) rounded up to a power of two. 1 compares all pairs.
        seed: of k-means.
        mapper: runs the cells.
        exact_rows: up to so many rows all pairs are compared, whatever `cells` says.

    Memory: beside `vectors` (and a copy of them where the ids are not sorted) a few integers a row, the vectors that
    k-means trains on, and as many cells as the mapper takes at once; up to `exact_rows` rows are one cell.

    Raises:
        CurateError: a vector holds NaN or an infinity.
        ValueError: shapes that do not fit, ids that are not unique, a threshold out of range.
    """
    n = len(ids)
    if len(vectors.shape) != 2 or vectors.shape[0] != n or keep_keys.ndim != 2 or len(keep_keys) != n:
        raise ValueError(f"{n} ids, vectors {vectors.shape}, keep_keys {keep_keys.shape}: need (n, d) and (n, k)")
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is not a cosine above 0 and up to 1")
    ids = _array(ids)
    if pc.any(pc.less(ids[1:], ids[:-1])).as_py():
        order = pc.sort_indices(ids).to_numpy()
        ids, vectors, keep_keys = ids.take(order), vectors[order], keep_keys[order]
    twice = ids[1:].filter(pc.equal(ids[1:], ids[:-1]))
    if len(twice):
        raise ValueError(f"id {twice[0]} occurs twice")
    _finite(ids, vectors)

    k = cells if cells is not None else default_cells(n)
    all_rows = np.arange(n)
    compared = [_cell(vectors, all_rows)] if n <= exact_rows or k == 1 else cell_rows(ids, vectors, k, seed)
    links = [np.empty((0, 2), np.int64), *mapper(partial(cell_links, threshold=threshold), compared)]
    duplicate, keeper = _keepers(_components(n, np.concatenate(links)), keep_keys)
    return Groups(
        ids.take(duplicate).to_pylist(),
        ids.take(keeper).to_pylist(),
        row_cosines(vectors, np.stack([duplicate, keeper], axis=1)),
    )


def default_cells(n: int) -> int:
    """sqrt(n) rounded up to a power of two."""
    return 1 << max(0, math.ceil(math.log2(math.sqrt(max(1, n)))))


def cell_rows(ids: Sequence[str] | pa.StringArray, vectors: Vectors, k: int, seed: int) -> Iterator[Cell]:
    """The cells of `cells` with at least two rows, with their vectors, one after the other."""
    assigned = cells(ids, vectors, k, seed)
    flat = assigned.ravel()
    by_cell = np.argsort(flat, kind="stable")
    for rows in np.split(by_cell // assigned.shape[1], np.flatnonzero(np.diff(flat[by_cell])) + 1):
        if len(rows) > 1:
            yield _cell(vectors, rows)


def cells(ids: Sequence[str] | pa.StringArray, vectors: Vectors, k: int, seed: int) -> NDArray[np.int64]:
    """The two nearest of `k` spherical k-means cells of each row, nearest first.

    Args:
        ids: names of the rows; k-means trains on the `TRAIN_ROWS_PER_CELL * k` rows whose hash is smallest.
        vectors: `(n, d)`, rows in the order of the ids.
        k: cells; at most one for each training row is made.
        seed: of the hash and of k-means.

    Returns:
        int64 `(n, 2)`, or `(n, 1)` where there is only one cell.
    """
    import faiss

    ids = _array(ids)
    picked = np.array(
        [row for _, row in heapq.nsmallest(TRAIN_ROWS_PER_CELL * k, _drawn(ids, vectors, seed))], np.int64
    )
    if not len(picked):
        return np.zeros((len(ids), 1), np.int64)
    k = min(k, len(picked))
    out = np.empty((len(ids), min(2, k)), np.int64)
    with _one_thread():
        kmeans = faiss.Kmeans(
            vectors.shape[1],
            k,
            niter=10,
            seed=seed % (1 << 31),
            spherical=True,
            min_points_per_centroid=1,  # the default only prints a warning below 39
            max_points_per_centroid=len(picked),  # they are a sample already
        )
        kmeans.train(_cell(vectors, picked).vectors)
        centroids = kmeans.centroids
        assert centroids is not None  # trained
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(centroids)
        for start in range(0, len(ids), _ASSIGN):
            out[start : start + _ASSIGN] = index.search(unit(vectors[start : start + _ASSIGN]), out.shape[1])[1]
    return out


def _drawn(ids: pa.StringArray, vectors: Vectors, seed: int) -> Iterator[tuple[str, int]]:
    """Key of the draw and row of each vector that is not zero."""
    for start in range(0, len(ids), _ASSIGN):
        usable = vectors[start : start + _ASSIGN].any(axis=1)
        for row, name in zip(
            np.flatnonzero(usable), ids[start : start + _ASSIGN].filter(usable).to_pylist(), strict=True
        ):
            yield order_key(seed, name), start + int(row)


def cell_pairs(ids: NDArray[np.int64], vectors: NDArray[np.float32], threshold: float) -> Iterator[Links]:
    """All pairs of a cell with a cosine of at least `threshold`, block by block.

    Args:
        ids: int64 `(m,)`, ascending.
        vectors: float32 `(m, d)`, of unit length (or zero).
        threshold: cosine.

    Yields:
        int64 `(p, 2)`, ids i < j.
    """
    for pairs in _local_pairs(vectors, threshold):
        yield ids[pairs]


def cell_links(cell: Cell, threshold: float) -> Links:
    """Links `(first, other)` that connect the same rows as all pairs of the cell do, but fewer than one a row.

    A cell of m equal pictures has m * (m - 1) / 2 pairs; groups need only m - 1 of them.
    """
    m = len(cell.rows)
    first = np.arange(m)
    for pairs in _local_pairs(cell.vectors, threshold):
        new = first[pairs]
        new = new[new[:, 0] != new[:, 1]]
        if len(new):
            first = _components(m, new)[first]
    other = np.flatnonzero(first != np.arange(m))
    return np.stack([cell.rows[first[other]], cell.rows[other]], axis=1)


def unit(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows of `(n, d)` at unit length, float32; zero rows stay zero. A row's result does not depend on the others."""
    out = np.empty(vectors.shape, np.float32)
    for s in _slices(vectors):
        wide = np.ascontiguousarray(vectors[s], np.float64)
        length = np.sqrt((wide * wide).sum(axis=1, keepdims=True))
        out[s] = wide / np.where(length > 0, length, 1)
    return out


def cosines(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Cosine of each row of `a` with the same row of `b`, both `(p, d)`: float64 `(p,)`; 0 with a zero vector.

    Equal vectors give exactly 1, since the square root of a rounded square is exact.
    """
    out = np.zeros(len(a))
    for s in _slices(a):
        x, y = np.ascontiguousarray(a[s], np.float64), np.ascontiguousarray(b[s], np.float64)
        scale = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
        np.divide((x * y).sum(axis=1), scale, out=out[s], where=scale > 0)
    return np.clip(out, -1, 1)


def row_cosines(vectors: Vectors, pairs: Links) -> NDArray[np.float64]:
    """Cosine of the two rows of each pair, float64 `(p,)`, as near duplicates are compared."""
    out = np.empty(len(pairs))
    step = max(1, _WIDE // max(1, vectors.shape[1]))
    for start in range(0, len(pairs), step):
        i, j = pairs[start : start + step].T
        out[start : start + step] = cosines(unit(vectors[i]), unit(vectors[j]))
    return out


def _local_pairs(vectors: NDArray[np.float32], threshold: float) -> Iterator[Links]:
    """Pairs i < j of row positions with a cosine of at least `threshold`, block by block."""
    m, d = vectors.shape
    # |fl(x.y) - x.y| <= d u / (1 - d u) * |x|.|y| in any order of summation (Higham, Accuracy and Stability, 3.1),
    # with u = 2^-24, and |x|.|y| <= 1 for unit vectors; some more for lengths that are 1 only to float32.
    margin = (d + 8) * 2.0**-23
    for i in range(0, m, _BLOCK):
        for j in range(i, m, _BLOCK):
            product = vectors[i : i + _BLOCK] @ vectors[j : j + _BLOCK].T
            a, b = np.nonzero(product >= np.float32(threshold - margin))
            found = product[a, b]
            if i == j:
                above = a < b
                a, b, found = a[above], b[above], found[above]
            near = np.flatnonzero(found < threshold + margin)
            kept = np.ones(len(a), bool)
            kept[near] = _verified(vectors, a[near] + i, b[near] + j, threshold)
            if kept.any():
                yield np.stack([a[kept] + i, b[kept] + j], axis=1)


def _verified(
    vectors: NDArray[np.float32], a: NDArray[np.intp], b: NDArray[np.intp], threshold: float
) -> NDArray[np.bool_]:
    """Whether each pair's float64 cosine reaches the threshold."""
    out = np.empty(len(a), bool)
    step = max(1, _WIDE // max(1, vectors.shape[1]))
    for start in range(0, len(a), step):
        s = slice(start, start + step)
        out[s] = cosines(vectors[a[s]], vectors[b[s]]) >= threshold
    return out


def _components(n: int, links: Links) -> NDArray[np.int64]:
    """The smallest row number of each row's connected component, int64 `(n,)`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(links), bool), (links[:, 0], links[:, 1])), shape=(n, n))
    count, label = connected_components(graph, directed=False)
    smallest = np.full(count, n, np.int64)
    np.minimum.at(smallest, label, np.arange(n))
    return np.asarray(smallest[label])


def _keepers(
    component: NDArray[np.int64], keep_keys: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows that are not the keeper of their component, ascending, and the keeper of each."""
    largest_first = -np.where(np.isnan(keep_keys), -np.inf, keep_keys)
    # lexsort's last key is its first: component, then the keys in order; it is stable, so ties stay in row order.
    order = np.lexsort((*largest_first.T[::-1], component))
    sorted_component = component[order]
    best = order[np.flatnonzero(np.r_[True, sorted_component[1:] != sorted_component[:-1]][: len(order)])]
    keeper = np.empty(len(component), np.int64)
    keeper[component[best]] = best
    of_row = keeper[component]
    duplicate = np.flatnonzero(of_row != np.arange(len(component)))
    return duplicate, of_row[duplicate]


def _array(ids: Sequence[str] | pa.StringArray) -> pa.StringArray:
    """Ids outside Python's heap, where a million of them take 36 MB."""
    return ids if isinstance(ids, pa.StringArray) else pa.array(ids, pa.string())


def _cell(vectors: Vectors, rows: NDArray[np.int64]) -> Cell:
    """Rows at unit length, widened a slice at a time."""
    out = np.empty((len(rows), vectors.shape[1]), np.float32)
    for s in _slices(out):
        out[s] = unit(vectors[rows[s]])
    return Cell(rows, out)


def _finite(ids: pa.StringArray, vectors: Vectors) -> None:
    for s in _slices(vectors):
        bad = np.flatnonzero(~np.isfinite(vectors[s]).all(axis=1))
        if len(bad):
            raise CurateError(
                f"the embedding of {ids[s.start + int(bad[0])]} holds NaN or an infinity",
                "a signal gives finite vectors, null where it does not apply, or a failure; mend it and annotate again",
            )


def _slices(vectors: Vectors) -> Iterator[slice]:
    step = max(1, _WIDE // max(1, vectors.shape[1]))
    for start in range(0, vectors.shape[0], step):
        yield slice(start, start + step)


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS, and the BLAS inside it, on one thread: sums in one order."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
