"""How the samples of an epoch are dealt to ranks, in items, and where a stream stands among them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, Literal, NamedTuple, TypedDict, TypeVar, Unpack, get_args

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.shards.draw import Draw
from curate.shards.epoch import Shuffle
from curate.shards.memory import Ints
from curate.shards.place import Place
from curate.shards.rows import Rows
from curate.shards.views import Bound

Tail = Literal["uneven", "drop", "repeat"]
"""What becomes of samples that do not fill an item on every rank; see `stream`."""

OnError = Literal["raise", "skip"]
"""What a shard that cannot be read does; see `stream`."""

LOOK_AHEAD = 4096
"""Most rows that are gathered at once."""
_LOOK_AHEAD_BYTES = 64 << 20


def look_ahead(row_bytes: int) -> int:
    """Rows of such a size that are gathered at once, so that rows of one record batch are fetched together."""
    return max(1, min(LOOK_AHEAD, _LOOK_AHEAD_BYTES // max(1, row_bytes)))


class Dealing(TypedDict, total=False):
    """How a stream is dealt: what `Dealt` takes; see `stream`."""

    seed: int
    epoch: int
    shuffle: Shuffle
    rank: int
    world: int
    batch: int | None
    tail: Tail
    on_error: OnError


class Dealt(Place):
    """A stream that ranks share.

    Raises:
        CurateError: arguments that cannot be.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: Shuffle = True,
        rank: int = 0,
        world: int = 1,
        batch: int | None = None,
        tail: Tail = "uneven",
        on_error: OnError = "raise",
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
        self._seed, self._tail, self._on_error = seed, tail, on_error
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


class Gathered(NamedTuple):
    """Rows at some positions of an epoch.

    Attributes:
        rows: those that can be read, in order.
        draw: of these rows.
        fits: bool `(positions,)`, which can be read.
        beside: what an item says of these rows beside what the view shows, `(rows,)` each.
    """

    rows: Rows
    draw: Draw
    fits: NDArray[np.bool_]
    beside: Mapping[str, Ints]


class Positioned(Dealt):
    """A stream whose place is a position of its epoch: the samples before it were given.

    Position p of an epoch goes to rank p mod world; nothing else holds state. There is no shuffle buffer to lose, and
    no data is read again to get back.

    Attributes:
        noun: what it is called in messages.
        skipped: samples that this process left out since it was made, where `on_error` is "skip".
    """

    noun: ClassVar[str]
    _view: Bound
    _look_ahead: int

    def __init__(self, **dealing: Unpack[Dealing]) -> None:
        super().__init__(**dealing)
        self.skipped = 0

    @property
    @abstractmethod
    def damaged(self) -> dict[str, str]:
        """What is wrong with shards that this process left out, by path or uri, where `on_error` is "skip"."""

    @abstractmethod
    def _gather(self, epoch: int, positions: Ints) -> Gathered:
        """The samples at some positions."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of this epoch. What comes after is the next epoch."""
        worker, workers = self._worker()
        epoch, start = self._begin()
        left, size = self._left(start), self._batch or 1
        items = range(worker + self._done * workers, -(-left // size), workers)

        def gather(block: range) -> tuple[range, Gathered]:
            # Item k holds this rank's samples k * size to (k + 1) * size; sample j is in round j of all ranks.
            mine = np.concatenate([np.arange(k * size, min((k + 1) * size, left)) for k in block])
            # what is repeated comes from the epoch's beginning
            return block, self._gather(epoch, self._position(start + mine * self._world) % self._length)

        blocks = _blocks(items, max(1, self._look_ahead // size))
        threaded = self._batch is not None and getattr(self._view, "parallel", False)
        for block, gathered in _one_ahead(gather, blocks) if threaded else map(gather, blocks):
            there = np.concatenate(([0], np.cumsum(gathered.fits)))  # how many of the rows before each one are read
            for number, k in enumerate(block):
                self._move(epoch, start + (k + 1) * size * self._world)
                self._here = (k - worker) // workers + 1
                begin, end = number * size, min((number + 1) * size, len(gathered.fits))
                first, last = int(there[begin]), int(there[end])
                self.skipped += end - begin - (last - first)
                if last > first:
                    yield self._given(self._item(gathered, first, last))
        self._end(epoch)

    def _item(self, gathered: Gathered, first: int, last: int) -> dict[str, Any]:
        rows, draw, _, beside = gathered
        if self._batch is None:
            shown = self._view.sample(rows, first, draw.of(first))
            return {**shown, **{name: int(values[first]) for name, values in beside.items()}}
        shown = self._view.batch(rows.part(first, last), draw.part(first, last))
        return {**shown, **{name: values[first:last] for name, values in beside.items()}}

    def _position(self, rounds: Ints) -> Ints:
        """This rank's position in each round of `world` positions that begin at `rounds`."""
        return rounds + self._rank

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


def _blocks(items: range, most: int) -> Iterator[range]:
    """Items that are gathered together: one at first, so that it comes soon, then ever more."""
    at, count = 0, 1
    while at < len(items):
        yield items[at : at + count]
        at, count = at + count, min(2 * count, most)


A = TypeVar("A")
B = TypeVar("B")


def _one_ahead(made: Callable[[A], B], of: Iterable[A]) -> Iterator[B]:
    """`map`, where a thread makes the next one while one is used."""
    pool = ThreadPoolExecutor(1, "curate-ahead")
    try:
        coming: Future[B] | None = None
        for one in of:
            then = pool.submit(made, one)
            if coming is not None:
                yield coming.result()
            coming = then
        if coming is not None:
            yield coming.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
