"""The order of an epoch is a bijection that needs no table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.shards.shuffle import Permutation


@given(n=st.integers(0, 5000), key=st.text(max_size=8))
def test_every_number_comes_once(n: int, key: str) -> None:
    assert sorted(Permutation(n, key)(np.arange(n)).tolist()) == list(range(n))


@given(n=st.integers(1, 1 << 60), key=st.text(max_size=8), data=st.data())
def test_a_position_does_not_depend_on_what_is_asked_beside_it(n: int, key: str, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20, unique=True)))
    order = Permutation(n, key)
    together = order(index)
    assert [int(order(np.array([i]))[0]) for i in index] == together.tolist()
    assert len(set(together.tolist())) == len(index)
    assert int(together.min()) >= 0
    assert int(together.max()) < n


def test_keys_give_unrelated_orders() -> None:
    n = 10_000
    one, other = (Permutation(n, key)(np.arange(n)) for key in ("0/0/train", "0/1/train"))
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.05
    assert abs(np.corrcoef(one, np.arange(n))[0, 1]) < 0.05
    assert (one == other).mean() < 0.002


def test_each_place_is_equally_likely() -> None:
    """Chi-square of where index 3 of 17 goes over 3,400 keys: 16 degrees of freedom, 39.3 is the 0.1 % point."""
    places = [int(Permutation(17, str(key))(np.array([3]))[0]) for key in range(3400)]
    counts = np.bincount(places, minlength=17)
    assert ((counts - 200.0) ** 2 / 200).sum() < 39.3


def test_neighbours_part() -> None:
    n = 100_000
    steps = np.abs(np.diff(Permutation(n, "k")(np.arange(n))))
    assert abs(steps.mean() / n - 1 / 3) < 0.01  # as of two even draws


@pytest.mark.parametrize("index", [-1, 10])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        Permutation(10, "k")(np.array([index]))
