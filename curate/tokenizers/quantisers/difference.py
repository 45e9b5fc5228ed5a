"""How often two ways of computing the same ids disagree: what a codec card says of batches and of bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def difference_rate(ids_a: NDArray[Any], ids_b: NDArray[Any]) -> float:
    """The share of ids, in [0, 1], that differ between two arrays of one shape and of any integer dtypes.

    Raises:
        ValueError: other shapes, no ids at all, or values that are no ids.
    """
    if ids_a.shape != ids_b.shape or not ids_a.size or ids_a.dtype.kind not in "ui" or ids_b.dtype.kind not in "ui":
        raise ValueError(f"not two arrays of ids: {ids_a.dtype} {ids_a.shape} and {ids_b.dtype} {ids_b.shape}")
    return float(np.mean(ids_a != ids_b))


def rounded_difference(ids_of: Callable[..., NDArray[Any]], items: Sequence[Any]) -> float:
    """The share of ids of all items, in [0, 1], five digits, that differ under `ids_of(item, bf16=True)`.

    Raises:
        ValueError: there are no ids.
    """
    pairs = [(ids_of(item), ids_of(item, bf16=True)) for item in items]
    return round(difference_rate(*(np.concatenate([ids.ravel() for ids in s]) for s in zip(*pairs, strict=True))), 5)


def bf16_difference(
    encode_latents: Callable[[Tensor], Tensor],
    quantise: Callable[[Tensor], tuple[Tensor, Tensor]],
    batches: Iterable[Tensor],
) -> float:
    """The share of ids, in [0, 1], that an encoder under bfloat16 autocast gives otherwise than in fp32.

    Args:
        encode_latents: what the encoder takes to its latents; a network in evaluation mode, with fp32 weights.
        quantise: latents, as fp32, to codes and ids, such as a layer of `layers`.
        batches: media that the card's figures may be measured on.

    Raises:
        ValueError: there are no batches, or no ids.
    """
    differing = total = 0
    with torch.inference_mode():
        for batch in batches:
            with torch.autocast(batch.device.type, enabled=False):
                ids = quantise(encode_latents(batch).float())[1]
            with torch.autocast(batch.device.type, dtype=torch.bfloat16):
                rounded = encode_latents(batch)
            again = quantise(rounded.float())[1]
            differing += int((ids != again).sum())
            total += ids.numel()
    if not total:
        raise ValueError("no ids to compare")
    return differing / total
