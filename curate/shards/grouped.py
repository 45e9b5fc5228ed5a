"""An epoch whose samples are put into groups, such as rows of packed sequences or batches of one shape.

`window` samples of the epoch's order are grouped together: what their groups are follows from seed, epoch and position
alone. A place is how many groups were given, and where the window of the next one begins: so it is resumed on other
ranks as `TokenStream` is, without grouping what came before.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Unpack

import numpy as np

from curate.schema.errors import CurateError
from curate.shards.dealing import Dealing, Dealt
from curate.shards.draw import Draw
from curate.shards.memory import Ints
from curate.shards.ordered import Ordered
from curate.shards.parts import BuildPart
from curate.shards.reader import Reader
from curate.shards.records import Records
from curate.shards.selected import Selected, SelectedRows
from curate.shards.shuffle import Permutation
from curate.shards.views import Bound, View
from curate.storage import Store


class GroupedStream(Dealt):
    """Iterates over groups of samples of one split of a build, `batch` groups an item. One iterator at a time.

    Args:
        size: what groups follow from beside order and window: a state is of one size.
        records: True for an order of records, whose samples come one after the other.

    Attributes:
        window: samples, or records, that are grouped together.
        manifest: of the build.
    """

    window: ClassVar[int]

    def __init__(
        self,
        build: Store | Path | str,
        view: View,
        split: str,
        *,
        size: int,
        where: str | None,
        verify: bool,
        records: bool = False,
        **dealing: Unpack[Dealing],
    ) -> None:
        super().__init__(**dealing)
        whole = BuildPart(build, split, verify=verify)
        part: BuildPart | Selected = whole if where is None else Selected(whole, where)
        if records and self._shuffle == "blocks":
            raise CurateError("the samples of a record lie in many shards", "shuffle=True, or False")
        self._part: BuildPart | Selected | Records = Records(part) if records else part
        self.manifest, self.split = whole.manifest, split
        self._bound: Bound = view.bind(self.manifest)
        self._size = size
        self._print = int(self._part.digest[:13], 16)
        self._known = (self._epoch, 0, 0)  # of an epoch: where a window begins, and groups before it
        self._lost: dict[tuple[int, int], int] = {}
        self._opened: Ordered[Reader | SelectedRows] | None = None
        self._groups = lru_cache(2)(self._turned)

    @abstractmethod
    def _grouped(self, epoch: int, index: Ints) -> list[Ints]:
        """The groups of a window's samples, given in order as numbers of stored samples."""

    @abstractmethod
    def _made(self, groups: Sequence[Ints], draw: Draw) -> dict[str, Any]:
        """The item of some groups."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of this epoch. What comes after is the next epoch."""
        worker, workers = self._worker()
        epoch, given = self._begin()
        step, draw = self._step, Draw(self._seed, epoch)
        some, first, item = list[Ints](), list[Ints](), 0
        for group in self._from(epoch, given):
            some.append(group)
            if len(some) == step:
                first = first or some
                self._place(epoch, given + (item + 1) * step)
                if item % workers == worker and item // workers >= self._done:
                    self._here = item // workers + 1
                    yield self._given(self._made(some[self._rank :: self._world], draw))
                some, item = [], item + 1
        if some and self._tail != "drop":
            if self._tail == "repeat":
                some = (some + (first or some) * step)[:step]
            mine = some[self._rank :: self._world]
            self._place(epoch + 1, 0)
            if mine and item % workers == worker and item // workers >= self._done:
                self._here = item // workers + 1
                yield self._given(self._made(mine, draw))
        self._end(epoch)

    def state(self, items: int | None = None) -> dict[str, int]:
        """Where this stream stands: a few integers, equal on all ranks that took equally many items.

        Args:
            items: how many items were taken since it was last begun, as of `TokenStream.state`.
        """
        epoch, given = self._begun(items)
        given += (items or 0) * self._step
        if self._is_over(epoch, given):
            epoch, given = epoch + 1, 0
        window, before = self._window_of(epoch, given)
        return {
            "epoch": epoch,
            "groups": given,
            "window": window,
            "before": before,
            **self._drawn,
            "size": self._size,
            "build": self._print,
        }

    def resume(self, state: Mapping[str, int]) -> None:
        """Go to where `state` was taken; the next group is the one that would have come next, on any number of ranks.

        Raises:
            CurateError: the state is of another build, split, selection, size, seed or shuffling, or not a state.
        """
        mine = self.state(items=0)
        places = ("epoch", "groups", "window", "before")
        if set(state) != set(mine) or min(state[name] for name in places) < 0 or state["before"] > state["groups"]:
            raise CurateError("not a state of this kind of stream", "pass what state() gave")
        for name in ("build", "size", "seed", "shuffle"):
            if state[name] != mine[name]:
                raise CurateError(f"the state was taken with {name} {state[name]}, this stream has {mine[name]}")
        self._known = (state["epoch"], state["window"], state["before"])
        is_over = self._is_over(state["epoch"], state["groups"])
        self._go(*((state["epoch"] + 1, 0) if is_over else (state["epoch"], state["groups"])))

    def _is_over(self, epoch: int, given: int) -> bool:
        """True if an epoch has no item from that group on."""
        needed = self._step if self._tail == "drop" else 1
        return self._window_of(epoch, given + needed - 1)[0] >= self._part.samples

    def _from(self, epoch: int, given: int) -> Iterator[Ints]:
        """The groups of an epoch from number `given` on."""
        window, before = self._window_of(epoch, given)
        while window < self._part.samples:
            self._known = (epoch, window, before)
            groups = self._groups(epoch, window)
            yield from groups[max(0, given - before) :]
            window, before = window + self.window, before + len(groups)

    def _window_of(self, epoch: int, number: int) -> tuple[int, int]:
        """Where the window of a group begins, and how many groups come before that window."""
        of, window, before = self._known
        if of != epoch or before > number:
            window = before = 0
        while window < self._part.samples and before + len(self._groups(epoch, window)) <= number:
            before += len(self._groups(epoch, window))
            window += self.window
        return window, before

    def _stored(self, epoch: int, window: int) -> Ints:
        """The samples of a window, as numbers of stored samples."""
        opened = self._open()
        index = opened.index(epoch, np.arange(window, min(window + self.window, self._part.samples)))
        if isinstance(self._part, Records):
            index = self._part.rows(index)
        if self._on_error == "skip":
            fits = opened.rows.readable(index)
            index, self._lost[epoch, window] = index[fits], int((~fits).sum())
        return index

    @property
    def skipped(self) -> int:
        """Samples of the epochs and windows seen so far that all ranks left out, where `on_error` is "skip"."""
        return sum(self._lost.values())

    @property
    def damaged(self) -> dict[str, str]:
        """What is wrong with shards that this process left out, by path or uri, where `on_error` is "skip"."""
        return {} if self._opened is None else dict(self._opened.rows.damaged)

    def _turned(self, epoch: int, window: int) -> list[Ints]:
        """The groups of a window in an order that says nothing of what is in them, where the epoch is shuffled."""
        index = self._stored(epoch, window)
        groups = self._grouped(epoch, index) if len(index) else []
        if not self._shuffle:
            return groups
        turn = Permutation(len(groups), f"{self._seed}/{epoch}/{window}/groups")(np.arange(len(groups)))
        return [groups[i] for i in turn.tolist()]

    def _open(self) -> Ordered[Reader | SelectedRows]:
        if self._opened is None:
            self._opened = Ordered(self._part, self._part.open(self._bound.streams), self._shuffle, self._seed)
        return self._opened

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_groups": None}  # opened again where it is unpickled

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._groups = lru_cache(2)(self._turned)
