"""Near duplicates by buckets: locality-sensitive hashing (Indyk and Motwani 1998), for methods of one's own.

A method gives each sample some buckets; samples of one kind that share one are compared. So what is alike in another
way than by cosine (bits of a hash, minima of shingles) costs about as much as it has look-alikes, and no list of all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.decide.forest import first_equal, heaviest_forest
from curate.decide.keys import Keys, distinct, mix, names_of
from curate.decide.methods import LINKS, Material, complete_links
from curate.decide.near import unit_vectors
from curate.decide.partitions import Loaded, PartitionFiles
from curate.schema.fields import SignalField
from curate.schema.ids import digest_of_rows, key_of
from curate.schema.recipe import NearDuplicates
from curate.storage import Store
from curate.storage.tables import write_table

PART_ROWS = 32_768
"""Rows of buckets that one task compares, about."""

ALIKE = 16
"""Linked samples of a bucket, all of whose pairs are written; of more those that reach the threshold."""

PAIRS = 1 << 20
"""Pairs of a bucket that are compared at a time."""


class Buckets(ABC):
    """Base of a method that compares what shares a bucket. The field that the recipe names gives the vectors.

    Attributes:
        version: another one finds all links anew.
    """

    version = "1"

    @abstractmethod
    def buckets(self, vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
        """Buckets of samples, `(n, b)`, numbers of any size; a row depends on that row of `vectors` only.

        Args:
            vectors: `(n, d)`, of unit length, or zero.
        """

    @abstractmethod
    def similarity(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        """How alike rows of `a` are to those of `b`, `(p,)` from 0 to 1: 1 for equal ones. `threshold` is of this."""

    def links(self, material: Material, spec: NearDuplicates) -> list[str]:
        """Files of LINKS in the build; see `curate.decide.methods.Method`."""
        build, engine, cls = material.build, material.engine, type(self)
        fragments = [p.signals[material.home] for group in material.groups for p in group]
        key = key_of([f"{cls.__module__}:{cls.__qualname__}", self.version, digest_of_rows(fragments), spec.embedding])
        there = complete_links(build, key[:16], spec.threshold)
        if there is not None:
            return there
        parts = max(1, sum(material.rows.values()) // PART_ROWS)
        names = [f"pairs/{key[:16]}-{spec.threshold!r}/part-{i:05d}-of-{parts:05d}.parquet" for i in range(parts)]
        items = list(zip(material.groups, material.loaded, strict=True))
        rows = engine.exchange(partial(_scattered, build, material.home, material.field, self, parts), items, parts)
        compare = partial(_compare, build, self, spec.threshold)
        for _ in engine.map(compare, [(name, *pieces) for name, pieces in zip(names, rows, strict=True)]):
            pass
        return names


class _Rows(NamedTuple):
    """Samples in buckets, one row for each of both: uint64 `(n,)`, `(n,)`, float32 `(n, d)`."""

    bucket: NDArray[np.uint64]
    key: Keys
    vectors: NDArray[np.float32]


def _scattered(
    build: Store,
    home: str,
    field: SignalField,
    method: Buckets,
    parts: int,
    group: Sequence[PartitionFiles],
    loaded: Loaded,
) -> list[_Rows]:
    """A group's rows for each part."""
    found = [_Rows(np.empty(0, np.uint64), loaded.sample[:0], np.empty((0, field.type.list_size), np.float32))]
    for row, vectors in unit_vectors(build, home, field, group, loaded):
        given = method.buckets(vectors).astype(np.uint64)
        # the same number in another band, or of another kind, is another bucket
        salt = np.arange(given.shape[1], dtype=np.uint64) + loaded.sample_kind[row].astype(np.uint64)[:, None] * 1024
        bucket = mix(given ^ mix(salt))
        at = np.repeat(np.arange(len(row)), given.shape[1])
        found.append(_Rows(bucket.ravel(), loaded.sample[row[at]], vectors[at]))
    whole = _Rows._make(np.concatenate(column) for column in zip(*found, strict=True))
    part = whole.bucket % np.uint64(parts)
    return [_Rows._make(column[part == n] for column in whole) for n in range(parts)]


def _compare(build: Store, method: Buckets, threshold: float, name: str, *pieces: _Rows) -> None:
    """Write the links of a part."""
    rows = _Rows._make(np.concatenate(column) for column in zip(*pieces, strict=True))
    keys, sample = distinct(rows.key)
    order = np.lexsort((sample, rows.bucket))
    bucket, sample, vectors = rows.bucket[order], sample[order], rows.vectors[order]
    ends = np.flatnonzero(np.r_[True, bucket[1:] != bucket[:-1], True][: len(bucket) + 1])
    found = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for start, end in pairwise(ends):
        there, once = np.unique(sample[start:end], return_index=True)  # two records of the same bytes are one sample
        found += [(there[a], there[b], w) for a, b, w in _linked(method, threshold, vectors[start:end][once])]
    a, b, w = (np.concatenate(column) for column in zip(*found, strict=True))
    _, once = np.unique(a * len(keys) + b, return_index=True)
    table = pa.table({"a": names_of(keys[a[once]]), "b": names_of(keys[b[once]]), "similarity": w[once]})
    write_table(build, name, table.cast(LINKS))


def _linked(
    method: Buckets, threshold: float, vectors: NDArray[np.float32]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Links a < b of the rows of one bucket, and how alike they are."""
    first = first_equal(vectors)
    copies = np.flatnonzero(first != np.arange(len(vectors)))
    yield first[copies], copies, np.ones(len(copies))
    rows = np.flatnonzero(first == np.arange(len(vectors)))
    found = []
    step = max(1, PAIRS // max(1, len(rows)))
    for start in range(0, len(rows), step):
        a, b = np.triu_indices(min(step, len(rows) - start), 1, len(rows) - start)
        a, b = rows[start + a], rows[start + b]
        found.append((a, b, np.asarray(method.similarity(vectors[a], vectors[b]), np.float64)))
    if not found:
        return
    a, b, w = (np.concatenate(column) for column in zip(*found, strict=True))
    near = w >= threshold
    linked = np.unique(np.concatenate([a[near], b[near]]))
    if len(linked) <= ALIKE:  # whichever is the keeper, how alike it is to the others is known
        near = np.isin(a, linked) & np.isin(b, linked)
        yield a[near], b[near], w[near]
    else:
        yield heaviest_forest(len(vectors), a[near], b[near], w[near])
