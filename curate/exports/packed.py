"""What MosaicML's shards and LitData's chunks have in common: a count, where each sample begins, and the samples."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError


def write_packed(file: Path, samples: Sequence[bytes], head: bytes = b"") -> None:
    """Write uint32 n, uint32 `(n + 1,)` of places from the start of the file, `head`, and the samples.

    Raises:
        CurateError: places that 32 bits cannot hold.
    """
    places = np.cumsum([4 * (len(samples) + 2) + len(head), *map(len, samples)], dtype=np.int64)
    if places[-1] >= 1 << 32:
        raise CurateError(
            f"a shard of {places[-1]} bytes: this format holds less than 4 GiB in one",
            "make the build with fewer samples a shard (pack: {shard_samples: ...})",
        )
    with file.open("wb") as out:
        out.write(np.uint32(len(samples)).tobytes() + places.astype("<u4").tobytes() + head)
        out.writelines(samples)


def encoded(value: Any, array: Callable[[NDArray[Any]], bytes]) -> bytes:
    """A column of a record: text in UTF-8, integers in 8 bytes, lists as JSON, arrays as `array` has them."""
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int):
        return np.int64(value).tobytes()
    return array(value) if isinstance(value, np.ndarray) else json.dumps(value).encode()
