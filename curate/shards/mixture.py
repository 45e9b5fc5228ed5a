"""Several builds as one stream; the way in is `curate.mix`. Its place is two integers, as that of one build.

The part that position p is of, and how often it came before, are arithmetic (`Schedule`), and so is which of its
samples that is: number c of a part of n is in its epoch c // n, at position c % n of that epoch's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from curate.decide.keys import mix
from curate.schema.errors import CurateError
from curate.schema.ids import digest_of_rows
from curate.shards.dealing import Positioned, Tail
from curate.shards.draw import Draw
from curate.shards.epoch import Order, Shuffle, order_of
from curate.shards.memory import Ints
from curate.shards.parts import Part, Rowed, absent, union
from curate.shards.rows import Ragged, Rows
from curate.shards.schedule import Schedule, whole_weights
from curate.shards.schema import streams_of
from curate.shards.token_stream import look_ahead
from curate.shards.views import View

_ENDLESS = 1 << 60


class Share(NamedTuple):
    """What a mixture has given of a part.

    Attributes:
        samples: given, by all ranks.
        epochs: of the part, of `caps` samples each where it is capped: 2.25 is a quarter into the third.
        share: of all samples given, 0 to 1; 0 before the first.
    """

    samples: int
    epochs: float
    share: float


class Mixture(Positioned):
    """Iterates over several parts at once; see `mix`. One iterator at a time.

    Attributes:
        parts: by name.
        manifest: the first part's, with the streams and codecs of all: what the view is bound to, so `*_streams` of
            `MaskedView` are places in its `streams`, and `FlatVocabulary.of` it is that of `SequenceView`.
        weights: whole numbers in the proportion of which parts are mixed: as given, to 1 / 65536 of their sum.
    """

    noun = "mixture"

    def __init__(
        self,
        parts: Mapping[str, Part],
        weights: Sequence[float],
        sizes: Sequence[int],
        *,
        view: View,
        on_end: Literal["repeat", "stop"],
        tail: Tail,
        seed: int,
        epoch: int,
        shuffle: Shuffle,
        rank: int,
        world: int,
        batch: int | None,
    ) -> None:
        super().__init__(seed=seed, epoch=epoch, shuffle=shuffle, rank=rank, world=world, batch=batch, tail=tail)
        if on_end not in ("repeat", "stop"):
            raise CurateError(f"on_end={on_end!r}", "it is one of repeat, stop")
        self.parts = dict(parts)
        self._sizes = list(sizes)
        self.weights = dict(zip(parts, whole_weights(weights), strict=True))
        self._schedule = Schedule(list(self.weights.values()), seed)
        self.manifest = union([part.manifest for part in parts.values()])
        self._view = view.bind(self.manifest)
        self._specs = [s for s in streams_of(self.manifest) if s.name in self._view.streams]
        self._stop = _ENDLESS
        if on_end == "stop":
            self._stop = min(self._schedule.position(i, size) for i, size in enumerate(self._sizes))
        self._look_ahead = look_ahead(max(part.row_bytes for part in parts.values()))
        said = [
            f"{p.digest}/{p.split}/{n}/{w}"
            for p, n, w in zip(parts.values(), sizes, self.weights.values(), strict=True)
        ]
        self._print = int(digest_of_rows([on_end, *said])[:13], 16)
        self._readers: list[Rowed] | None = None

    def __len__(self) -> int:
        """Items (samples, or batches) that are left of this epoch on this rank; TypeError where there is no end."""
        if self._length == _ENDLESS:
            raise TypeError("a mixture that repeats its parts has no end")
        return super().__len__()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The rest of this epoch. What comes after is the next epoch."""
        worker, workers = self._worker()
        epoch, start = self._begin()
        left, size = self._left(start), self._batch or 1
        items = range(worker + self._done * workers, -(-left // size), workers)
        orders = lru_cache(2 * len(self.parts))(self._order)
        for block in _blocks(items, max(1, self._look_ahead // size)):
            # Item k holds this rank's samples k * size to (k + 1) * size; sample j is in round j of all ranks.
            mine = np.concatenate([np.arange(k * size, min((k + 1) * size, left)) for k in block])
            positions = self._position(start + mine * self._world) % self._length  # repeated: from the beginning
            gathered = self._gather(epoch, positions, orders)
            for k in block:
                first = (k - block[0]) // workers * size
                self._move(epoch, start + (k + 1) * size * self._world)
                self._here = (k - worker) // workers + 1
                if self._batch is None:
                    yield self._given(self._sample(gathered, first))
                else:
                    yield self._given(self._join(gathered, first, min(first + size, len(mine))))
        self._end(epoch)

    @property
    def _length(self) -> int:
        return self._stop

    @property
    def _identity(self) -> dict[str, int]:
        return {"mixture": self._print}

    def _other(self) -> str:
        return "the state is of a mixture of other builds, weights or caps, or of another on_end"

    def counts(self, items: int | None = None) -> dict[str, Share]:
        """What was given of each part by all ranks, up to where this mixture stands, in this epoch of the mixture.

        Args:
            items: as of `state`.
        """
        index = self.state(items)["index"]
        given = zip(self.parts, self._schedule.counts(index), self._sizes, strict=True)
        return {name: Share(n, n / size, n / max(1, index)) for name, n, size in given}

    def _position(self, rounds: Ints) -> Ints:
        """This rank's position in each round of `world` positions that begin at `rounds`.

        Ranks take turns by chance: were it their number alone, one that divides the schedule's period would see some
        parts never.
        """
        if self._world == 1:
            return rounds
        turn = mix(rounds.astype(np.uint64) + mix(np.array([self._seed % (1 << 64)], np.uint64)))
        at: Ints = (turn % np.uint64(self._world)).astype(np.int64)
        return rounds + (at + self._rank) % self._world

    def _left(self, index: int) -> int:
        rounds, rest = divmod(self._whole(index), self._world)
        last = self._position(np.array([index + rounds * self._world]))
        return rounds + int(rest > 0 and last[0] < self._length)

    def _order(self, part: int, epoch: int) -> Order:
        """The order of a part in one of its epochs: that of `TokenStream`."""
        one = list(self.parts.values())[part]
        return order_of(self._shuffle, one.shard_rows, f"{self._seed}/{epoch}/{one.split}")

    def _gather(self, epoch: int, positions: Ints, orders: Callable[[int, int], Order]) -> list[_Gathered]:
        """The samples at some positions: for each part those that are of it, in order."""
        if self._readers is None:
            self._readers = [part.open(self._view.streams) for part in self.parts.values()]
        of, number = self._schedule(positions)
        out = []
        for i, reader in enumerate(self._readers):
            places = np.flatnonzero(of == i)
            epochs, at = np.divmod(number[places], self._sizes[i])
            epochs += epoch
            index = np.empty_like(at)
            for one in np.unique(epochs).tolist():
                here = epochs == one
                index[here] = orders(i, one)(at[here])
            rows = reader.take(index)
            lacking = {s.name: absent(s, len(rows)) for s in self._specs if s.name not in rows.streams}
            out.append(_Gathered(places, epochs, Rows(rows.keys, {**rows.streams, **lacking})))
        return out

    def _sample(self, gathered: Sequence[_Gathered], place: int) -> dict[str, Any]:
        for i, part in enumerate(gathered):
            at = int(np.searchsorted(part.places, place))
            if at < len(part.places) and part.places[at] == place:
                draw = Draw(self._seed, int(part.epochs[at]))
                return {**self._view.sample(part.rows, at, draw), "source": i}
        raise AssertionError("every position is of some part")

    def _join(self, gathered: Sequence[_Gathered], start: int, stop: int) -> dict[str, Any]:
        """The batch of the places start to stop: what the view makes of each part and epoch, one after the other."""
        found = []
        for i, part in enumerate(gathered):
            first, last = np.searchsorted(part.places, (start, stop)).tolist()
            epochs = part.epochs[first:last]
            edges = [first, *(first + 1 + np.flatnonzero(np.diff(epochs))).tolist(), last]
            for a, b in pairwise(edges):
                if b > a:
                    shown = self._view.batch(part.rows.part(a, b), Draw(self._seed, int(part.epochs[a])))
                    found.append({**shown, "source": np.full(b - a, i)})
        return concat_batches(found)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_readers": None}  # memory maps are opened again where it is unpickled


def _blocks(items: range, most: int) -> Iterator[range]:
    """Items that are gathered together: one at first, so that it comes soon, then ever more."""
    at, count = 0, 1
    while at < len(items):
        yield items[at : at + count]
        at, count = at + count, min(2 * count, most)


class _Gathered(NamedTuple):
    """Samples of one part: their places among all that were gathered, which ascend, the part's epochs, and rows."""

    places: Ints
    epochs: Ints
    rows: Rows


def concat_batches(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Batches that one view made, at least one, as one batch.

    Arrays are put one after the other along their first axis, and so are `Ragged` and lists. Of `SequenceView`,
    `offsets` go on where the batch before ended.

    Raises:
        CurateError: a value of another type, or a key that one of them lacks.
    """
    if len(batches) == 1:
        return batches[0]
    out: dict[str, Any] = {}
    for key in batches[0]:
        values: list[Any] = [batch.get(key) for batch in batches]
        if all(isinstance(v, Ragged) for v in values):
            out[key] = Ragged.concat(values)
        elif all(isinstance(v, list) for v in values):
            out[key] = [one for v in values for one in v]
        elif not all(isinstance(v, np.ndarray) for v in values):
            raise CurateError(f"the view's batches cannot be mixed: {key!r} is not an array, a Ragged or a list in all")
        elif key == "offsets":
            ends = np.cumsum([0, *(v[-1] for v in values)])
            out[key] = np.concatenate([*(v[:-1] + end for v, end in zip(values, ends, strict=False)), ends[-1:]])
        else:
            out[key] = np.concatenate(values)
    return out
