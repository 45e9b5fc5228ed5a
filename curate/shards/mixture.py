"""Several builds as one stream; the way in is `curate.mix`. Its place is two integers, as that of one build.

The part that position p is of, and how often it came before, are arithmetic (`Schedule`), and so is which of its
samples that is: number c of a part of n is in its epoch c // n, at position c % n of that epoch's order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Unpack

import numpy as np

from curate.decide.keys import mix
from curate.schema.errors import CurateError
from curate.schema.ids import digest_of_rows
from curate.shards.dealing import Dealing, Gathered, Positioned, look_ahead
from curate.shards.draw import Draw
from curate.shards.memory import Ints
from curate.shards.ordered import Ordered
from curate.shards.parts import Part, Rowed, absent, union
from curate.shards.rows import Rows
from curate.shards.schedule import Schedule, whole_weights
from curate.shards.schema import streams_of
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
        **dealing: Unpack[Dealing],
    ) -> None:
        super().__init__(**dealing)
        if on_end not in ("repeat", "stop"):
            raise CurateError(f"on_end={on_end!r}", "it is one of repeat, stop")
        self.parts = dict(parts)
        self._sizes = list(sizes)
        self.weights = dict(zip(parts, whole_weights(weights), strict=True))
        self._schedule = Schedule(list(self.weights.values()), self._seed)
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
        self._opened: list[Ordered[Rowed]] | None = None

    def __len__(self) -> int:
        """Items (samples, or batches) that are left of this epoch on this rank; TypeError where there is no end."""
        if self._length == _ENDLESS:
            raise TypeError("a mixture that repeats its parts has no end")
        return super().__len__()

    @property
    def damaged(self) -> dict[str, str]:
        return {path: said for part in self._opened or () for path, said in part.rows.damaged.items()}

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

    def _gather(self, epoch: int, positions: Ints) -> Gathered:
        if self._opened is None:
            streams = self._view.streams
            self._opened = [Ordered(p, p.open(streams), self._shuffle, self._seed) for p in self.parts.values()]
        of, number = self._schedule(positions)
        epochs, found = np.empty_like(of), []
        fits, places = np.ones(len(of), np.bool_), []
        for i, part in enumerate(self._opened):
            here = np.flatnonzero(of == i)
            epochs[here], at = np.divmod(number[here], self._sizes[i])
            epochs[here] += epoch
            index = np.empty_like(at)
            for one in np.unique(epochs[here]).tolist():
                mine = epochs[here] == one
                index[mine] = part.index(one, at[mine])
            rows, fits[here] = part.take(index, self._on_error == "skip")
            lacking = {s.name: absent(s, len(rows)) for s in self._specs if s.name not in rows.streams}
            found.append(Rows(rows.keys, {**rows.streams, **lacking}))
            places.append(here[fits[here]])
        rows = Rows.picked(found, np.argsort(np.concatenate(places)))
        return Gathered(rows, Draw(self._seed, epochs[fits]), fits, {"source": of[fits]})

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # memory maps are opened again where it is unpickled
