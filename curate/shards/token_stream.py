"""A build as a stream into a trainer. Its place is a number, so resuming is arithmetic, on other ranks too.

The order of an epoch is a pure function of (seed, epoch) and of position (`Permutation`). Position p of it goes to rank
p mod world; nothing else holds state. There is no shuffle buffer to lose, and no data is read again to get back.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from curate.schema.errors import CurateError
from curate.shards.dealing import Positioned, Tail
from curate.shards.draw import Draw
from curate.shards.epoch import Blocks, Shuffle, order_of
from curate.shards.memory import Ints
from curate.shards.parts import BuildPart
from curate.shards.reader import Reader
from curate.shards.selected import Selected, SelectedRows
from curate.shards.views import RawView, View
from curate.storage import Store

OnError = Literal["raise", "skip"]
"""What a shard that cannot be read does; see `stream`."""

LOOK_AHEAD = 4096
"""Most rows gathered at once, so that rows of one record batch are fetched together."""
_LOOK_AHEAD_BYTES = 64 << 20


def look_ahead(row_bytes: int) -> int:
    """Rows of such a size that are gathered at once."""
    return max(1, min(LOOK_AHEAD, _LOOK_AHEAD_BYTES // max(1, row_bytes)))


class TokenStream(Positioned):
    """Iterates over one split of a build; see `stream`. One iterator at a time.

    Attributes:
        skipped: samples that this process left out since it was made, where `on_error` is "skip".
    """

    noun = "token stream"

    def __init__(
        self,
        build: Store | Path | str,
        split: str = "train",
        view: View | None = None,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: Shuffle = True,
        rank: int = 0,
        world: int = 1,
        batch: int | None = None,
        tail: Tail = "uneven",
        where: str | None = None,
        on_error: OnError = "raise",
        verify: bool = False,
    ) -> None:
        super().__init__(seed=seed, epoch=epoch, shuffle=shuffle, rank=rank, world=world, batch=batch, tail=tail)
        if on_error not in get_args(OnError):
            raise CurateError(f"on_error={on_error!r}", f"it is one of {', '.join(get_args(OnError))}")
        whole = BuildPart(build, split, verify=verify)
        self._on_error = on_error
        self.skipped = 0
        self._part: BuildPart | Selected = whole if where is None else Selected(whole, where)
        self.build, self.manifest, self.split = whole.build, whole.manifest, split
        self._view = (RawView() if view is None else view).bind(self.manifest)
        self._samples = self._part.samples
        self._look_ahead = look_ahead(self._part.row_bytes)
        self._reader: Reader | SelectedRows | None = None

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._samples

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of this epoch. What comes after is the next epoch."""
        worker, workers = self._worker()
        reader = self._open()
        epoch, start = self._begin()
        left, size = self._left(start), self._batch or 1
        order = order_of(self._shuffle, self._part.shard_rows, f"{self._seed}/{epoch}/{self.split}")
        draw = Draw(self._seed, epoch)
        ahead = max(1, self._look_ahead // size)
        items = range(worker + self._done * workers, -(-left // size), workers)
        for block in (items[i : i + ahead] for i in range(0, len(items), ahead)):
            # Item k holds this rank's samples k * size to (k + 1) * size; sample j is at start + j * world + rank.
            mine = np.concatenate([np.arange(k * size, min((k + 1) * size, left)) for k in block])
            positions: Ints = start + mine * self._world + self._rank
            positions %= self._samples  # what is repeated comes from the epoch's beginning
            if isinstance(order, Blocks):
                reader.fetch(order.next_shards(int(positions[-1])))
            index = order(positions)
            there = np.arange(len(index) + 1)  # how many of the rows before each one are read
            if self._on_error == "skip":
                fits = reader.readable(index)
                there, index = np.concatenate(([0], np.cumsum(fits))), index[fits]
            rows = reader.take(index)
            for k in block:
                self._move(epoch, start + (k + 1) * size * self._world)
                self._here = (k - worker) // workers + 1
                begin = (k - block[0]) // workers * size
                end = min(begin + size, len(there) - 1)
                first, last = int(there[begin]), int(there[end])
                self.skipped += end - begin - (last - first)
                if last > first and self._batch is None:
                    yield self._given(self._view.sample(rows, first, draw))
                elif last > first:
                    yield self._given(self._view.batch(rows.part(first, last), draw))
        self._end(epoch)

    @property
    def _length(self) -> int:
        return self._samples

    @property
    def _identity(self) -> dict[str, int]:
        return {"samples": self._samples, "build": int(self._part.digest[:13], 16)}

    def _other(self) -> str:
        return f"the state is of another build, split or selection than {self.build} {self.split}"

    @property
    def damaged(self) -> dict[str, str]:
        """What is wrong with shards that this process left out, by path, where `on_error` is "skip"."""
        return {} if self._reader is None else dict(self._reader.damaged)

    def _open(self) -> Reader | SelectedRows:
        if self._reader is None:
            self._reader = self._part.open(self._view.streams)
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None}  # memory maps are opened again where it is unpickled
