"""Ids of several streams laid out for compiled loops."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.shards.memory import Ints
from curate.shards.rows import Rows


def flat_ids(rows: Rows, streams: Sequence[str]) -> tuple[NDArray[Any], Ints, Ints]:
    """All ids of some streams one after the other, and where each row's are.

    Returns:
        ids: `(n,)`, of the smallest type that holds all.
        first: int64 `(streams, rows)`: where a row's ids begin.
        steps: int64 `(streams, rows)`: its steps, -1 where it is missing.
    """
    first, steps = (np.empty((len(streams), len(rows)), np.int64) for _ in range(2))
    parts: list[NDArray[Any]] = [np.empty(0, np.uint8)]
    at = 0
    for place, name in enumerate(streams):
        ragged = rows.streams[name]
        np.multiply(ragged.offsets[:-1], prod(ragged.values.shape[1:]), out=first[place])
        first[place] += at
        np.subtract(ragged.offsets[1:], ragged.offsets[:-1], out=steps[place])
        steps[place][~ragged.present] = -1
        parts.append(ragged.values.reshape(-1))
        at += parts[-1].size
    return np.concatenate(parts), first, steps


def first_row(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch of one sample as that sample."""
    return {key: value[0] for key, value in batch.items()}
