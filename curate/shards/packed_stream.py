"""Sequences packed into rows of one length, with what attention needs to keep them apart.

Lengths are known without reading ids, so packing looks at `WINDOW` samples of an epoch's order at a time and fits them
best into rows; what a window's rows are follows from seed, epoch and position alone. Its place is how many rows were
given, and where the window of the next one begins: so it is resumed on other ranks as `TokenStream` is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from curate.schema.errors import CurateError
from curate.shards.draw import Draw
from curate.shards.epoch import Blocks, Order, Shuffle, order_of
from curate.shards.memory import Ints
from curate.shards.parts import BuildPart
from curate.shards.place import Place
from curate.shards.reader import Reader
from curate.shards.selected import Selected, SelectedRows
from curate.shards.sequence import PAD, SequenceView
from curate.shards.shuffle import Permutation
from curate.shards.token_stream import Tail
from curate.storage import Store

WINDOW = 4096
"""Samples that are packed together."""

TooLong = Literal["error", "skip"]


class PackedStream(Place):
    """Iterates over packed rows of one split of a build; see `packed`. One iterator at a time.

    Attributes:
        manifest: of the build.
        vocabulary: of its tokens.
    """

    def __init__(
        self,
        build: Store | Path | str,
        view: SequenceView,
        length: int,
        split: str,
        *,
        seed: int,
        epoch: int,
        shuffle: Shuffle,
        rank: int,
        world: int,
        batch: int,
        tail: Tail,
        where: str | None,
        too_long: TooLong,
    ) -> None:
        if not 0 <= rank < world:
            raise CurateError(f"rank {rank} of {world}: ranks are 0 to world - 1")
        if length < 3 or batch < 1 or epoch < 0:
            raise CurateError(f"length {length}, batch {batch}, epoch {epoch}: at least 3, 1 and 0")
        for name, value, known in (
            ("shuffle", shuffle, (True, False, "blocks")),
            ("tail", tail, get_args(Tail)),
            ("too_long", too_long, get_args(TooLong)),
        ):
            if value not in known:
                raise CurateError(f"{name}={value!r}", f"it is one of {', '.join(map(str, known))}")
        super().__init__(epoch)
        whole = BuildPart(build, split)
        self._part: BuildPart | Selected = whole if where is None else Selected(whole, where)
        self.manifest, self.split = whole.manifest, split
        self._view = view.bind(self.manifest)
        self.vocabulary = self._view.vocabulary
        self._length, self._too_long = length, too_long
        self._seed, self._tail = seed, tail
        self._shuffle: Shuffle = shuffle
        self._rank, self._world, self._batch = rank, world, batch
        self._print = int(self._part.digest[:13], 16)
        self._known = (epoch, 0, 0)  # of an epoch: where a window begins, and rows before it
        self._reader: Reader | SelectedRows | None = None
        self._rows = lru_cache(2)(self._fitted)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of this epoch. What comes after is the next epoch."""
        worker, workers = self._worker()
        epoch, given = self._begin()
        step, draw, group = self._world * self._batch, Draw(self._seed, epoch), list[Ints]()
        first: list[Ints] = []
        for number, row in enumerate(self._from(epoch, given)):
            group.append(row)
            if len(group) == step:
                first = first or group
                self._place(epoch, given + number + 1)
                if number // step % workers == worker:
                    yield self._given(self._laid_out(group[self._rank :: self._world], draw))
                group = []
        if group and self._tail != "drop":
            if self._tail == "repeat":
                group = (group + (first or group) * step)[:step]
            mine = group[self._rank :: self._world]
            self._place(epoch + 1, 0)
            if mine and (number // step) % workers == worker:
                yield self._given(self._laid_out(mine, draw))
        self._end(epoch)

    def state(self, items: int | None = None) -> dict[str, int]:
        """Where this stream stands: a few integers, equal on all ranks that took equally many items.

        Args:
            items: how many items were taken since it was last begun, as of `TokenStream.state`.
        """
        epoch, given = self._begun(items)
        given += (items or 0) * self._batch * self._world
        window, before = self._window_of(epoch, given)
        if window >= self._part.samples:
            epoch, given, window, before = epoch + 1, 0, 0, 0
        return {
            "epoch": epoch,
            "rows": given,
            "window": window,
            "before": before,
            "seed": self._seed,
            "shuffle": 2 if self._shuffle == "blocks" else int(self._shuffle),
            "length": self._length,
            "build": self._print,
        }

    def resume(self, state: Mapping[str, int]) -> None:
        """Go to where `state` was taken; the next row is the one that would have come next, for any world and batch.

        Raises:
            CurateError: the state is of another build, split, selection, length, seed or shuffling, or not a state.
        """
        mine = self.state(items=0)
        places = ("epoch", "rows", "window", "before")
        if set(state) != set(mine) or min(state[name] for name in places) < 0 or state["before"] > state["rows"]:
            raise CurateError("not a state of packed sequences", "pass what state() gave")
        for name in ("build", "length", "seed", "shuffle"):
            if state[name] != mine[name]:
                raise CurateError(f"the state was taken with {name} {state[name]}, this stream has {mine[name]}")
        self._known = (state["epoch"], state["window"], state["before"])
        self._go(state["epoch"], state["rows"])

    def padding(self) -> float:
        """The share of tokens of this epoch that are padding, 0 to 1; reads the lengths of all of its samples."""
        rows = used = 0
        for window in range(0, self._part.samples, WINDOW):
            lengths, fitted = self._rows(self._next()[0], window)
            rows, used = rows + len(fitted), used + lengths
        return 1 - used / max(1, rows * self._length)

    def _from(self, epoch: int, given: int) -> Iterator[Ints]:
        """The rows of an epoch from number `given` on, each as the samples it holds."""
        window, before = self._window_of(epoch, given)
        while window < self._part.samples:
            self._known = (epoch, window, before)
            fitted = self._rows(epoch, window)[1]
            yield from fitted[max(0, given - before) :]
            window, before = window + WINDOW, before + len(fitted)

    def _window_of(self, epoch: int, given: int) -> tuple[int, int]:
        """Where the window of row number `given` begins, and how many rows come before it."""
        of, window, before = self._known
        if of != epoch or before > given:
            window = before = 0
        while window < self._part.samples and before + len(self._rows(epoch, window)[1]) <= given:
            before += len(self._rows(epoch, window)[1])
            window += WINDOW
        return window, before

    def _fitted(self, epoch: int, window: int) -> tuple[int, list[Ints]]:
        """Tokens of a window's sequences, and its rows, each as numbers of stored samples."""
        from curate.shards.kernels import best_fit  # numba, which takes a second to import

        order = self._order(epoch)
        positions = np.arange(window, min(window + WINDOW, self._part.samples))
        reader = self._open()
        if isinstance(order, Blocks):
            reader.fetch(order.next_shards(int(positions[-1])))
        index = order(positions)
        names = reader.names(index)
        lengths = self._view.plan(reader.steps(index), names, Draw(self._seed, epoch))[2]
        long = lengths > self._length
        if long.any():
            if self._too_long == "error":
                at = int(np.argmax(long))
                raise CurateError(
                    f"sample {names[at]} has {lengths[at]} tokens, more than the {self._length} of a row",
                    'give a greater length, show fewer frames of it (the view\'s `frames`), or too_long="skip"',
                )
            index, lengths = index[~long], lengths[~long]
        into, count = best_fit(lengths, self._length)
        by_row = np.split(index[np.argsort(into, kind="stable")], np.cumsum(np.bincount(into, minlength=count))[:-1])
        turn = np.arange(count)
        if self._shuffle:
            turn = Permutation(count, f"{self._seed}/{epoch}/{window}/rows")(turn)  # the longest are fitted first
        return int(lengths.sum()), [by_row[i] for i in turn.tolist()]

    def _order(self, epoch: int) -> Order:
        return order_of(self._shuffle, self._part.shard_rows, f"{self._seed}/{epoch}/{self.split}")

    def _laid_out(self, rows: list[Ints], draw: Draw) -> dict[str, Any]:
        from curate.shards.kernels import lay_out

        counts = [len(row) for row in rows]
        made = self._view.batch(self._open().take(np.concatenate(rows)), draw)
        row: Ints = np.repeat(np.arange(len(rows)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        starts: Ints = made["offsets"]
        begin: Ints = starts[:-1] - starts[first]
        shape = (len(rows), self._length)
        tokens, loss = np.full(shape, PAD, np.int64), np.zeros(shape, np.bool_)
        positions, documents = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        number = (np.arange(len(row)) - first).astype(np.int64)
        out = (tokens, loss, positions, documents)
        lay_out(made["offsets"], made["tokens"], made["loss"], row, begin, number, out)
        ends = np.bincount(row, np.diff(made["offsets"]), len(rows)).astype(np.int64)
        edges = np.concatenate([row * self._length + begin, np.arange(len(rows)) * self._length + ends, [tokens.size]])
        bounds = np.unique(edges).astype(np.int32)
        return {
            "sample_id": made["sample_id"],
            "tokens": tokens,
            "loss": loss,
            "positions": positions,
            "documents": documents,
            "cu_seqlens": bounds,
            "max_seqlen": int(np.diff(bounds).max()),
        }

    def _given(self, item: dict[str, Any]) -> dict[str, Any]:
        """An item as it is given out."""
        return item

    def _open(self) -> Reader | SelectedRows:
        if self._reader is None:
            self._reader = self._part.open(self._view.streams)
        return self._reader

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_reader": None, "_rows": None}  # opened again where it is unpickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rows = lru_cache(2)(self._fitted)
