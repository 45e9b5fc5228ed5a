"""Sequences packed into rows of one length, with what attention needs to keep them apart; lengths are known without
reading ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from curate.schema.errors import CurateError
from curate.shards.draw import Draw
from curate.shards.grouped import GroupedStream
from curate.shards.memory import Ints
from curate.shards.sequence import PAD, SequenceView
from curate.storage import Store

TooLong = Literal["error", "skip"]


class PackedStream(GroupedStream):
    """Iterates over packed rows of one split of a build; see `packed`. One iterator at a time.

    Attributes:
        vocabulary: of its tokens.
    """

    window: ClassVar[int] = 4096

    def __init__(
        self,
        build: Store | Path | str,
        view: SequenceView,
        length: int,
        split: str,
        *,
        too_long: TooLong,
        **options: Any,
    ) -> None:
        if length < 3:
            raise CurateError(f"rows of {length} tokens: the shortest sequence has 3")
        if too_long not in get_args(TooLong):
            raise CurateError(f"too_long={too_long!r}", f"it is one of {', '.join(get_args(TooLong))}")
        super().__init__(build, view, split, size=length, **options)
        self._view = view.bind(self.manifest)
        self.vocabulary = self._view.vocabulary
        self._too_long = too_long

    def padding(self) -> float:
        """The share of tokens of this epoch that are padding, 0 to 1; reads the lengths of all of its samples."""
        rows = used = 0
        epoch = self._next()[0]
        for window in range(0, self._part.samples, self.window):
            rows += len(self._groups(epoch, window))
            used += int(self._fitting(epoch, self._stored(epoch, window))[1].sum())
        return 1 - used / max(1, rows * self._size)

    def _fitting(self, epoch: int, index: Ints) -> tuple[Ints, Ints]:
        """Those of some samples whose sequences fit into a row, and how long these are."""
        reader = self._open()
        names = reader.names(index)
        lengths = self._view.plan(reader.steps(index), names, Draw(self._seed, epoch))[2]
        long = lengths > self._size
        if long.any() and self._too_long == "error":
            at = int(np.argmax(long))
            raise CurateError(
                f"sample {names[at]} has {lengths[at]} tokens, more than the {self._size} of a row",
                'give a greater length, show fewer frames of it (the view\'s `frames`), or too_long="skip"',
            )
        return index[~long], lengths[~long]

    def _grouped(self, epoch: int, index: Ints) -> list[Ints]:
        from curate.shards.kernels import best_fit  # numba, which takes a second to import

        index, lengths = self._fitting(epoch, index)
        into, count = best_fit(lengths, self._size)
        return np.split(index[np.argsort(into, kind="stable")], np.cumsum(np.bincount(into, minlength=count))[:-1])

    def _made(self, groups: Sequence[Ints], draw: Draw) -> dict[str, Any]:
        from curate.shards.kernels import lay_out

        counts = [len(row) for row in groups]
        made = self._view.batch(self._open().take(np.concatenate(groups)), draw)
        starts: Ints = made["offsets"]
        row: Ints = np.repeat(np.arange(len(groups)), counts)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        begin: Ints = starts[:-1] - starts[first]
        number = (np.arange(len(row)) - first).astype(np.int64)
        shape = (len(groups), self._size)
        tokens, loss = np.full(shape, PAD, np.int64), np.zeros(shape, np.bool_)
        positions, documents = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        lay_out(starts, made["tokens"], made["loss"], row, begin, number, (tokens, loss, positions, documents))
        ends = np.bincount(row, np.diff(starts), len(groups)).astype(np.int64)
        whole = np.arange(len(groups)) * self._size
        bounds = np.unique(np.concatenate([row * self._size + begin, whole + ends, [tokens.size]])).astype(np.int32)
        return {
            "sample_id": made["sample_id"],
            "tokens": tokens,
            "loss": loss,
            "positions": positions,
            "documents": documents,
            "cu_seqlens": bounds,
            "max_seqlen": int(np.diff(bounds).max()),
        }
