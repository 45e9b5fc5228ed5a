"""A split by its records: the samples of each lie in the order of time, so that they can be told as one document."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from curate.decide.keys import EMPTY, keys_of, words
from curate.schema.ids import digest_of_rows
from curate.shards.memory import Ints
from curate.shards.parts import BuildPart
from curate.shards.reader import Reader
from curate.shards.selected import Selected, SelectedRows


class Records:
    """The records of a split, as a `Part` whose rows are those of their samples.

    While it is made 40 bytes are held for each sample, and 16 afterwards.

    Attributes:
        samples: how many records there are.
        number: int64 `(samples,)`, the record of each stored sample.
    """

    def __init__(self, part: BuildPart | Selected) -> None:
        self._part = part
        self.name, self.split, self.manifest = f"records of {part.name}", part.split, part.manifest
        self.digest = digest_of_rows([part.digest, "records"])
        keys = np.concatenate([EMPTY, *(keys_of(column) for column in part.column("content_id"))])
        starts = [np.empty(0, np.int64), *(column.to_numpy() for column in part.column("start_us"))]
        first, last = words(keys)
        self._rows: Ints = np.lexsort((np.concatenate(starts), last, first))
        begins = np.ones(len(keys), np.bool_)
        begins[1:] = keys[self._rows[1:]] != keys[self._rows[:-1]]
        self._bounds = np.append(np.flatnonzero(begins), len(keys))
        self.number = np.empty(len(keys), np.int64)
        self.number[self._rows] = np.cumsum(begins) - 1
        self.samples = len(self._bounds) - 1
        self.shard_rows = [self.samples]
        self.row_bytes = part.row_bytes * len(keys) // max(1, self.samples)

    def open(self, streams: Sequence[str]) -> Reader | SelectedRows:
        return self._part.open(streams)

    def rows(self, records: Ints) -> Ints:
        """The stored samples of some records, record by record, in the order of time."""
        first, count = self._bounds[records], np.diff(self._bounds)[records]
        at = np.arange(int(count.sum())) - np.repeat(np.cumsum(count) - count, count)
        rows: Ints = self._rows[np.repeat(first, count) + at]
        return rows
