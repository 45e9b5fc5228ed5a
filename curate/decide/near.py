"""Near duplicates by cosine: samples whose embeddings point the same way.

The method, the fastest of those measured (SemDeDup, Abbas et al. 2023, arXiv 2303.09540, section 3, widened by a second
cell): spherical k-means, trained on rows drawn by a hash of their ids, cuts the vectors of a kind into cells; each row
goes to its two nearest cells; the rows of a cell are compared with each other exactly. Links are the maximum spanning
forest of each cell (`curate.decide.forest`), and all pairs of its components of up to `ALIKE` rows: whichever of these
is the keeper, the others' cosines with it are there, and vectors need not be read again when a rule has moved.

What is exact and what is not: every link has the cosine that is said. Two rows that share no cell are not compared, so
a pair can be missed; up to `EXACT_ROWS` rows there is one cell and none is.

Why the links depend on nothing but the vectors, their ids and the seed (law 6): k-means trains on its rows in the order
of a hash and on one thread; of a row whose second and third cell are as near as float32 can tell, the cells are chosen
in float64; rows of a cell are in the order of their ids. On a GPU all that holds too, but cells may be others.

Links are files `pairs/<key>-<threshold>/part-<i>-of-<n>.parquet`; the key is of the embedding's fragments and of what
cells depend on. All n files together are complete, and serve every larger threshold as well.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import combinations_with_replacement, pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.decide.engine import Held
from curate.decide.forest import Edges, completed, cosines, heaviest_forest, margin, slices, spanning_forest, unit
from curate.decide.keys import EMPTY, Keys, distinct, hashed, keys_of, names_of, words
from curate.decide.methods import LINKS, Material, complete_links
from curate.decide.partitions import STALE, Loaded, PartitionFiles, aligned, rows_of, signals_of
from curate.models.faiss_threads import one_faiss_thread
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS, SignalField
from curate.schema.ids import digest_of_rows, key_of
from curate.schema.recipe import NearDuplicates
from curate.storage import Store
from curate.storage.tables import write_table

EXACT_ROWS = 4096
"""Up to so many rows of a kind all pairs are compared."""

ALIKE = 16
"""Look-alikes of a cell, all of whose cosines are written: at most 7.5 links each."""

TRAIN_ROWS_PER_CELL = 64
"""k-means trains on about so many rows for each cell."""

TRAIN_BYTES = 256 << 20
"""Most bytes of vectors that k-means trains on."""

CELL_ROWS = 32_768
CELL_BYTES = 64 << 20
"""What one task compares with itself at most; larger cells are cut into chunks, each pair of them a task."""

HELD_BYTES = 512 << 20
"""Up to so many bytes of vectors are read once and held; more are read again for each step."""

WAVE = 128
"""So many buckets of cells are on their way at a time: at most 8 GiB of vectors."""

_ASSIGN = 8192  # rows that FAISS assigns at once
_NEAREST = 8  # cells that are looked at in float64 where float32 cannot tell


class Bucket(NamedTuple):
    """Rows that go to one place.

    Attributes:
        cells: first and last of its cells, inclusive.
        chunk, chunks: of a cell that is too large for one place.
    """

    cells: tuple[int, int]
    chunk: int
    chunks: int


class Rows(NamedTuple):
    """Rows of cells.

    Attributes:
        cell: int32 `(n,)`.
        key: `(n,)`, sample.
        vectors: float32 `(n, d)`, of unit length.
    """

    cell: NDArray[np.int32]
    key: Keys
    vectors: NDArray[np.float32]


class Cosine:
    """The method `cosine`; its options are those of NearDuplicates."""

    def similarity(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        return cosines(a, b)

    def links(self, material: Material, spec: NearDuplicates) -> list[str]:
        build, engine = material.build, material.engine
        fragments = [p.signals[material.home] for group in material.groups for p in group]
        made_from = [digest_of_rows(fragments), spec.embedding, spec.cells, material.seed, EXACT_ROWS, CELL_ROWS, ALIKE]
        key = key_of(["cosine", *made_from])[:16]
        there = complete_links(build, key, spec.threshold)
        if there is not None:
            return there

        sizes = {kind: _cells(spec, n) for kind, n in material.rows.items() if kind in material.field.kinds and n > 1}
        given = _given(material, sum(material.rows[kind] for kind in sizes))
        centroids = self._train(material, sizes, given)
        read = partial(unit_vectors, material.build, material.home, material.field)
        items = [(*one, *centroids) for one in given]
        cells, said = engine.exchange(partial(_assign, read, sizes), items, 2)
        counts = np.zeros(sum(sizes.values()), np.int64)
        for some in engine.fetch(said):
            counts += some
        buckets = _buckets(counts, min(CELL_ROWS, CELL_BYTES // (4 * material.field.type.list_size)))

        folder = f"pairs/{key}-{spec.threshold!r}"
        jobs: dict[tuple[int, int], list[int]] = defaultdict(list)
        for number, bucket in enumerate(buckets):
            jobs[bucket.cells].append(number)
        names = {of: f"{folder}/part-{i:05d}-of-{max(1, len(jobs)):05d}.parquet" for i, of in enumerate(jobs)}
        if not jobs:
            write_table(build, f"{folder}/part-00000-of-00001.parquet", LINKS.empty_table())
            return [f"{folder}/part-00000-of-00001.parquet"]
        for wave in _waves(jobs):
            some = [buckets[n] for of in wave for n in jobs[of]]
            items = [(*one, mine) for one, mine in zip(given, cells, strict=True)]
            rows = iter(engine.exchange(partial(_to_buckets, read, some), items, len(some)))
            whole: list[Any] = []
            for of in wave:
                chunks = [next(rows) for _ in jobs[of]]
                if len(chunks) == 1:
                    whole.append((names[of], *chunks[0]))
                else:
                    self._chunked(material, spec.threshold, names[of], chunks)
            for _ in engine.map(partial(_compare, build, spec.threshold), whole):
                pass
        return list(names.values())

    def _train(self, material: Material, sizes: dict[str, int], given: Sequence[_Given]) -> list[Held]:
        """Held centroids of the kinds in the order of `sizes`, None where there is one cell."""
        engine, dim = material.engine, material.field.type.list_size
        large = {kind: k for kind, k in sizes.items() if k > 1}
        share = {
            kind: min(TRAIN_ROWS_PER_CELL * k, TRAIN_BYTES // (4 * dim)) / material.rows[kind]
            for kind, k in large.items()
        }
        drawn: list[list[Held]] = []
        if large:
            read = partial(unit_vectors, material.build, material.home, material.field)
            drawn = engine.exchange(partial(_draw, read, share, material.seed), given, len(large))
        pieces = dict(zip(large, drawn, strict=True))
        return engine.hold(
            partial(_centroids, material.seed), [(sizes[kind], dim, *pieces.get(kind, ())) for kind in sizes]
        )

    def _chunked(self, material: Material, threshold: float, name: str, chunks: list[list[Held]]) -> None:
        """A cell that is cut into chunks: all pairs of them, then one forest of their forests."""
        engine = material.engine
        whole = engine.hold(_joined, [tuple(pieces) for pieces in chunks])
        pairs = combinations_with_replacement(range(len(whole)), 2)
        links = engine.hold(partial(_between, threshold), [(whole[i], None if i == j else whole[j]) for i, j in pairs])
        for _ in engine.map(partial(_united, material.build, name), [tuple(links)]):
            pass


Vectors = Iterable[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""Partition by partition rows of a group, ascending, and their vectors of unit length."""

