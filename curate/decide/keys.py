"""Ids as 16 bytes each in numpy, as against 32 hex digits in files: to be sorted, compared, hashed and looked up."""

from __future__ import annotations

import re
from binascii import hexlify, unhexlify
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.ids import ID_HEX

Keys = NDArray[np.bytes_]
"""`S16` `(n,)`; sorts as the ids do."""

_LOWER = np.uint64(0x2020202020202020)
"""The bit that each of `0-9a-f` has, eight times; of all hex digits only `A-F` lack it."""

_ID = re.compile(f"[0-9a-f]{{{ID_HEX}}}")

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

EMPTY: Keys = np.empty(0, "S16")


def keys_of(ids: pa.Array | pa.ChunkedArray) -> Keys:
    """Ids as keys.

    Raises:
        CurateError: one is null, or not 32 lower-case hex digits.
    """
    whole = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    if not len(whole):
        return EMPTY
    raw = None if whole.null_count else _bytes(whole.cast(pa.string()))
    if raw is None:
        bad = next(i for i in whole.to_pylist() if i is None or not _ID.fullmatch(i))
        raise CurateError(f"the id {bad!r} is not {ID_HEX} hex digits", "its files are damaged or of another program")
    return np.frombuffer(raw, "S16")


def _bytes(ids: pa.StringArray) -> bytes | None:
    """What the digits of ids stand for, one after the other; None if one is no id."""
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset : ids.offset + len(ids) + 1]
    first, last = int(offsets[0]), int(offsets[-1])
    if last - first != ID_HEX * len(ids) or (np.diff(offsets) != ID_HEX).any():
        return None
    digits = ids.buffers()[2].slice(first, last - first)
    if np.bitwise_and.reduce(np.frombuffer(digits, np.uint64)) & _LOWER != _LOWER:
        return None
    try:
        return unhexlify(digits)
    except ValueError:
        return None


def names_of(keys: Keys) -> pa.StringArray:
    """Keys as ids."""
    offsets = np.arange(0, (len(keys) + 1) * ID_HEX, ID_HEX, dtype=np.int32)
    digits = hexlify(np.ascontiguousarray(keys).view(np.uint8).data)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(digits))


def name_of(key: bytes) -> str:
    """One key as an id; numpy drops zeros at the end of a single key."""
    return bytes(key).ljust(16, b"\0").hex()


def words(keys: Keys) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first and the last eight bytes of each key as numbers that sort as the bytes do."""
    both = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2).astype(np.uint64)
    return both[:, 0], both[:, 1]


def twice(keys: Keys) -> Keys:
    """The keys that are there more than once, sorted, each once."""
    both = np.ascontiguousarray(keys).view(np.uint64).reshape(-1, 2)
    mixed = both[:, 0] ^ both[:, 1]
    order = np.sort(mixed)  # sorting numbers is far quicker than sorting keys, and mostly all there is to do
    again = np.unique(order[1:][order[1:] == order[:-1]])
    if not len(again):
        return EMPTY
    found = np.sort(keys[np.isin(mixed, again)])
    return np.unique(found[1:][found[1:] == found[:-1]])


def hashed(keys: Keys, seed: int) -> NDArray[np.uint64]:
    """64 pseudo-random bits of each key and the seed (two rounds of SplitMix64's finalizer)."""
    first, last = words(keys)
    return mix(_GOLDEN + (first ^ mix(_GOLDEN + last + np.uint64(seed % (1 << 64)))))


def mix(x: NDArray[Any]) -> NDArray[Any]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood 2014): uint64 to uint64, wrapping around."""
    mixed = np.array(x, np.uint64)
    mix_in_place(mixed, np.empty_like(mixed))
    return mixed


def mix_in_place(x: NDArray[Any], room: NDArray[Any]) -> None:
    """`mix` of an array in its place; `room` is as large, to work in."""
    for shift, factor in _FINALISER:
        np.right_shift(x, shift, out=room)
        x ^= room
        if factor is not None:
            x *= factor


_FINALISER = (
    (np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)),
    (np.uint64(27), np.uint64(0x94D049BB133111EB)),
    (np.uint64(31), None),
)


def distinct(keys: Keys) -> tuple[Keys, NDArray[np.int64]]:
    """The distinct keys, sorted, and where among them each of `keys` is."""
    first, last = words(keys)
    order = np.lexsort((last, first))
    found = keys[order]
    new = np.ones(len(keys), bool)
    new[1:] = found[1:] != found[:-1]
    inverse = np.empty(len(keys), np.int64)
    inverse[order] = np.cumsum(new) - 1
    return found[new], inverse


def look_up(known: Keys, wanted: Keys) -> NDArray[np.int64]:
    """Where each wanted key is among sorted ones; -1 where it is not."""
    if not len(known) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(words(wanted)[0])  # neighbours are looked up one after the other: pages are touched once
    at = np.empty(len(wanted), np.int64)
    at[order] = np.searchsorted(known, wanted[order])
    np.minimum(at, len(known) - 1, out=at)
    return np.where(known[at] == wanted, at, -1)
