"""Boxes of ISO BMFF (ISO/IEC 14496-12, 4.2), which AVIF and JPEG 2000 files are made of, with their sizes checked."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

_MAX_BOXES = 4096
"""Boxes of one level that are looked at: a file of boxes of 8 bytes would otherwise take minutes."""

Property = tuple[bytes, bytes]
"""A box's type and its content."""


def boxes(data: bytes) -> Iterator[Property]:
    """The boxes that lie in `data` whole, one after the other, without what is inside them."""
    at = 0
    for _ in range(_MAX_BOXES):
        size, kind, header = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8], 8
        if size == 1:
            size, header = int.from_bytes(data[at + 8 : at + 16], "big"), 16
        elif size == 0:
            size = len(data) - at
        if size < header or at + size > len(data):
            return
        yield kind, data[at + header : at + size]
        at += size


def box(data: bytes, *path: bytes) -> bytes:
    """The content of the first box of each type of `path`, each within the last; empty where one is missing."""
    for kind in path:
        data = next((content for found, content in boxes(data) if found == kind), b"")
    return data


def primary_properties(data: bytes) -> list[Property]:
    """The properties of the primary item of an AVIF or HEIF file (ISO/IEC 23008-12, 9.3.1), in their order."""
    meta = box(data, b"meta")[4:]
    primary = box(meta, b"pitm")
    wide = primary[:1] != b"\x00"
    item = int.from_bytes(primary[4 : 8 if wide else 6], "big")
    container = list(boxes(box(meta, b"iprp", b"ipco")))
    found = _associations(box(meta, b"iprp", b"ipma")).get(item, [])
    return [container[index - 1] for index in found if 1 <= index <= len(container)]


def _associations(ipma: bytes) -> dict[int, list[int]]:
    """For each item the numbers of its properties, from 1 (ISO/IEC 14496-12, 8.11.14: ItemPropertyAssociation)."""
    wide_item, wide_index = ipma[:1] != b"\x00", bool(int.from_bytes(ipma[1:4], "big") & 1)
    out: dict[int, list[int]] = {}
    at = 8
    while at < len(ipma):
        size = 4 if wide_item else 2
        item, count = (
            int.from_bytes(ipma[at : at + size], "big"),
            int.from_bytes(ipma[at + size : at + size + 1], "big"),
        )
        at += size + 1
        size = 2 if wide_index else 1
        mask = 0x7FFF if wide_index else 0x7F  # the first bit says whether the property is essential
        out[item] = [int.from_bytes(ipma[at + i * size : at + (i + 1) * size], "big") & mask for i in range(count)]
        at += size * count
    return out


def sequence_properties(data: bytes) -> list[Property]:
    """The boxes of the first AV1 sample entry of an image sequence (`avis`), e.g. its `colr`."""
    moov = box(data, b"moov")
    for kind, track in boxes(moov):
        entries = box(track, b"mdia", b"minf", b"stbl", b"stsd")[8:] if kind == b"trak" else b""
        for entry, content in boxes(entries):
            if entry == b"av01":
                return list(boxes(content[78:]))  # after the fields of VisualSampleEntry (12.1.3)
    return []


def clean_aperture(clap: bytes, width: int, height: int) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) in pixels that a `clap` property (ISO/IEC 14496-12, 12.1.4) shows.

    Raises ValueError where it does not lie within the image, or not on whole pixels (as MIAF asks, ISO/IEC 23000-22,
    7.3.6.7).
    """
    if len(clap) < 32:
        raise ValueError("its clean aperture is cut off")
    fields = [int.from_bytes(clap[i : i + 4], "big", signed=True) for i in range(0, 32, 4)]
    if min(fields[1::2]) <= 0:
        raise ValueError("its clean aperture divides by zero")
    wide, high, x, y = (Fraction(n, d) for n, d in zip(fields[::2], fields[1::2], strict=True))
    left, top = (width - wide) / 2 + x, (height - high) / 2 + y
    edges = (left, top, left + wide, top + high)
    inside = 0 <= left < edges[2] <= width and 0 <= top < edges[3] <= height
    if not inside or any(edge.denominator != 1 for edge in edges):
        raise ValueError("its clean aperture is not a box of whole pixels within it")
    return int(left), int(top), int(edges[2]), int(edges[3])