Read = Callable[..., Vectors]

_Given = tuple[Sequence[PartitionFiles], Held, Held | None]
"""Partitions of a task, what was loaded of them, and their vectors where these are held."""


def _given(material: Material, rows: int) -> list[_Given]:
    """For each task."""
    items = list(zip(material.groups, material.loaded, strict=True))
    held: list[Held | None] = [None] * len(items)
    if 4 * material.field.type.list_size * rows <= HELD_BYTES:
        held = material.engine.hold(partial(_all_vectors, material.build, material.home, material.field), items)
    return [(*one, vectors) for one, vectors in zip(items, held, strict=True)]


def _all_vectors(
    build: Store, home: str, field: SignalField, group: Sequence[PartitionFiles], loaded: Loaded
) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    return list(unit_vectors(build, home, field, group, loaded))


def unit_vectors(
    build: Store,
    home: str,
    field: SignalField,
    group: Sequence[PartitionFiles],
    loaded: Loaded,
    wanted: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Embeddings of a group, partition by partition: rows of the group, ascending, and float32 `(n, d)` of unit length.
    Rows without one have none.

    Args:
        wanted: bool `(samples,)`, rows to read; partitions without any are not opened.

    Raises:
        CurateError: a vector is not as long as the field says, or holds NaN or an infinity.
    """
    for number, files in enumerate(group):
        here = rows_of(loaded, number)
        if here.start == here.stop or (wanted is not None and not wanted[here].any()):
            continue
        table = signals_of(build, files, home, [field.name])
        order = aligned(loaded.sample[here], keys_of(table["sample_id"]), home)
        column = table[field.name].combine_chunks()
        column = column if order is None else column.take(order)
        present = pc.is_valid(column).to_numpy(zero_copy_only=False)
        if wanted is not None:
            present &= wanted[here]
        flat = column.filter(pa.array(present)).flatten()
        rows = here.start + np.flatnonzero(present)
        dim = field.type.list_size
        if len(flat) != dim * len(rows):
            raise CurateError(f"{field.name} holds vectors that are not {dim} long", STALE)
        vectors = flat.to_numpy(zero_copy_only=False).reshape(-1, dim)
        for s in slices(vectors.shape):
            bad = np.flatnonzero(~np.isfinite(vectors[s]).all(axis=1))
            if len(bad):
                sample = names_of(loaded.sample[rows[s][bad[:1]]])[0]
                raise CurateError(
                    f"the embedding of {sample} holds NaN or an infinity",
                    "a signal gives finite vectors, null where it does not apply, or a failure; mend it and annotate "
                    "again",
                )
        yield rows, unit(vectors)


def default_cells(n: int) -> int:
    """sqrt(n) rounded up to a power of two."""
    return 1 << max(0, math.ceil(math.log2(math.sqrt(max(1, n)))))


def _cells(spec: NearDuplicates, n: int) -> int:
    return 1 if n <= EXACT_ROWS else spec.cells or default_cells(n)


def _draw(
    read: Read,
    share: dict[str, float],
    seed: int,
    group: Sequence[PartitionFiles],
    loaded: Loaded,
    held: Vectors | None,
) -> list[Rows]:
    """Rows to train on, by kind."""
    drawn = hashed(loaded.sample, seed)
    picked: dict[str, list[Rows]] = {kind: [] for kind in share}
    for rows, vectors in read(group, loaded) if held is None else held:
        for kind, part in share.items():
            some = loaded.sample_kind[rows] == KINDS.index(kind)
            some &= (drawn[rows] < np.uint64(min(part, 1) * (2**64 - 2**11))) & vectors.any(axis=1)
            picked[kind].append(Rows(np.zeros(some.sum(), np.int32), loaded.sample[rows[some]], vectors[some]))
    return [_joined(*pieces) for pieces in picked.values()]


def _centroids(seed: int, k: int, dim: int, *pieces: Rows) -> NDArray[np.float32] | None:
    """Centroids of at most `k` cells, `(k, d)`; None for one cell of everything."""
    import faiss

    rows = _joined(*pieces)
    if k == 1 or not len(rows.key):
        return None
    keys, which = distinct(rows.key)
    one = np.empty(len(keys), np.int64)
    one[which] = np.arange(len(which))
    one = one[np.argsort(hashed(keys, seed), kind="stable")]
    k = min(k, len(one))
    with one_faiss_thread():
        kmeans = faiss.Kmeans(
            dim,
            k,
            niter=10,
            seed=seed % (1 << 31),
            spherical=True,
            min_points_per_centroid=1,  # the default only prints a warning below 39
            max_points_per_centroid=len(one),  # they are a sample already
        )
        kmeans.train(rows.vectors[one])
    assert kmeans.centroids is not None  # trained
    return np.asarray(kmeans.centroids, np.float32)


def _assign(
    read: Read,
    sizes: dict[str, int],
    group: Sequence[PartitionFiles],
    loaded: Loaded,
    held: Vectors | None,
    *centroids: NDArray[np.float32] | None,
) -> tuple[tuple[NDArray[np.int32], NDArray[np.int32]], NDArray[np.int64]]:
    """The cells of a group's samples: rows int32 `(n,)` and cells int32 `(n, 2)`, -1 for none; how many each cell has.

    Cells are counted through all kinds. A zero vector is like no other, and has none.
    """
    starts = dict(zip(sizes, np.cumsum([0, *sizes.values()]), strict=False))
    search = {kind: None if found is None else _Nearest(found) for kind, found in zip(sizes, centroids, strict=True)}
    out_rows, out_cells = [np.empty(0, np.int32)], [np.empty((0, 2), np.int32)]
    for rows, vectors in read(group, loaded) if held is None else held:
        for kind, nearest in search.items():
            some = np.flatnonzero((loaded.sample_kind[rows] == KINDS.index(kind)) & vectors.any(axis=1))
            cell = np.full((len(some), 2), -1, np.int32)
            cell[:, 0] = starts[kind]
            if nearest is not None and len(some):
                found = nearest(vectors[some])
                cell[:, : found.shape[1]] = starts[kind] + found
            out_rows.append(rows[some].astype(np.int32))
            out_cells.append(cell)
    cells = np.concatenate(out_cells)
    counts = np.bincount(cells[cells >= 0], minlength=sum(sizes.values())).astype(np.int64)
    return (np.concatenate(out_rows), cells), counts


class _Nearest:
    """The two nearest centroids, the same ones whatever rows are looked up together."""

    def __init__(self, centroids: NDArray[np.float32]) -> None:
        import faiss

        self.centroids = centroids
        self.index: Any = faiss.IndexFlatIP(centroids.shape[1])
        if faiss.get_num_gpus():
            self.index = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self.index)
        self.index.add(centroids)

    def __call__(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """int64 `(n, 2)`, or `(n, 1)` where there is only one."""
        k = len(self.centroids)
        many = min(_NEAREST, k)
        out = np.empty((len(vectors), min(2, k)), np.int64)
        with one_faiss_thread():
            for start in range(0, len(vectors), _ASSIGN):
                some = vectors[start : start + _ASSIGN]
                score, cell = self.index.search(some, many)
                out[start : start + _ASSIGN] = cell[:, :2]
                if many > 2:
                    close = np.flatnonzero(score[:, 1] - score[:, 2] <= 2 * margin(some.shape[1]))
                    out[start + close] = self._exact(some[close], np.sort(cell[close], axis=1))
        return out

    def _exact(self, vectors: NDArray[np.float32], cells: NDArray[np.int64]) -> NDArray[np.int64]:
        score = np.stack([cosines(vectors, self.centroids[c]) for c in cells.T], axis=1)
        best = np.argsort(-score, axis=1, kind="stable")[:, :2]
        return np.take_along_axis(cells, best, axis=1)


def _buckets(counts: NDArray[np.int64], most: int) -> list[Bucket]:
    """Cells with at least two rows: as many neighbours in a bucket as fit, and chunks of those that do not."""
    out: list[Bucket] = []
    first, rows = 0, 0
    for cell, n in enumerate(counts.tolist()):
        if rows + n > most and rows:
            out.append(Bucket((first, cell - 1), 0, 1))
            rows = 0
        if not rows:
            first = cell
        if n > most:
            chunks = -(-n // most)
            out += [Bucket((cell, cell), chunk, chunks) for chunk in range(chunks)]
        elif n > 1:
            rows += n
    if rows:
        out.append(Bucket((first, len(counts) - 1), 0, 1))
    return out


def _waves(jobs: dict[tuple[int, int], list[int]]) -> Iterator[list[tuple[int, int]]]:
    """Jobs of about `WAVE` buckets; the chunks of a cell stay together."""
    wave: list[tuple[int, int]] = []
    size = 0
    for of, buckets in jobs.items():
        if wave and size + len(buckets) > WAVE:
            yield wave
            wave, size = [], 0
        wave.append(of)
        size += len(buckets)
    yield wave


def _to_buckets(
    read: Read,
    buckets: Sequence[Bucket],
    group: Sequence[PartitionFiles],
    loaded: Loaded,
    held: Vectors | None,
    assigned: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> list[Rows]:
    """A group's rows of each bucket."""
    cell_of = np.full((len(loaded.sample), 2), -1, np.int32)
    cell_of[assigned[0]] = assigned[1]
    drawn = hashed(loaded.sample, 1)
    firsts = np.array([b.cells[0] for b in buckets])
    lasts = np.array([b.cells[1] for b in buckets])
    chunks = np.array([b.chunks for b in buckets])
    # the first bucket of a cell; those of its other chunks follow
    place = np.searchsorted(firsts, cell_of, side="right") - 1
    place = np.where(place >= 0, np.searchsorted(firsts, firsts[place], side="left"), 0)
    inside = (cell_of >= firsts[place]) & (cell_of <= lasts[place])
    place = np.where(inside, place + (drawn[:, None] % chunks[place].astype(np.uint64)).astype(np.int64), -1)
    counts = np.bincount(place[place >= 0], minlength=len(buckets)).tolist()
    out: list[Rows] = []
    filled = [0] * len(buckets)
    for rows, vectors in read(group, loaded, (place >= 0).any(axis=1)) if held is None else held:
        if not out:
            dim = vectors.shape[1]
            out = [Rows(np.empty(n, np.int32), np.empty(n, "S16"), np.empty((n, dim), np.float32)) for n in counts]
        row, side = np.nonzero(place[rows] >= 0)
        bucket = place[rows[row], side]
        order = np.argsort(bucket, kind="stable")
        for some in np.split(order, np.flatnonzero(np.diff(bucket[order])) + 1):
            if len(some):
                at, number = rows[row[some]], bucket[some[0]]
                here = slice(filled[number], filled[number] + len(some))
                filled[number] = here.stop
                out[number].cell[here] = cell_of[at, side[some]]
                out[number].key[here] = loaded.sample[at]
                np.take(vectors, row[some], axis=0, out=out[number].vectors[here], mode="clip")  # unbuffered
    return out or [_joined() for _ in buckets]


def _joined(*pieces: Rows) -> Rows:
    pieces = tuple(p for p in pieces if len(p.key))
    if not pieces:
        return Rows(np.empty(0, np.int32), EMPTY, np.empty((0, 0), np.float32))
    cell, key, vectors = (np.concatenate(column) for column in zip(*pieces, strict=True))
    return Rows(cell, key, vectors)


def _sorted(*pieces: Rows) -> Rows:
    """Rows by cell and id; of a sample that comes twice, since two records are the same bytes, the first."""
    pieces = tuple(p for p in pieces if len(p.key))
    if not pieces:
        return _joined()
    cell, key = (np.concatenate([p[column] for p in pieces]) for column in (0, 1))
    first, last = words(key)
    order = np.lexsort((last, first, cell))
    cell, key = cell[order], key[order]
    new = np.ones(len(order), bool)
    new[1:] = (cell[1:] != cell[:-1]) | (key[1:] != key[:-1])
    place = np.full(len(order), -1)
    place[order[new]] = np.arange(new.sum())
    vectors = np.empty((new.sum(), pieces[0].vectors.shape[1]), np.float32)
    start = 0
    for piece in pieces:
        at = place[start : start + len(piece.key)]
        start += len(piece.key)
        if (at >= 0).all():
            vectors[at] = piece.vectors
        else:
            vectors[at[at >= 0]] = piece.vectors[at >= 0]
    return Rows(cell[new], key[new], vectors)


def _compare(build: Store, threshold: float, name: str, *pieces: Rows) -> None:
    """Write the links of the cells of one bucket."""
    rows = _sorted(*pieces)
    ends = np.flatnonzero(np.r_[True, rows.cell[1:] != rows.cell[:-1], True][: len(rows.cell) + 1])
    links = [_table(EMPTY, (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)))]
    for start, end in pairwise(ends):
        if end - start > 1:
            forest = spanning_forest(rows.vectors[start:end], threshold)
            links.append(_table(rows.key[start:end], completed(rows.vectors[start:end], forest, ALIKE)))
    write_table(build, name, pa.concat_tables(links).combine_chunks())


