"""A build as a stream into a trainer. Its place is a number, so resuming is arithmetic, on other ranks too.

The order of an epoch is a pure function of (seed, epoch) and of position (`Permutation`). Position p of it goes to rank
p mod world; nothing else holds state. There is no shuffle buffer to lose, and no data is read again to get back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from curate.schema.errors import CurateError
from curate.shards.draw import Draw
from curate.shards.epoch import Blocks, Shuffle, order_of
from curate.shards.memory import Ints
from curate.shards.parts import BuildPart
from curate.shards.place import Place
from curate.shards.reader import Reader
from curate.shards.selected import Selected, SelectedRows
from curate.shards.views import RawView, View
from curate.storage import Store

Tail = Literal["uneven", "drop", "repeat"]
"""What becomes of samples that do not fill an item on every rank; see `stream`."""

OnError = Literal["raise", "skip"]
"""What a shard that cannot be read does; see `stream`."""

LOOK_AHEAD = 4096
"""Most rows gathered at once, so that rows of one record batch are fetched together."""
_LOOK_AHEAD_BYTES = 64 << 20


class TokenStream(Place):
    """Iterates over one split of a build; see `stream`. One iterator at a time.

    Attributes:
        skipped: samples that this process left out since it was made, where `on_error` is "skip".
    """

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
        if not 0 <= rank < world:
            raise CurateError(f"rank {rank} of {world}: ranks are 0 to world - 1")
        if batch is not None and batch < 1:
            raise CurateError(f"a batch of {batch} samples")
        if epoch < 0:
            raise CurateError(f"epoch {epoch}: the first one is 0")
        if shuffle not in (True, False, "blocks"):
            raise CurateError(f"shuffle={shuffle!r}", 'it is True, False or "blocks"')
        if tail not in get_args(Tail):
            raise CurateError(f"tail={tail!r}", f"it is one of {', '.join(get_args(Tail))}")
        if on_error not in get_args(OnError):
            raise CurateError(f"on_error={on_error!r}", f"it is one of {', '.join(get_args(OnError))}")
        super().__init__(epoch)
        whole = BuildPart(build, split, verify=verify)
        self._on_error = on_error
        self.skipped = 0
        self._part: BuildPart | Selected = whole if where is None else Selected(whole, where)
        self.build, self.manifest, self.split = whole.build, whole.manifest, split
        self._view = (RawView() if view is None else view).bind(self.manifest)
        self._seed = seed
        self._shuffle: Shuffle = shuffle
        self._rank, self._world, self._batch, self._tail = rank, world, batch, tail
        self._samples = self._part.samples
        self._print = int(self._part.digest[:13], 16)
        self._look_ahead = max(1, min(LOOK_AHEAD, _LOOK_AHEAD_BYTES // max(1, self._part.row_bytes)))
        self._reader: Reader | SelectedRows | None = None

    @property
    def samples(self) -> int:
        """Samples of an epoch, over all ranks."""
        return self._samples

    def __len__(self) -> int:
        """Items (samples, or batches) that are left of this epoch on this rank."""
        return -(-self._left(self._next()[1]) // (self._batch or 1))

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

    def state(self, items: int | None = None) -> dict[str, int]:
        """Where this stream stands: a few integers, equal on all ranks that took equally many items.

        Args:
            items: how many items (what this stream yields: samples, or batches where `batch` is set) were taken since
                it was last begun. None where this object is iterated directly: it counts by itself, and an item counts
                once it was given out. The workers of a torch DataLoader make items ahead, so there it must be said.

        Raises:
            CurateError: workers have begun an epoch, are not at its end, and `items` is None.
        """
        epoch, index = self._begun(items)
        if items:
            index += items * (self._batch or 1) * self._world
        if items is not None and self._is_over(index):
            epoch, index = epoch + 1, 0
        return {
            "epoch": epoch,
            "index": index,
            "seed": self._seed,
            "shuffle": 2 if self._shuffle == "blocks" else int(self._shuffle),
            "samples": self._samples,
            "build": self._print,
        }

    def resume(self, state: Mapping[str, int]) -> None:
        """Go to where `state` was taken; the next item is the one that would have come next, for any world and batch.

        Raises:
            CurateError: the state is of another build, split, seed or shuffling, or not a state.
        """
        mine = self.state(items=0)
        if set(state) != set(mine) or not 0 <= state["index"] <= self._samples or state["epoch"] < 0:
            raise CurateError("not a state of a token stream", "pass what state() gave")
        if state["build"] != mine["build"] or state["samples"] != mine["samples"]:
            raise CurateError(f"the state is of another build, split or selection than {self.build} {self.split}")
        for name in ("seed", "shuffle"):
            if state[name] != mine[name]:
                raise CurateError(f"the state was taken with {name} {state[name]}, this stream has {mine[name]}")
        is_over = self._is_over(state["index"])
        self._go(*((state["epoch"] + 1, 0) if is_over else (state["epoch"], state["index"])))

    def _move(self, epoch: int, index: int) -> None:
        self._place(*((epoch + 1, 0) if self._is_over(index) else (epoch, index)))

    def _is_over(self, index: int) -> bool:
        """True if an epoch has no item from there on."""
        needed = (self._batch or 1) * self._world if self._tail == "drop" else 1
        return index + needed > self._samples

    def _left(self, index: int) -> int:
        """Samples that are left of an epoch for this rank."""
        left, step = self._samples - index, (self._batch or 1) * self._world
        if self._tail == "drop":
            left -= left % step
        elif self._tail == "repeat":
            left += -left % step
        return max(0, -(-(left - self._rank) // self._world))

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
