"""Pieces: fixed ranges of the input, named by their content. One piece is one block in Ray and one file a stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curate.schema.ids import digest_of_rows, key_of

MOST_TIMED = 32
"""Most videos, sounds, or clips of them in one piece, whatever the recipe's `partition`. Each costs as much as tens of
images: so a few of them make work for several CPUs, and what a crash undoes stays small."""

MOST_BYTES = 128 << 20
"""Most bytes of records in one piece, as far as listing tells them: its media become one tar."""

BATCH_ROWS = 32
"""Samples of a piece that are decoded and shown to models together. Their views are what a worker holds in memory, so
that does not grow with `partition`; and what shares a batch follows from the place in the piece (law 6)."""

KEY_HEX = 16
"""Hex digits of a piece's key in file names: 64 bits, and the piece's number stands beside them."""


@dataclass(frozen=True)
class Piece:
    """A range of records or samples.

    Attributes:
        number: place of the range in the input, e.g. `00003` or, cut from a piece of records, `00003-01`.
        key: digest of what is in the range, in order.
        path: file of the stage before that holds the rows, relative to the build ("" for listed records).
        start, rows: the range in that file.
    """

    number: str
    key: str
    path: str
    start: int
    rows: int

    def file(self, folder: str, made_by: Any, suffix: str = "parquet") -> str:
        """Path of this piece's file of a stage, relative to the build.

        Args:
            folder: the stage's folder, e.g. `signals/sharpness`.
            made_by: JSON value of all that the result depends on beside the rows: code version, options, model digest.
        """
        return f"{folder}/part-{self.number}-{key_of([self.key, made_by])[:KEY_HEX]}.{suffix}"


def split(
    rows: Sequence[str],
    size: int,
    path: str = "",
    prefix: str = "",
    costs: Sequence[int] | None = None,
    most: int = 0,
) -> list[Piece]:
    """Cut `rows` (each the identity of one record or sample) into pieces, in order.

    Args:
        size: most rows of a piece.
        costs, most: of each row, and most of them in a piece; one row alone may cost more.
    """
    return [
        Piece(
            number=f"{prefix}-{number:03d}" if prefix else f"{number:05d}",
            key=digest_of_rows(rows[part.start : part.stop]),
            path=path,
            start=part.start,
            rows=len(part),
        )
        for number, part in enumerate(parts(costs or [0] * len(rows), size, most))
    ]


def parts(costs: Sequence[int], size: int, most: int) -> Iterator[range]:
    """Ranges of at most `size` items that cost at most `most` together, in order; one item alone may cost more.

    Where a part ends follows from the items up to there, so appending to them changes the last part only.
    """
    start, spent = 0, 0
    for i, cost in enumerate(costs):
        if i > start and (i - start == size or spent + cost > most):
            yield range(start, i)
            start, spent = i, 0
        spent += cost
    if start < len(costs):
        yield range(start, len(costs))
