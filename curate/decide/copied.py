"""Copies of a text: how many samples carry it, for rules with `copies_of`.

Each task counts its own texts. They go to buckets by their hash, where the counts of all tasks are added up, and what
is there too often comes back to every task. What one process holds is its own samples, or a bucket of distinct texts.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.decide.bounds import Threshold
from curate.decide.keys import EMPTY, Keys, distinct, hashed, look_up
from curate.decide.partitions import Loaded
from curate.decide.survey import State
from curate.decide.texts import NO_TEXT


class Times(NamedTuple):
    """Texts, and how many samples carry each.

    Attributes:
        text: `(n,)`, distinct, sorted.
        times: int64 `(n,)`.
    """

    text: Keys
    times: NDArray[np.int64]


def times_by_bucket(bound: Threshold, number: int, buckets: int, loaded: Loaded, state: State) -> list[Times]:
    """Texts of a task's samples that count, by bucket.

    Args:
        bound: of the rules for samples, the one of that number.
    """
    keys = loaded.sample_texts[bound.copies_of][_counted(bound, number, loaded, state)]
    text, which = distinct(keys[keys != NO_TEXT])
    times = np.bincount(which, minlength=len(text))
    bucket = hashed(text, 0) % np.uint64(buckets)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(buckets + 1, dtype=np.uint64))
    return [Times(text[order[a:b]], times[order[a:b]]) for a, b in pairwise(ends)]


def too_often(bound: Threshold, *found: Times) -> Times:
    """Texts of one bucket that more samples carry than the bound allows."""
    text, which = distinct(np.concatenate([one.text for one in found]))
    times = np.zeros(len(text), np.int64)
    np.add.at(times, which, np.concatenate([one.times for one in found]))
    assert bound.value is not None, "a bound on copies is absolute"
    some = times > bound.value
    return Times(text[some], times[some])


def settle_copies(bound: Threshold, number: int, loaded: Loaded, state: State, *found: Times) -> State:
    """The state with the samples that break the bound.

    Args:
        found: of all buckets.
    """
    text = np.concatenate([EMPTY, *(one.text for one in found)])
    times = np.concatenate([np.empty(0, np.int64), *(one.times for one in found)])
    order = np.argsort(text)
    rows = np.flatnonzero(_counted(bound, number, loaded, state))
    at = look_up(text[order], loaded.sample_texts[bound.copies_of][rows])
    broke, copies = state.broke.copy(), state.copies_of.copy()
    broke[rows[at >= 0]] = number
    copies[rows[at >= 0]] = times[order[at[at >= 0]]]
    return state._replace(broke=broke, copies_of=copies)


def _counted(bound: Threshold, number: int, loaded: Loaded, state: State) -> NDArray[np.bool_]:
    """Samples that are listed, did not fail in a signal, and break no earlier rule, of the bound's kinds, `(s,)`."""
    earlier = (state.broke >= 0) & (state.broke < number)
    return state.listed & ~loaded.sample_failed & ~earlier & bound.looks_at(loaded.sample_kind)