def _between(threshold: float, one: Rows, other: Rows | None) -> tuple[Keys, Keys, NDArray[np.float64]]:
    """Links of a chunk of a cell with itself, or with another."""
    first = _sorted(one)
    second = first if other is None else _sorted(other)
    split = None if other is None else len(first.key)
    key = first.key if other is None else np.concatenate([first.key, second.key])
    vectors = first.vectors if other is None else np.concatenate([first.vectors, second.vectors])
    a, b, w = spanning_forest(vectors, threshold, split)
    return key[a], key[b], w


def _united(build: Store, name: str, *links: tuple[Keys, Keys, NDArray[np.float64]]) -> None:
    """Write the forest of the forests of a cell's chunks."""
    a, b, w = (np.concatenate(column) for column in zip(*links, strict=True))
    keys, which = distinct(np.concatenate([a, b]))
    ends = which.reshape(2, -1)
    edges = heaviest_forest(len(keys), ends.min(axis=0), ends.max(axis=0), w)
    order = np.lexsort((edges[1], edges[0]))
    write_table(build, name, _table(keys, (edges[0][order], edges[1][order], edges[2][order])))


def _table(keys: Keys, edges: Edges) -> pa.Table:
    a, b, similarity = edges
    return pa.table({"a": names_of(keys[a]), "b": names_of(keys[b]), "similarity": similarity}).cast(LINKS)
