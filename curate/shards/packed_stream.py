"""Sequences packed into rows of one length, with what attention needs to keep them apart; lengths are known without
reading ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.shards.draw import Draw
from curate.shards.grouped import GroupedStream
from curate.shards.memory import Ints
from curate.shards.records import Records
from curate.shards.sequence import PAD, SequenceView
from curate.storage import Store

TooLong = Literal["error", "skip"]
Documents = Literal["sample", "record"]
"""What is kept apart in a row; see `packed`."""


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
        documents: Documents,
        **options: Any,
    ) -> None:
        if length < 3:
            raise CurateError(f"rows of {length} tokens: the shortest sequence has 3")
        if too_long not in get_args(TooLong):
            raise CurateError(f"too_long={too_long!r}", f"it is one of {', '.join(get_args(TooLong))}")
        if documents not in get_args(Documents):
            raise CurateError(f"documents={documents!r}", f"it is one of {', '.join(get_args(Documents))}")
        super().__init__(build, view, split, size=length, records=documents == "record", **options)
        self._view = view.bind(self.manifest)
        self.vocabulary = self._view.vocabulary
        self._too_long = too_long

    def padding(self) -> float:
        """The share of tokens of this epoch that are padding, 0 to 1; reads the lengths of all of its samples."""
        rows = used = 0
        epoch = self._next()[0]
        for window in range(0, self._part.samples, self.window):
            rows += len(self._groups(epoch, window))
            used += int(self._pieces(epoch, self._stored(epoch, window))[2].sum())
        return 1 - used / max(1, rows * self._size)

    def _pieces(self, epoch: int, index: Ints) -> tuple[Ints, Ints, Ints]:
        """Those of some samples whose sequences fit into a row, the piece of a document that each is in, and how long
        each piece is."""
        from curate.shards.kernels import cut_documents  # numba, which takes a second to import

        reader = self._open().rows
        names = reader.names(index)
        lengths = self._view.plan(reader.steps(index), names, Draw(self._seed, epoch))[2]
        long = lengths > self._size
        if long.any() and self._too_long == "error":
            at = int(np.argmax(long))
            raise CurateError(
                f"sample {names[at]} has {lengths[at]} tokens, more than the {self._size} of a row",
                'give a greater length, show fewer frames of it (the view\'s `frames`), or too_long="skip"',
            )
        index, inner = index[~long], lengths[~long] - 2
        piece = cut_documents(self._documents(index), inner, self._size)
        return index, piece, np.bincount(piece, inner).astype(np.int64) + 2

    def _documents(self, index: Ints) -> Ints:
        """The document of each of some samples."""
        return self._part.number[index] if isinstance(self._part, Records) else np.arange(len(index))

    def _grouped(self, epoch: int, index: Ints) -> list[Ints]:
        """Rows: the samples of each, and the piece that each sample is in, int64 `(2, samples)`."""
        from curate.shards.kernels import best_fit

        index, piece, lengths = self._pieces(epoch, index)
        if not len(index):
            return []
        into, count = best_fit(lengths, self._size)
        row = into[piece]
        order = np.argsort(row, kind="stable")
        return np.split(np.stack([index, piece])[:, order], np.cumsum(np.bincount(row, minlength=count))[:-1], axis=1)

    def _made(self, groups: Sequence[Ints], draw: Draw) -> dict[str, Any]:
        from curate.shards.kernels import lay_out

        samples, pieces = np.concatenate(groups, axis=1)
        of: Ints = np.repeat(np.arange(len(groups)), [row.shape[1] for row in groups])
        begins = np.ones(len(samples), np.bool_)
        begins[1:] = (np.diff(pieces) != 0) | (np.diff(of) != 0)
        made = self._view.batch(self._open().rows.take(samples), draw)
        starts, content, counted = _joined(made["offsets"], made["tokens"], made["loss"], begins)
        row = of[begins]
        counts = np.bincount(row, minlength=len(groups))
        first = np.repeat(np.cumsum(counts) - counts, counts)
        begin: Ints = starts[:-1] - starts[first]
        number = (np.arange(len(row)) - first).astype(np.int64)
        shape = (len(groups), self._size)
        tokens, loss = np.full(shape, PAD, np.int64), np.zeros(shape, np.bool_)
        positions, documents = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
        lay_out(starts, content, counted, row, begin, number, (tokens, loss, positions, documents))
        ends = np.bincount(row, np.diff(starts), len(groups)).astype(np.int64)
        whole = np.arange(len(groups)) * self._size
        bounds = np.unique(np.concatenate([row * self._size + begin, whole + ends, [tokens.size]])).astype(np.int32)
        return {
            "sample_id": made["sample_id"],
            "sample_row": of.astype(np.int32),
            "tokens": tokens,
            "loss": loss,
            "positions": positions,
            "documents": documents,
            "cu_seqlens": bounds,
            "max_seqlen": int(np.diff(bounds).max()),
            **{name: made[name] for name in self._view.slots},
        }


def _joined(
    offsets: Ints, tokens: Ints, loss: NDArray[np.bool_], begins: NDArray[np.bool_]
) -> tuple[Ints, Ints, NDArray[np.bool_]]:
    """Sequences as documents of several: what begins and ends a sequence stays only where its document does.

    Args:
        begins: `(samples,)`, True where a document begins.
    """
    if begins.all():
        return offsets, tokens, loss
    kept = np.ones(len(tokens), np.bool_)
    kept[offsets[:-1][~begins]] = False
    kept[offsets[1:-1][~begins[1:]] - 1] = False
    before = np.concatenate(([0], np.cumsum(kept)))
    return np.append(before[offsets[:-1][begins]], before[-1]), tokens[kept], loss[kept]
