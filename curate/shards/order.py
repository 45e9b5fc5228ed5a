"""The final order: which sample goes to which split, shard and row. A function of ids and the seed alone (law 6).

All of it works on whole columns. A sample's key is H(seed, sample_id), 64 bits; shard i of n holds the keys of the i-th
of n equal ranges, and its rows are sorted by (key, sample_id). So no table of samples is needed: each task takes the
rows of its own range out of each partition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.decide.keys import keys_of, mix, words

U64 = NDArray[np.uint64]
Ids: TypeAlias = "pa.Array | pa.ChunkedArray | NDArray[Any]"
"""A column of ids of 32 hex digits."""

_ORDER, _SPLIT = 0x9E3779B97F4A7C15, 0xD1B54A32D192ED03
"""Odd constants that keep the two draws apart: the golden ratio of SplitMix64, and that of R2 (Roberts 2018)."""


def id_words(ids: Ids) -> tuple[U64, U64]:
    """The two halves of each id as big-endian numbers: uint64 `(n,)` twice; ids sort as (first, second) does.

    Raises:
        CurateError: an id that is null, or not 32 small hex digits.
    """
    return words(keys_of(ids if isinstance(ids, pa.Array | pa.ChunkedArray) else pa.array(ids, pa.string())))


def order_keys(seed: int, ids: Ids) -> U64:
    """H(seed, sample_id) of each id: uint64 `(n,)`, pseudo-random in the seed.

    The first 8 bytes of the id, which are those of a BLAKE3 digest, are mixed with the seed by the finaliser of
    SplitMix64 (Steele, Lea and Flood 2014). It is a bijection, so two keys are equal only where those 8 bytes are.

    Raises:
        CurateError: as `id_words`.
    """
    return keys_of_words(seed, id_words(ids)[0])


def keys_of_words(seed: int, first: U64) -> U64:
    """`order_keys` of ids whose first halves are known."""
    return mix(first ^ _salt(seed, _ORDER))


def splits_of_content(seed: int, content_ids: Ids, splits: Mapping[str, float]) -> NDArray[np.int64]:
    """The split of each record's content, and so of all samples cut from it: its place among the sorted names.

    Shares are laid side by side in [0, 1) by name, so the order in which a recipe lists them does not matter. The
    number is drawn from the other half of the id than `order_keys` reads, so a split's samples lie all over the keys.

    Raises:
        CurateError: as `id_words`.
    """
    drawn = (mix(id_words(content_ids)[1] ^ _salt(seed, _SPLIT)) >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    edges = np.cumsum([splits[name] for name in sorted(splits)])[:-1]  # what is left is the last one's
    return np.searchsorted(edges, drawn, side="right").astype(np.int64)


def shard_of(keys: U64, n: int) -> NDArray[np.int64]:
    """The shard of each key: shard i of n holds keys in [i * 2^64 / n, (i + 1) * 2^64 / n).

    Args:
        n: shards, 1 <= n < 2^32.
    """
    if not 1 <= n < 1 << 32:
        raise ValueError(f"{n} shards")
    half, count = np.uint64(32), np.uint64(n)
    low = ((keys & np.uint64(0xFFFFFFFF)) * count) >> half
    return (((keys >> half) * count + low) >> half).astype(np.int64)  # floor(key * n / 2^64)


def _salt(seed: int, domain: int) -> np.uint64:
    """A seed of any size, and what is drawn with it, as one number."""
    salt = np.array([domain], np.uint64)
    while True:
        salt = mix(salt ^ np.uint64(seed & 0xFFFFFFFFFFFFFFFF))
        seed >>= 64
        if not seed:
            return np.uint64(salt[0])
