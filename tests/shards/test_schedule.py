"""After any n positions, each part has had its share of n, rounded down or up."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.shards.schedule import FINEST, Schedule, whole_weights

WEIGHTS = st.lists(st.integers(1, 300), min_size=1, max_size=12)


@given(weights=WEIGHTS, seed=st.integers(0, 1 << 70), start=st.integers(0, 1 << 40), n=st.integers(1, 3000))
@settings(max_examples=60, deadline=None)
def test_counts_are_exact_to_a_sample(weights: list[int], seed: int, start: int, n: int) -> None:
    schedule = Schedule(weights, seed)
    total = sum(weights)
    for end in (start, start + n):
        counts = schedule.counts(end)
        assert sum(counts) == end
        for count, weight in zip(counts, weights, strict=True):
            assert end * weight // total <= count <= -(-end * weight // total)
    parts, before = schedule(np.arange(start, start + n))
    for part in range(len(weights)):
        numbers = before[parts == part]
        first, last = schedule.counts(start)[part], schedule.counts(start + n)[part]
        assert numbers.tolist() == list(range(first, last))  # each number once, in order
        if len(numbers):
            assert schedule.position(part, first) == start + int(np.argmax(parts == part))


def test_chance_decides_between_equals() -> None:
    """Else a rank of two would see one of two equal parts only."""
    parts, _ = Schedule([1, 1], seed=5)(np.arange(1000))
    assert 150 < parts[::2].sum() < 350
    assert not np.array_equal(parts, Schedule([1, 1], seed=6)(np.arange(1000))[0])


@pytest.mark.parametrize(
    ("weights", "whole"), [([0.7, 0.2, 0.1], [7, 2, 1]), ([3, 1], [3, 1]), ([0.5], [1]), ([1, 1e-9], [FINEST - 1, 1])]
)
def test_weights_become_whole_numbers(weights: list[float], whole: list[int]) -> None:
    assert whole_weights(weights) == whole


@given(st.lists(st.floats(1e-3, 1e3), min_size=2, max_size=20))
def test_weights_of_many_digits_are_near(weights: list[float]) -> None:
    whole = whole_weights(weights)
    assert min(whole) >= 1
    for w, n in zip(weights, whole, strict=True):
        assert abs(Fraction(n, sum(whole)) - Fraction(w) / sum(map(Fraction, weights))) <= Fraction(
            len(weights) + 1, FINEST
        )
