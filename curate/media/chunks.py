"""Chunks: what PNG (third edition, 5.3), and RIFF and IFF files such as WAV, AVI, AIFF and WebP, are made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

PNG = b"\x89PNG\r\n\x1a\n"
"""What a PNG begins with."""


class Chunk(NamedTuple):
    """A chunk: its type, where its content begins, and how many bytes it says to have; the data may hold fewer."""

    kind: bytes
    at: int
    size: int


def png_chunks(data: bytes) -> Iterator[Chunk]:
    """The chunks of a PNG; a CRC of four bytes follows each."""
    at = len(PNG)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        yield Chunk(data[at + 4 : at + 8], at + 8, size)
        at += 12 + size


def riff_chunks(data: bytes, at: int = 12, order: Literal["little", "big"] = "little") -> Iterator[Chunk]:
    """The chunks of a RIFF file (of IFF: `order` big) that follow each other from `at` on; each is padded to even."""
    while at + 8 <= len(data):
        size = int.from_bytes(data[at + 4 : at + 8], order)
        yield Chunk(data[at : at + 4], at + 8, size)
        at += 8 + size + size % 2
