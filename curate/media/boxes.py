"""Boxes of ISO BMFF (ISO/IEC 14496-12, 4.2), which MP4, MOV, AVIF and JPEG 2000 files are made of, and elements of EBML
(RFC 8794), which Matroska is; their sizes are checked, for files are untrusted."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

MOST = 100_000
"""Boxes or elements that are looked at in one file: a hostile one may hold a hundred million empty ones."""

Bytes = bytes | memoryview


class Box(NamedTuple):
    """A box.

    Attributes:
        kind: its type.
        body: what of its content is there.
        size: bytes that it states, with its header.
        whole: True if the data holds all of it.
    """

    kind: bytes
    body: memoryview
    size: int
    whole: bool


def boxes(data: Bytes, budget: Iterator[int] | None = None) -> Iterator[Box]:
    """The boxes that follow each other in `data`, without what is inside them; ends where a size cannot be true.

    Args:
        budget: as many boxes as it has items are looked at, over all calls that share it; None: `MOST`.
    """
    view = memoryview(data)
    budget = iter(range(MOST)) if budget is None else budget
    at = 0
    while at + 8 <= len(view) and next(budget, None) is not None:
        size, header = number(view[at : at + 4]), 8
        if size == 1:
            size, header = number(view[at + 8 : at + 16]), 16
        elif size == 0:
            size = len(view) - at
        kind = bytes(view[at + 4 : at + 8])
        if size < header or not kind.isascii():
            return
        yield Box(kind, view[at + header : at + size], size, at + size <= len(view))
        at += size


def box(data: Bytes, *path: bytes, budget: Iterator[int] | None = None) -> memoryview:
    """The content of the first box of each type of `path`, each within the last; empty where one is missing."""
    body = memoryview(data)
    for kind in path:
        body = next((found.body for found in boxes(body, budget) if found.kind == kind), body[:0])
    return body


def number(value: Bytes, signed: bool = False) -> int:
    """Big-endian."""
    return int.from_bytes(value, "big", signed=signed)


def aperture(clap: Bytes, width: int, height: int) -> tuple[Fraction, Fraction, Fraction, Fraction]:
    """The edges (left, top, right, bottom) in pixels of what a `clap` box (12.1.4) shows: it states the size, and the
    offset of its centre from that of the image, in fractions. Raises ValueError where it states none."""
    fields = [number(clap[at : at + 4], signed=True) for at in range(0, 32, 4)]
    if len(clap) < 32 or min(fields[1::2]) <= 0:
        raise ValueError("its clean aperture is none")
    wide, high, right, down = (Fraction(n, d) for n, d in zip(fields[::2], fields[1::2], strict=True))
    left, top = (width - wide) / 2 + right, (height - high) / 2 + down
    return left, top, left + wide, top + high


def primary_properties(data: Bytes) -> list[Box]:
    """The properties of the primary item of an AVIF or HEIF file (ISO/IEC 23008-12, 9.3.1), in their order."""
    meta = box(data, b"meta")[4:]
    primary = box(meta, b"pitm")
    item = number(primary[4 : 8 if number(primary[:1]) else 6])
    container = list(boxes(box(meta, b"iprp", b"ipco")))
    found = _associations(box(meta, b"iprp", b"ipma")).get(item, [])
    return [container[index - 1] for index in found if 1 <= index <= len(container)]


def _associations(ipma: memoryview) -> dict[int, list[int]]:
    """For each item the numbers of its properties, from 1 (ISO/IEC 14496-12, 8.11.14: ItemPropertyAssociation)."""
    wide_item, wide_index = bool(number(ipma[:1])), bool(number(ipma[1:4]) & 1)
    out: dict[int, list[int]] = {}
    at = 8
    while at < len(ipma):
        size = 4 if wide_item else 2
        item, count = number(ipma[at : at + size]), number(ipma[at + size : at + size + 1])
        at += size + 1
        size = 2 if wide_index else 1
        mask = 0x7FFF if wide_index else 0x7F  # the first bit says whether the property is essential
        out[item] = [number(ipma[at + i * size : at + (i + 1) * size]) & mask for i in range(count)]
        at += size * count
    return out


def sequence_properties(data: Bytes) -> list[Box]:
    """The boxes of the first AV1 sample entry of an image sequence (`avis`), e.g. its `colr`."""
    tracks = (found.body for found in boxes(box(data, b"moov")) if found.kind == b"trak")
    entries = (entry for track in tracks for entry in sample_entries(track))
    return next((list(boxes(entry.body[ENTRY:])) for entry in entries if entry.kind == b"av01"), [])


ENTRY = 78
"""Bytes of a VisualSampleEntry before its boxes (12.1.3.2); width and height lie at 24."""


def sample_entries(track: Bytes, budget: Iterator[int] | None = None) -> Iterator[Box]:
    """The boxes of the sample description (8.5.2) of a `trak` box."""
    return boxes(box(track, b"mdia", b"minf", b"stbl", b"stsd", budget=budget)[8:], budget)


def elements(data: Bytes, budget: Iterator[int] | None = None) -> Iterator[tuple[int, memoryview, int | None]]:
    """Of the EBML elements that follow each other: id, what of the content is there, and its stated size in bytes, None
    where that is unknown: then it reaches to the end."""
    view = memoryview(data)
    budget = iter(range(MOST)) if budget is None else budget
    at = 0
    while at < len(view) and next(budget, None) is not None:
        id_length, size_at = _length(view[at]), at + _length(view[at])
        if size_at >= len(view):
            return
        size_length = _length(view[size_at])
        begin = size_at + size_length
        if id_length > 4 or size_length > 8 or begin > len(view):
            return
        most = (1 << 7 * size_length) - 1
        stated = number(view[size_at:begin]) & most
        size = None if stated == most else stated
        end = len(view) if size is None else begin + size
        yield number(view[at:size_at]), view[begin:end], size
        at = end


def _length(first: int) -> int:
    """Bytes of a variable-size integer by its first one (RFC 8794, 4.1); 9 where that is zero."""
    return 9 - first.bit_length()
