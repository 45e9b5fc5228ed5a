"""The final order is a function of ids and seed, on whole columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.schema.errors import CurateError
from curate.schema.ids import content_id
from curate.shards.order import id_words, order_keys, shard_of, splits_of_content

IDS = pa.array([content_id(f"sample {i}".encode()) for i in range(20_000)])
SHARES = {"train": 0.8, "held": 0.2}
MASK = (1 << 64) - 1


def splitmix(x: int) -> int:
    """The finaliser as its authors write it."""
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


@given(st.integers(0, MASK), st.lists(st.binary(min_size=16, max_size=16), max_size=8))
def test_keys_are_those_of_the_formula(seed: int, raw: list[bytes]) -> None:
    ids = [one.hex() for one in raw]
    first, second = id_words(pa.array(ids, pa.string()))
    assert [f"{a:016x}{b:016x}" for a, b in zip(first.tolist(), second.tolist(), strict=True)] == ids
    salt = splitmix(0x9E3779B97F4A7C15 ^ seed)
    want = [splitmix(int.from_bytes(one[:8]) ^ salt) for one in raw]
    assert order_keys(seed, pa.array(ids, pa.string())).tolist() == want


def test_any_column_of_ids_gives_the_same() -> None:
    want = order_keys(3, IDS)
    for column in (
        pa.chunked_array([IDS.slice(0, 7), IDS.slice(7)]),
        IDS.to_numpy(zero_copy_only=False),
        IDS.cast(pa.large_string()),
        pa.concat_arrays([IDS, IDS]).slice(len(IDS)),
    ):
        np.testing.assert_array_equal(order_keys(3, column), want)


@pytest.mark.parametrize("bad", ["", "0" * 31, "0" * 33, "g" * 32, "A" * 32, "é" * 16, None])
def test_what_is_no_id_is_refused(bad: str | None) -> None:
    with pytest.raises(CurateError, match="hex digits"):
        order_keys(0, pa.array([IDS[0].as_py(), bad], pa.string()))


@given(st.integers(1, (1 << 32) - 1), st.lists(st.integers(0, MASK), min_size=1))
def test_shards_are_equal_ranges_of_keys(n: int, keys: list[int]) -> None:
    assert shard_of(np.array(keys, np.uint64), n).tolist() == [key * n >> 64 for key in keys]


def test_shards_hold_about_equally_many() -> None:
    sizes = np.bincount(shard_of(order_keys(0, IDS), 20), minlength=20)
    assert abs(sizes - 1000).max() < 5 * 1000**0.5


def test_splits_hold_their_shares_and_lie_all_over_the_keys() -> None:
    place = splits_of_content(0, IDS, SHARES)
    held = place == sorted(SHARES).index("held")
    assert abs(held.mean() - 0.2) < 0.015  # five standard deviations
    sizes = np.bincount(shard_of(order_keys(0, IDS.filter(pa.array(held))), 10), minlength=10)
    assert abs(sizes - 400).max() < 5 * 400**0.5


def test_splits_do_not_depend_on_the_order_in_the_recipe() -> None:
    turned = splits_of_content(7, IDS, dict(reversed(SHARES.items())))
    np.testing.assert_array_equal(turned, splits_of_content(7, IDS, SHARES))


def test_shares_that_add_up_to_a_hair_below_one() -> None:
    shares = {"a": 0.1, "b": 0.2, "c": 0.7 - 1e-7}
    assert set(splits_of_content(1, IDS, shares).tolist()) == {0, 1, 2}
    assert splits_of_content(1, IDS, {"all": 1.0}).tolist() == [0] * len(IDS)


def test_another_seed_gives_another_order_and_other_splits() -> None:
    for draw in (order_keys, lambda seed, ids: splits_of_content(seed, ids, SHARES)):
        assert (draw(0, IDS) != draw(1, IDS)).any()
        assert (draw(1 << 70, IDS) != draw(0, IDS)).any()
