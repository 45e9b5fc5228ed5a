"""Exact duplicates: records whose media are the same bytes, found one hash bucket at a time."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.decide.keys import Keys, hashed, name_of, words
from curate.schema.errors import CurateError


class Contents(NamedTuple):
    """Records of one group in one bucket.

    Attributes:
        group: number of the group.
        row: int32 `(n,)`, rows of the group.
        content, record: `(n,)`.
        without_text: bool `(n,)`.
    """

    group: int
    row: NDArray[np.int32]
    content: Keys
    record: Keys
    without_text: NDArray[np.bool_]


class Copies(NamedTuple):
    """Records of one bucket that are duplicates, sorted by group and row.

    Attributes:
        group, row: int32 `(n,)`, which they are.
        keeper: `(n,)`, the record that each is a duplicate of.
    """

    group: NDArray[np.int32]
    row: NDArray[np.int32]
    keeper: Keys

    def of(self, group: int) -> tuple[NDArray[np.int32], Keys]:
        """Rows and keepers of one group."""
        here = slice(*np.searchsorted(self.group, [group, group + 1]))
        return self.row[here], self.keeper[here]


def by_bucket(contents: Contents, buckets: int) -> list[Contents]:
    """The records of each bucket, by a hash of their content."""
    bucket = hashed(contents.content, 0) % np.uint64(buckets)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1, dtype=np.uint64))
    group, *columns = contents
    return [Contents._make([group, *(column[order[a:b]] for column in columns)]) for a, b in pairwise(ends)]


def copies(*contents: Contents) -> Copies:
    """Records of the same content as another, and that other, the keeper: with text before those without, then the one
    of the smallest id. The keeper itself has no row.

    Raises:
        CurateError: a record is listed twice.
    """
    content = np.concatenate([c.content for c in contents])
    # Most contents occur once: sorting one word of them finds those that may not.
    word = words(content)[1]
    order = np.argsort(word, kind="stable")
    same = word[order][1:] == word[order][:-1]
    some = order[np.r_[False, same] | np.r_[same, False]] if len(order) else order
    group = np.repeat([c.group for c in contents], [len(c.row) for c in contents]).astype(np.int32)[some]
    content = content[some]
    row = np.concatenate([c.row for c in contents])[some]
    record = np.concatenate([c.record for c in contents])[some]
    without = np.concatenate([c.without_text for c in contents])[some]

    order = np.lexsort((*words(record)[::-1], without, *words(content)[::-1]))
    group, row, content, record = group[order], row[order], content[order], record[order]
    again = (content[1:] == content[:-1]) & (record[1:] == record[:-1])
    if again.any():
        raise CurateError(
            f"{again.sum()} records are listed more than once, the first {name_of(np.sort(record[1:][again])[0])}",
            "remove the build's records and run again",
        )
    first = np.ones(len(order), bool)
    first[1:] = content[1:] != content[:-1]
    keeper = record[np.flatnonzero(first)][np.cumsum(first) - 1] if len(order) else record
    group, row, keeper = group[~first], row[~first], keeper[~first]
    order = np.lexsort((row, group))
    return Copies(group[order], row[order], keeper[order])
