"""The final order: which sample goes to which split, shard and row. A function of ids and the seed alone (law 6)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from curate.schema.ids import order_key, unit_interval


@dataclass(frozen=True)
class ShardPlan:
    """One shard to write.

    Attributes:
        split: name of the split.
        path: relative to the build, `tokens/<split>/shard-00000.arrow`.
        sample_ids: its rows, in order.
    """

    split: str
    path: str
    sample_ids: tuple[str, ...]


def split_of(seed: int, content_id: str, splits: Mapping[str, float]) -> str:
    """The split of a record's content, and so of all samples cut from it.

    Shares are laid side by side in [0, 1) by name, so the order in which a recipe lists them does not matter.
    """
    drawn, edge = unit_interval(seed, content_id), 0.0
    names = sorted(splits)
    for name in names:
        edge += splits[name]
        if drawn < edge:
            return name
    return names[-1]  # shares add up to a hair below 1


def final_order(
    rows: Iterable[tuple[str, str]], *, seed: int, splits: Mapping[str, float], shard_samples: int
) -> list[ShardPlan]:
    """Plan the shards of all kept samples.

    Args:
        rows: (sample_id, content_id) of each kept sample, in any order.
        seed: the recipe's seed.
        splits: share of each split, above 0, adding up to 1.
        shard_samples: samples in one shard; the last one of a split may hold fewer.

    Returns:
        Plans by split name and shard number. A split that no sample fell into has none.

    Raises:
        ValueError: a sample that occurs twice.
    """
    members: dict[str, list[str]] = {name: [] for name in sorted(splits)}
    seen: set[str] = set()
    for sample, content in rows:
        if sample in seen:
            raise ValueError(f"sample {sample} occurs twice")
        seen.add(sample)
        members[split_of(seed, content, splits)].append(sample)
    plans = []
    for split, samples in members.items():
        samples.sort(key=lambda sample: order_key(seed, sample))
        for number, start in enumerate(range(0, len(samples), shard_samples)):
            path = f"tokens/{split}/shard-{number:05d}.arrow"
            plans.append(ShardPlan(split, path, tuple(samples[start : start + shard_samples])))
    return plans
