"""Ids as 16 bytes each in numpy, as against 32 hex digits in files: to be sorted, compared, hashed and looked up."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.ids import ID_HEX

Keys = NDArray[np.bytes_]
"""`S16` `(n,)`; sorts as the ids do."""

_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_VALUE = np.full(256, 255, np.uint8)
_VALUE[_DIGITS] = np.arange(16)
_PAIRS = np.stack([np.repeat(_DIGITS, 16), np.tile(_DIGITS, 16)], axis=1)  # (256, 2): the two digits of a byte

EMPTY: Keys = np.empty(0, "S16")


def keys_of(ids: pa.Array | pa.ChunkedArray) -> Keys:
    """Ids as keys.

    Raises:
        CurateError: one is null, or not 32 lower-case hex digits.
    """
    whole = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    whole = whole.cast(pa.string())
    if not len(whole):
        return EMPTY
    digits = None
    if not whole.null_count and pc.all(pc.equal(pc.binary_length(whole), ID_HEX)).as_py():
        offsets = np.frombuffer(whole.buffers()[1], np.int32)[whole.offset : whole.offset + len(whole) + 1]
        raw = np.frombuffer(whole.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
        digits = _VALUE[raw].reshape(-1, ID_HEX)
    if digits is None or digits.max() > 15:
        raise CurateError(
            f"an id of this build is not {ID_HEX} hex digits", "its files are damaged or of another program"
        )
    return np.ascontiguousarray(digits[:, ::2] << 4 | digits[:, 1::2]).view("S16").ravel()


def names_of(keys: Keys) -> pa.StringArray:
    """Keys as ids."""
    raw = np.ascontiguousarray(keys).view(np.uint8)
    offsets = np.arange(0, (len(keys) + 1) * ID_HEX, ID_HEX, dtype=np.int32)
    return pa.StringArray.from_buffers(len(keys), pa.py_buffer(offsets), pa.py_buffer(_PAIRS[raw].tobytes()))


def name_of(key: bytes) -> str:
    """One key as an id; numpy drops zeros at the end of a single key."""
    return bytes(key).ljust(16, b"\0").hex()


def words(keys: Keys) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The first and the last eight bytes of each key as numbers that sort as the bytes do."""
    both = np.ascontiguousarray(keys).view(">u8").reshape(-1, 2).astype(np.uint64)
    return both[:, 0], both[:, 1]


def hashed(keys: Keys, seed: int) -> NDArray[np.uint64]:
    """64 pseudo-random bits of each key and the seed (two rounds of SplitMix64's finalizer)."""
    first, last = words(keys)
    return _mixed(first ^ _mixed(last + np.uint64(seed % (1 << 64))))


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


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
