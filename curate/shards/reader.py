"""Random access to the rows of a split."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest, Split
from curate.shards.commit import file_digest
from curate.shards.ipc import BATCH_ROWS, open_ipc
from curate.shards.memory import Ints
from curate.shards.rows import Batches, Rows
from curate.shards.schema import KEY_NAMES, shard_schema, streams_of
from curate.storage import Store, open_store

VIEW_KEYS = ("sample_id", "kind", "start_us", "end_us")
"""Key columns that a view sees."""

_OPEN_SHARDS = 1024
_AT_ONCE = 4
"""Shards of a bucket that are copied at a time."""


def find_split(manifest: Manifest, name: str) -> Split:
    """The split of that name.

    Raises:
        CurateError: there is none; the message lists those that there are.
    """
    for split in manifest.splits:
        if split.name == name:
            return split
    have = ", ".join(s.name for s in manifest.splits) or "none"
    raise CurateError(f"build {manifest.name!r} has no split {name!r}", f"it has: {have}")


class Reader:
    """Rows of one split by number, from memory-mapped shards. Shards are opened when first touched.

    Args:
        build: a build's folder, or its `s3://` uri.
        manifest: its manifest.
        split: name of the split.
        streams: names of the streams to read; all where None.
        digests: of shards, by path; those that are there are compared when a shard is opened.

    Attributes:
        damaged: what is wrong with shards that `readable` could not open, by path or uri.
    """

    def __init__(
        self,
        build: Store | Path | str,
        manifest: Manifest,
        split: str,
        streams: Sequence[str] | None = None,
        digests: Mapping[str, str] | None = None,
    ) -> None:
        self._build = open_store(build)
        self._shards = find_split(manifest, split)
        every = streams_of(manifest)
        self._schema = shard_schema(every)
        self.streams = [s for s in every if streams is None or s.name in streams]
        self._firsts = np.cumsum([0, *self._shards.shard_rows])
        counts = [-(-rows // BATCH_ROWS) for rows in self._shards.shard_rows]
        self._first_batch = np.cumsum([0, *counts])
        self._batches = Batches(self.streams, KEY_NAMES, int(self._first_batch[-1]))
        self._digests = digests or {}
        self.damaged: dict[str, str] = {}
        self._coming: dict[int, Future[Path]] = {}
        self._opened: OrderedDict[int, list[pa.RecordBatch]] = OrderedDict()

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def take(self, index: Ints, keys: Sequence[str] = VIEW_KEYS, streams: Sequence[str] | None = None) -> Rows:
        """Rows of these numbers, in this order.

        Args:
            keys: the key columns wanted.
            streams: names of the streams wanted; all that are read where None.

        Raises:
            CurateError: a shard that is missing, cut short, or not the one that the manifest names.
        """
        which, row = self._located(index)
        rows = self._batches.take(which, row, keys, streams)
        self._close_some()
        return rows

    def steps(self, index: Ints) -> Ints:
        """Steps of each stream in these rows, int64 `(streams, n)`, -1 where it is missing; no ids are read."""
        which, row = self._located(index)
        steps = [self._batches.steps(s.name, which, row) for s in self.streams]
        self._close_some()
        return np.array(steps, np.int64).reshape(len(self.streams), len(index))

    def names(self, index: Ints) -> NDArray[np.str_]:
        """The ids of the samples in these rows, `U32` `(n,)`."""
        return self.take(index, ("sample_id",), ()).keys["sample_id"]

    def readable(self, index: Ints) -> NDArray[np.bool_]:
        """Which of these rows lie in shards that can be opened, bool `(n,)`; of others `damaged` says why not."""
        shard = np.searchsorted(self._firsts, index, side="right") - 1
        touched = np.unique(shard).tolist()
        self.fetch(touched)
        bad = []
        for number in touched:
            path = self._build.name(self._shards.shards[number])
            if path not in self.damaged:
                try:
                    self._open(number)
                except CurateError as exc:
                    self.damaged[path] = str(exc)
                    logging.getLogger(__name__).warning("left out: %s", exc)
            if path in self.damaged:
                bad.append(number)
        fits: NDArray[np.bool_] = ~np.isin(shard, bad)
        return fits

    def _located(self, index: Ints) -> tuple[Ints, Ints]:
        """The record batches of rows, and the rows in them; their shards are opened."""
        shard = np.searchsorted(self._firsts, index, side="right") - 1
        row = index - self._firsts[shard]
        touched = np.unique(shard).tolist()
        self.fetch(touched)
        for number in touched:
            self._open(number)
        return self._first_batch[shard] + row // BATCH_ROWS, row % BATCH_ROWS

    def _close_some(self) -> None:
        while len(self._opened) > _OPEN_SHARDS:
            self._close(next(iter(self._opened)))

    def fetch(self, shards: Iterable[int]) -> None:
        """Begin to copy shards of a bucket that are not here yet, a few at a time; `take` waits for those it needs."""
        for number in shards if self._build.remote else ():
            if number not in self._opened and number not in self._coming:
                path = self._shards.shards[number]
                self._coming[number] = self._pool.submit(self._build.local, path)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_AT_ONCE, "curate-shards")

    def _open(self, number: int) -> list[pa.RecordBatch]:
        if number in self._opened:
            self._opened.move_to_end(number)
            return self._opened[number]
        shard, rows = self._shards.shards[number], self._shards.shard_rows[number]
        path = self._build.name(shard)
        try:
            coming = self._coming.pop(number, None)
            schema, batches = open_ipc(self._build.local(shard) if coming is None else coming.result())
        except FileNotFoundError as exc:
            raise CurateError(f"{path}: there is no such file", "restore it from a copy") from exc
        if shard in self._digests and file_digest(self._build, shard)[0] != self._digests[shard]:
            raise CurateError(f"{path}: its bytes are not those that were committed", "restore it from a copy")
        if not schema.equals(self._schema, check_metadata=True):
            raise CurateError(f"{path}: its streams are not those of the manifest", "check it: curate verify")
        sizes = [BATCH_ROWS] * (rows // BATCH_ROWS) + ([rows % BATCH_ROWS] if rows % BATCH_ROWS else [])
        if [b.num_rows for b in batches] != sizes:
            raise CurateError(f"{path}: does not hold {rows} rows, as the manifest says", "check it: curate verify")
        for place, batch in enumerate(batches, int(self._first_batch[number])):
            self._batches.put(place, batch)
        self._opened[number] = batches
        return batches

    def _close(self, number: int) -> None:
        for place in range(len(self._opened.pop(number))):
            self._batches.drop(int(self._first_batch[number]) + place)


def iter_rows(build: Store | Path | str, manifest: Manifest, split: str) -> Iterator[Rows]:
    """All rows of a split in final order, at most 1,024 at a time; for the card, `explain` and exports."""
    reader = Reader(build, manifest, split)
    for start in range(0, len(reader), BATCH_ROWS):
        index = np.arange(start, min(start + BATCH_ROWS, len(reader)))
        yield reader.take(index, (*VIEW_KEYS, "content_id"))
