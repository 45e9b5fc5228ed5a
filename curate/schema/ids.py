"""Names that come from content: records, samples, partitions.

All digests are BLAKE3. Ids are 128 bits as 32 hex digits: with a billion samples the chance of any collision is
about 1.5e-21 (birthday bound n^2 / 2^129).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from blake3 import blake3

ID_HEX = 32


def digest(data: bytes) -> str:
    """The whole BLAKE3 digest of `data`, 64 hex digits; what the manifest writes for a file."""
    return str(blake3(data).hexdigest())


def content_id(data: bytes) -> str:
    """The id of media: BLAKE3 of its bytes, 32 hex digits."""
    return digest(data)[:ID_HEX]


def key_of(value: Any) -> str:
    """A 32-hex-digit id of any JSON value; equal values give equal ids whatever the order of their keys."""
    return content_id(_ENCODER.encode(value).encode())


_ENCODER = json.JSONEncoder(sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def record_id(source: str, uri: str, ordinal: int = 0, unit: str = "") -> str:
    """The id of a record: where it was listed, and nothing that another unit of its source says.

    Args:
        ordinal: how often the uri came before in its unit.
        unit: name of the unit, where the same uri may stand in another one; empty where uris of the source are unique.
    """
    return key_of(["record", source, unit, uri, ordinal] if unit else ["record", source, uri, ordinal])


def sample_id(content: str, start_us: int = 0, end_us: int = 0) -> str:
    """The id of a sample: the content, and for a clip or audio segment its span in microseconds.

    Args:
        content: `content_id` of the media.
        start_us, end_us: the span; both 0 for the whole of an image.
    """
    return content if not (start_us or end_us) else key_of(["sample", content, start_us, end_us])


def unit_interval(seed: int, key: str) -> float:
    """A number in [0, 1) drawn from the seed and a key."""
    return int(content_id(f"{seed}/{key}".encode())[:13], 16) / float(1 << 52)


def digest_of_rows(rows: Iterable[str]) -> str:
    """A 32-hex-digit id of an ordered list of strings."""
    h = blake3()
    for row in rows:
        raw = row.encode()
        h.update(len(raw).to_bytes(8, "little"))
        h.update(raw)
    return str(h.hexdigest())[:ID_HEX]
