"""What is known of each record and sample before near duplicates are looked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from curate.decide.bounds import Threshold, first_broken
from curate.decide.duplicates import Contents, Copies, by_bucket
from curate.decide.keys import Keys, name_of, twice
from curate.decide.partitions import STALE, Loaded
from curate.decide.percentiles import Bin, Counts, counts
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS

NotNumbers = dict[str, tuple[int, bytes]]
"""Fields that hold NaN: in how many rows, and the smallest id."""


class State(NamedTuple):
    """Verdicts on the records of one task, and on its samples as far as one task can tell.

    Attributes:
        record_broke: int16 `(r,)`, number of the first bound that each record breaks, -1 for none.
        copies, keeper: rows of records that are duplicates, ascending, and the records that they are duplicates of.
        listed: bool `(s,)`, samples whose record is sampled: only those have verdicts.
        broke: int16 `(s,)`, number of the first bound that each sample breaks, -1 for none.
        copies_of: float64 `(s,)`, how many samples carry the text of one that breaks a bound on copies; else 0.
    """

    record_broke: NDArray[np.int16]
    copies: NDArray[np.int32]
    keeper: Keys
    listed: NDArray[np.bool_]
    broke: NDArray[np.int16]
    copies_of: NDArray[np.float64]

    def alive(self, loaded: Loaded) -> NDArray[np.bool_]:
        """Samples that are listed, did not fail in a signal and were not dropped, `(s,)`."""
        return self.listed & ~loaded.sample_failed & (self.broke < 0)


def kinds(loaded: Loaded) -> NDArray[np.int64]:
    """How many samples of each number of KINDS there are."""
    return np.bincount(loaded.sample_kind[loaded.sample_kind >= 0], minlength=len(KINDS))


def record_counts(bins: Mapping[Bin, bool], loaded: Loaded) -> dict[Bin, Counts]:
    """For percentiles of records: those that did not fail."""
    some = ~loaded.record_failed
    values = {one.column.field: loaded.record_values[one.column.field][some] for one in bins}
    return counts(bins, values, loaded.record_kind[some])


def sample_counts(bins: Mapping[Bin, bool], loaded: Loaded, listed: State) -> dict[Bin, Counts]:
    """For percentiles of samples: those that did not fail in a signal, of records that are sampled."""
    some = listed.listed & ~loaded.sample_failed
    values = {one.column.field: loaded.sample_values[one.column.field][some] for one in bins}
    return counts(bins, values, loaded.sample_kind[some])


def record_not_numbers(fields: Sequence[str], loaded: Loaded) -> NotNumbers:
    """Fields of records that did not fail."""
    return _not_numbers(fields, loaded.record_nan, ~loaded.record_failed, loaded.record)


def sample_not_numbers(fields: Sequence[str], loaded: Loaded, state: State) -> NotNumbers:
    """Fields of samples that did not fail, of records that are sampled."""
    return _not_numbers(fields, loaded.sample_nan, state.listed & ~loaded.sample_failed, loaded.sample)


def contents(rules: Sequence[Threshold], buckets: int, task: int, loaded: Loaded) -> list[Contents]:
    """A task's records that may keep or be exact duplicates, by bucket.

    Rules come before duplicates, so that a keeper is never dropped by a rule: duplicates have the same bytes, hence the
    same probed fields and the same fate.
    """
    broke = first_broken(rules, loaded.record_values, loaded.record_kind, loaded.record_words)
    rows = np.flatnonzero(loaded.has_content & ~loaded.record_failed & (broke < 0)).astype(np.int32)
    return by_bucket(
        Contents(task, rows, loaded.content[rows], loaded.record[rows], loaded.without_text[rows]), buckets
    )


def settle_records(rules: Sequence[Threshold], task: int, loaded: Loaded, *found: Copies) -> State:
    """Verdicts on records: failed, else dropped by the first rule that it breaks, else duplicate, else sampled.

    Raises:
        CurateError: a sampled record has no sample, or a sample is there twice.
    """
    mine = [copies.of(task) for copies in found]
    rows = np.concatenate([np.empty(0, np.int32), *(r for r, _ in mine)])
    order = np.argsort(rows)
    rows = rows[order]
    keeper = np.concatenate([np.empty(0, "S16"), *(k for _, k in mine)])[order]
    broke = first_broken(rules, loaded.record_values, loaded.record_kind, loaded.record_words)
    broke[loaded.record_failed] = -1
    sampled = ~loaded.record_failed & (broke < 0)
    sampled[rows] = False
    listed = sampled[loaded.sample_record]

    empty = sampled.copy()
    empty[loaded.sample_record] = False
    if empty.any():
        raise CurateError(
            f"{empty.sum()} records have neither samples nor a failure, "
            f"the first {name_of(np.sort(loaded.record[empty])[0])}",
            STALE,
        )
    again = twice(loaded.sample[listed])
    if len(again):
        raise CurateError(f"{len(again)} samples are listed more than once, the first {name_of(again[0])}", STALE)
    return State(broke, rows, keeper, listed, np.full(len(listed), -1, np.int16), np.zeros(len(listed)))


def settle_samples(rules: Sequence[Threshold], loaded: Loaded, state: State) -> State:
    """The state with the rules on numbers and words that samples break."""
    broke = first_broken(rules, loaded.sample_values, loaded.sample_kind, loaded.sample_words)
    return state._replace(broke=broke)


def refuse_not_numbers(found: Sequence[NotNumbers], fields: Sequence[str]) -> None:
    """Raise CurateError if some task found NaN in a field of `fields`."""
    for field in fields:
        said = [one[field] for one in found if field in one]
        if said:
            raise CurateError(
                f"{field} is NaN for {sum(n for n, _ in said)} samples, the first {name_of(min(k for _, k in said))}: "
                "no rule can be decided on that",
                "a signal gives a number, null where it does not apply, or a failure; mend it and annotate again",
            )


def _not_numbers(
    fields: Sequence[str], nan: Mapping[str, NDArray[np.int64]], counted: NDArray[np.bool_], keys: Keys
) -> NotNumbers:
    out = {}
    for field in fields:
        rows = nan[field][counted[nan[field]]]
        if len(rows):
            out[field] = len(rows), bytes(np.sort(keys[rows])[0])
    return out
