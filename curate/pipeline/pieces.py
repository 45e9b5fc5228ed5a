"""Pieces: fixed ranges of the input, named by their content. One piece is one block in Ray and one file a stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from curate.schema.ids import digest_of_rows, key_of

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


def split(rows: Sequence[str], size: int, path: str = "", prefix: str = "") -> list[Piece]:
    """Cut `rows` (each the identity of one record or sample) into pieces of at most `size`."""
    return [
        Piece(
            number=f"{prefix}-{start // size:03d}" if prefix else f"{start // size:05d}",
            key=digest_of_rows(rows[start : start + size]),
            path=path,
            start=start,
            rows=len(rows[start : start + size]),
        )
        for start in range(0, len(rows), size)
    ]
