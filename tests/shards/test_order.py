"""The final order is a function of ids and seed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.schema.ids import content_id
from curate.shards.order import ShardPlan, final_order

ROWS = [(content_id(f"sample {i}".encode()), content_id(f"media {i // 3}".encode())) for i in range(1000)]
SHARES = {"train": 0.8, "held": 0.2}


def plan(rows: list[tuple[str, str]], shard_samples: int = 64, seed: int = 0) -> list[ShardPlan]:
    return final_order(rows, seed=seed, splits=SHARES, shard_samples=shard_samples)


@given(st.randoms(use_true_random=False))
def test_it_does_not_depend_on_the_order_of_arrival(chance: random.Random) -> None:
    rows = ROWS[:100]
    chance.shuffle(rows := list(rows))
    assert plan(rows) == plan(ROWS[:100])


def test_it_does_not_depend_on_the_order_of_splits_in_the_recipe() -> None:
    turned = final_order(ROWS, seed=0, splits=dict(reversed(SHARES.items())), shard_samples=64)
    assert turned == plan(ROWS)


def test_each_sample_comes_once_in_shards_of_exact_size() -> None:
    plans = plan(ROWS)
    assert sorted(s for p in plans for s in p.sample_ids) == sorted(s for s, _ in ROWS)
    for split in SHARES:
        sizes = [len(p.sample_ids) for p in plans if p.split == split]
        assert set(sizes[:-1]) == {64}
        assert 1 <= sizes[-1] <= 64
    assert plans[0].path == "tokens/held/shard-00000.arrow"


def test_samples_of_one_record_share_a_split_and_shares_hold() -> None:
    splits: dict[str, set[str]] = {}
    content = dict(ROWS)
    for p in plan(ROWS):
        for s in p.sample_ids:
            splits.setdefault(content[s], set()).add(p.split)
    assert all(len(found) == 1 for found in splits.values())
    held = sum(len(p.sample_ids) for p in plan(ROWS) if p.split == "held")
    assert abs(held / len(ROWS) - 0.2) < 0.07  # 334 records: four standard deviations are 0.09


def test_more_samples_leave_the_old_ones_in_their_relative_order() -> None:
    few, many = ([s for p in plan(rows) if p.split == "train" for s in p.sample_ids] for rows in (ROWS[:500], ROWS))
    kept = set(few)
    assert [s for s in many if s in kept] == few


def test_another_seed_gives_another_order() -> None:
    assert plan(ROWS)[0].sample_ids != plan(ROWS, seed=1)[0].sample_ids


def test_a_sample_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        plan([ROWS[0], ROWS[0]])
