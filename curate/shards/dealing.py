"""How the samples of an epoch are dealt to ranks, in items, and where a stream stands among them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal, get_args

from curate.schema.errors import CurateError
from curate.shards.epoch import Shuffle
from curate.shards.place import Place

Tail = Literal["uneven", "drop", "repeat"]
"""What becomes of samples that do not fill an item on every rank; see `stream`."""


class Dealt(Place):
    """A stream that ranks share.

    Raises:
        CurateError: arguments that cannot be.
    """

    def __init__(
        self, *, seed: int, epoch: int, shuffle: Shuffle, rank: int, world: int, batch: int | None, tail: Tail
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
        super().__init__(epoch)
        self._seed, self._tail = seed, tail
        self._shuffle: Shuffle = shuffle
        self._rank, self._world, self._batch = rank, world, batch

    @property
    def _step(self) -> int:
        """What all ranks together take at once: samples, or groups of them."""
        return (self._batch or 1) * self._world

    @property
    def _drawn(self) -> dict[str, int]:
        """What a state says of chance."""
        return {"seed": self._seed, "shuffle": 2 if self._shuffle == "blocks" else int(self._shuffle)}


class Positioned(Dealt):
    """A stream whose place is a position of its epoch: the samples before it were given.

    Attributes:
        noun: what it is called in messages.
    """

    noun: ClassVar[str]

    @property
    @abstractmethod
    def _length(self) -> int:
        """Positions of an epoch."""

    @property
    @abstractmethod
    def _identity(self) -> dict[str, int]:
        """What a state says of what the stream is of."""

    @abstractmethod
    def _other(self) -> str:
        """The message for a state of something else."""

    def __len__(self) -> int:
        """Items (samples, or batches) that are left of this epoch on this rank."""
        return -(-self._left(self._next()[1]) // (self._batch or 1))

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
        index += (items or 0) * self._step
        if items is not None and self._is_over(index):
            epoch, index = epoch + 1, 0
        return {"epoch": epoch, "index": index, **self._drawn, **self._identity}

    def resume(self, state: Mapping[str, int]) -> None:
        """Go to where `state` was taken; the next item is the one that would have come next, for any world and batch.

        Raises:
            CurateError: the state is of something else, of another seed or shuffling, or not a state.
        """
        mine = self.state(items=0)
        if set(state) != set(mine) or not 0 <= state["index"] <= self._length or state["epoch"] < 0:
            raise CurateError(f"not a state of a {self.noun}", "pass what state() gave")
        if any(state[name] != value for name, value in self._identity.items()):
            raise CurateError(self._other())
        for name, value in self._drawn.items():
            if state[name] != value:
                last = self.noun.rpartition(" ")[2]
                raise CurateError(f"the state was taken with {name} {state[name]}, this {last} has {value}")
        is_over = self._is_over(state["index"])
        self._go(*((state["epoch"] + 1, 0) if is_over else (state["epoch"], state["index"])))

    def _move(self, epoch: int, index: int) -> None:
        self._place(*((epoch + 1, 0) if self._is_over(index) else (epoch, index)))

    def _is_over(self, index: int) -> bool:
        """True if an epoch has no item from there on."""
        return index + (self._step if self._tail == "drop" else 1) > self._length

    def _whole(self, index: int) -> int:
        """Samples that all ranks together take from there to the epoch's end; more than there are, or fewer, by the
        tail."""
        left = self._length - index
        return (
            left - left % self._step if self._tail == "drop" else left + (self._tail == "repeat") * (-left % self._step)
        )

    def _left(self, index: int) -> int:
        """Samples that are left of an epoch for this rank."""
        return max(0, -(-(self._whole(index) - self._rank) // self._world))
