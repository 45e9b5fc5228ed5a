"""Streams of a second build beside those of a first one, met by `sample_id` (law 9)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from curate.decide.keys import EMPTY, Keys, keys_of, look_up, name_of, words
from curate.schema.errors import CurateError
from curate.schema.ids import digest_of_rows
from curate.shards.commit import read_manifest
from curate.shards.memory import Ints
from curate.shards.parts import BuildPart, Rowed, absent, union
from curate.shards.rows import Ragged, Rows
from curate.shards.schema import StreamSpec, streams_of
from curate.shards.selected import Selected
from curate.storage import Store

Miss = Literal["error", "skip", "null"]

_ROW_BITS = 48
_ROW = (1 << _ROW_BITS) - 1
"""A row of the second build is one number: the place of its split above, its row in that split below."""


def join(
    left: BuildPart | Store | Path | str,
    right: Store | Path | str,
    *,
    split: str = "train",
    miss: Miss = "error",
    streams: Sequence[str] | None = None,
    where: str | None = None,
) -> Joined:
    """Each sample of a build with the streams that another build has of the same sample: a part for `curate.mix`.

        both = curate.join("build/clips", "build/clips-depth", miss="null")
        for batch in curate.mix([both], view=MaskedView(128, 128), batch=32, on_end="stop"):
            ...

    The order is that of the first build. The ids of both are read once, those of the second from all of its splits;
    what is kept is one number for each sample of the first.

    Args:
        left: the first build: its folder, its `s3://` uri, or `BuildPart`.
        right: the second build.
        split: of the first build; the second may have split its samples otherwise.
        miss: what becomes of samples that the second build lacks. `error`: they are refused, here and now; `skip`: they
            are left out; `null`: the second build's streams are missing modalities of them.
        streams: of the second build; those that the first one lacks where None.
        where: only samples of the first build of which this is true, as of `curate.stream`.

    Raises:
        CurateError: no finished build; a stream that both have, or the second lacks; a sample that it lacks.
    """
    part = left if isinstance(left, BuildPart) else BuildPart(left, split)
    return Joined(part if where is None else Selected(part, where), right, miss, streams)


class Joined:
    """What `join` makes: a `Part` of the first build's samples.

    Attributes:
        missing: samples of the first build that the second one lacks.
    """

    def __init__(
        self,
        left: BuildPart | Selected,
        right: Store | Path | str,
        miss: Miss = "error",
        streams: Sequence[str] | None = None,
    ) -> None:
        manifest = read_manifest(right)
        self._left = left
        self._right = [BuildPart(right, s.name) for s in manifest.splits]
        mine = {s.name for s in left.manifest.streams}
        theirs = {s.name: s for s in streams_of(manifest)}
        names = [n for n in theirs if n not in mine] if streams is None else list(streams)
        for name in names:
            if name not in theirs:
                raise CurateError(f"{right} has no stream {name!r}", f"it has: {', '.join(theirs)}")
            if name in mine:
                raise CurateError(f"both builds have a stream {name!r}", "say which are wanted of the second: streams=")
        self._specs = [theirs[name] for name in names]
        shown = [entry for entry in manifest.streams if entry.name in names]
        self.manifest = union([left.manifest, manifest.model_copy(update={"streams": shown})])
        self.name, self.split = left.name, left.split
        known, numbers = _index(self._right)
        wanted = _ids(left)
        at = look_up(known, wanted)
        self.missing = int((at < 0).sum())
        if self.missing and miss == "error":
            one = name_of(wanted[at < 0][0])
            raise CurateError(
                f"{right} lacks {self.missing} of {left.samples} samples, {one} the first",
                "join what both have with miss='skip', or all with miss='null'",
            )
        self._partner = np.where(at >= 0, numbers[at], -1) if len(numbers) else at
        self._rows = np.flatnonzero(at >= 0) if self.missing and miss == "skip" else None
        self.samples, self.shard_rows = left.samples, left.shard_rows
        if self._rows is not None:
            ends = np.searchsorted(self._rows, np.cumsum([0, *left.shard_rows]))
            self.samples, self.shard_rows = len(self._rows), np.diff(ends).tolist()
        self.row_bytes = left.row_bytes + max((part.row_bytes for part in self._right), default=0)
        self.digest = digest_of_rows([left.digest, *(part.digest for part in self._right), miss, *names])

    def open(self, streams: Sequence[str]) -> Rowed:
        specs = [s for s in self._specs if s.name in streams]
        names = [s.name for s in specs]
        right = [part.open(names) for part in self._right if names]
        return _JoinedRows(self._left.open(streams), right, self._partner, self._rows, specs)


class _JoinedRows:
    def __init__(
        self, left: Rowed, right: Sequence[Rowed], partner: Ints, rows: Ints | None, specs: Sequence[StreamSpec]
    ) -> None:
        self._left, self._right, self._partner, self._rows, self._specs = left, right, partner, rows, specs

    def take(self, index: Ints) -> Rows:
        if self._rows is not None:
            index = self._rows[index]
        rows = self._left.take(index)
        return Rows(rows.keys, {**rows.streams, **self._beside(self._partner[index])})

    def readable(self, index: Ints) -> NDArray[np.bool_]:
        if self._rows is not None:
            index = self._rows[index]
        fits, partner = self._left.readable(index), self._partner[index]
        for number, reader in enumerate(self._right):
            here = self._of(partner, number)
            fits[here] &= reader.readable(partner[here] & _ROW)
        return fits

    @property
    def damaged(self) -> Mapping[str, str]:
        return {path: said for reader in (self._left, *self._right) for path, said in reader.damaged.items()}

    def fetch(self, shards: Iterable[int]) -> None:
        self._left.fetch(shards)

    def _of(self, partner: Ints, number: int) -> Ints:
        """Which of some rows have their partner in a split of the second build."""
        return np.flatnonzero((partner >= 0) & (partner >> _ROW_BITS == number))

    def _beside(self, partner: Ints) -> dict[str, Ragged]:
        """Streams of the second build's rows `partner`, in this order; absent where it is -1."""
        parts = {s.name: [absent(s, 1)] for s in self._specs}
        place = np.zeros(len(partner), np.int64)
        at = 1
        for number, reader in enumerate(self._right):
            here = self._of(partner, number)
            if len(here):
                taken = reader.take(partner[here] & _ROW)
                for name, found in parts.items():
                    found.append(taken.streams[name])
                place[here] = np.arange(at, at + len(here))
                at += len(here)
        return {name: Ragged.picked(found, place) for name, found in parts.items()}


def _index(parts: Sequence[BuildPart]) -> tuple[Keys, Ints]:
    """The ids of all rows of some splits, sorted, and the number of each one's row."""
    ids = [EMPTY, *(_ids(part) for part in parts)]
    numbers = [(split << _ROW_BITS) + np.arange(len(one)) for split, one in enumerate(ids[1:])]
    keys = np.concatenate(ids)
    first, last = words(keys)
    order = np.lexsort((last, first))
    return keys[order], np.concatenate([np.empty(0, np.int64), *numbers])[order]


def _ids(part: BuildPart | Selected) -> Keys:
    return np.concatenate([EMPTY, *map(keys_of, part.column("sample_id"))])
