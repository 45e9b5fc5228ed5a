"""Methods of one's own by buckets: what they compare, and how alike the ledger says that duplicates are."""

from __future__ import annotations

import numpy as np
import pytest
from test_near import build_of, duplicates

from curate.decide.buckets import ALIKE, Buckets
from curate.schema.recipe import NearDuplicates

DIMENSIONS = 8


class Signs(Buckets):
    """Alike by the share of equal signs; samples that share the first two signs are compared."""

    def buckets(self, vectors):
        return ((vectors[:, :2] > 0) @ (1 << np.arange(2)))[:, None].astype(np.uint64)

    def similarity(self, a, b):
        return ((a > 0) == (b > 0)).mean(axis=1)


@pytest.mark.parametrize("rows", [6, 4 * ALIKE])
def test_duplicates_are_as_alike_as_the_method_says_linked_or_not(tables, rows):
    chance = np.random.default_rng(3)
    signs = np.ones((rows, DIMENSIONS))
    signs[np.arange(rows), 2 + np.arange(rows) % 6] = -1  # one of six signs differs: any two share six of eight
    vectors = (signs * chance.uniform(0.1, 1, signs.shape)).astype(np.float32)
    spec = NearDuplicates(method="test_dedup_buckets:Signs", embedding="look", threshold=0.7)
    found = duplicates(build_of(tables, vectors, 3).verdicts(near=[spec]))
    assert len(found) == rows - 1
    for name, (keeper, similarity) in found.items():
        assert similarity == ((vectors[int(name)] > 0) == (vectors[int(keeper)] > 0)).mean()
