"""Recordings of audio that follow each other in one file, each with headers of its own (`cat a.flac b.flac`).

Chained Ogg is a format (RFC 3533, section 4). For the others players hear the first recording only, or its clock for
all; here each is read as the file it was, so that every second that decodes is heard.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

_OGG_HEADER = 27
_OGG_BEGINS = 0x02
_FLAC = b"fLaC\x00\x00\x00\x22"
"""The marker and the header of STREAMINFO where other metadata blocks follow it (RFC 9639, 8.1), and where none do."""
_FLAC_ALONE = b"fLaC\x80\x00\x00\x22"


def links(data: bytes) -> list[bytes]:
    """The recordings of a file of Ogg, FLAC, WAV or AIFF, in order; the data itself for one, and for other formats."""
    if data.startswith(b"OggS"):
        found = _ogg(data)
    elif data.startswith((b"fLaC", b"ID3")):
        found = _flac(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        found = _chunks(data, "little")
    elif data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        found = _chunks(data, "big")
    else:
        return [data]
    starts = [0, *sorted(found)]
    if len(starts) == 1:
        return [data]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _ogg(data: bytes) -> Iterator[int]:
    """A link begins with the pages that begin its streams; a page that begins one after others is of the next link."""
    inside = False
    at = 0
    while (at := data.find(b"OggS", at)) >= 0 and at + _OGG_HEADER <= len(data):
        begins = bool(data[at + 5] & _OGG_BEGINS)
        if begins and inside:
            yield at
        inside = not begins
        segments = data[at + 26]
        at += _OGG_HEADER + segments + sum(data[at + _OGG_HEADER : at + _OGG_HEADER + segments])


def _flac(data: bytes) -> Iterator[int]:
    first = data.find(b"fLaC")
    for magic in (_FLAC, _FLAC_ALONE):
        at = first
        while first >= 0 and (at := data.find(magic, at + 1)) >= 0:
            yield at


def _chunks(data: bytes, order: Literal["little", "big"]) -> Iterator[int]:
    """A RIFF or IFF file ends with its outer chunk, of a size that is stated; another may follow it."""
    at = 0
    while True:
        size = int.from_bytes(data[at + 4 : at + 8], order)
        at += 8 + size + size % 2
        if not size or data[at : at + 4] != data[:4] or data[at + 8 : at + 11] != data[8:11]:
            return
        yield at
