"""How often two ways of computing the same ids disagree: what a codec card says of batches and of bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.tokenizers.base import Tokenizer


def difference_rate(ids_a: NDArray[Any], ids_b: NDArray[Any]) -> float:
    """The share of ids, in [0, 1], that differ between two arrays of one shape and of any integer dtypes.

    Raises:
        ValueError: other shapes, no ids at all, or values that are no ids.
    """
    if ids_a.shape != ids_b.shape or not ids_a.size or ids_a.dtype.kind not in "ui" or ids_b.dtype.kind not in "ui":
        raise ValueError(f"not two arrays of ids: {ids_a.dtype} {ids_a.shape} and {ids_b.dtype} {ids_b.shape}")
    return float(np.mean(ids_a != ids_b))


def share_of_all(pairs: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> float:
    """`difference_rate` over pairs of arrays of any shapes, each id counted once."""
    first, second = zip(*pairs, strict=True) if pairs else ([np.empty(0, int)],) * 2
    return difference_rate(*(np.concatenate([ids.ravel() for ids in one]) for one in (first, second)))


def batch_difference(tokenizer: Tokenizer, items: Sequence[Any], size: int = 16) -> float:
    """The share of ids, in [0, 1], that differ when items are encoded one by one and `size` at once.

    Raises:
        ValueError: there are no ids.
    """
    pairs: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for start in range(0, len(items), size):
        batch = items[start : start + size]
        pairs += zip(tokenizer.encode(batch), [tokenizer.encode([item])[0] for item in batch], strict=True)
    return share_of_all(pairs)


def stack_difference(tokenizer: Tokenizer, stack: NDArray[Any]) -> float:
    """The share of values, in [0, 1], by their bits, that differ when items are encoded alone and as a stack."""
    alone, [together] = np.stack([tokenizer.encode([item])[0] for item in stack]), tokenizer.encode([stack])
    bits = f"u{alone.itemsize}"  # two NaN are no difference
    return difference_rate(alone.view(bits), together.view(bits))


def rounded_difference(ids_of: Callable[..., NDArray[Any]], items: Sequence[Any]) -> float:
    """The share of ids of all items, in [0, 1], five digits, that differ under `ids_of(item, bf16=True)`.

    Raises:
        ValueError: there are no ids.
    """
    return round(share_of_all([(ids_of(item), ids_of(item, bf16=True)) for item in items]), 5)
