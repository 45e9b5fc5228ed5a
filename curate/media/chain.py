"""Recordings that follow each other in one file, each with headers of its own (`cat a.flac b.flac`).

Chained Ogg is a format (RFC 3533, section 4). For the others players show the first recording only, or its clock for
all; here each is read as the file it was, so that every second that decodes is in some sample. Transport and program
streams have no such headers: `clock` finds where they were joined, unless the streams of the second part are others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from curate.media.boxes import boxes
from curate.media.chunks import riff_chunks
from curate.media.mpegts import new_programs

_OGG_HEADER = 27
_OGG_BEGINS = 0x02
_FLAC = b"fLaC\x00\x00\x00\x22"
"""The marker and the header of STREAMINFO where other metadata blocks follow it (RFC 9639, 8.1), and where none do."""
_FLAC_ALONE = b"fLaC\x80\x00\x00\x22"
_FLV = re.compile(rb"FLV\x01[\x01\x04\x05]\x00\x00\x00\x09\x00\x00\x00\x00")
"""The header of an FLV file, with the size of no tag before it."""
_EBML = re.compile(rb"\x1a\x45\xdf\xa3.{1,48}?\x42\x82.(?:matroska|webm)", re.DOTALL)
"""The header of Matroska (RFC 8794, 11.2), with its DocType."""
_ASF_HEADER = b"\x30\x26\xb2\x75\x8e\x66\xcf\x11\xa6\xd9\x00\xaa\x00\x62\xce\x6c"

_ASF = re.compile(re.escape(_ASF_HEADER))


def links(data: bytes) -> list[bytes]:
    """The recordings of a file, in order; the data itself for one, and for formats without headers of their own."""
    starts = [0, *sorted(_found(data))]
    if len(starts) == 1:
        return [data]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]


def _found(data: bytes) -> Iterator[int]:
    """Where recordings after the first begin."""
    if data.startswith(b"OggS"):
        return _ogg(data)
    if data.startswith((b"fLaC", b"ID3")):
        return _flac(data)
    if data[:4] == b"RIFF" and data[8:12] in (b"WAVE", b"AVI "):
        return _chunks(data, "little")
    if data[:4] == b"FORM" and data[8:12] in (b"AIFF", b"AIFC"):
        return _chunks(data, "big")
    if data.startswith(b"\x1a\x45\xdf\xa3"):
        return (found.start() for found in _EBML.finditer(data, 1))
    if data.startswith(b"FLV"):
        return (found.start() for found in _FLV.finditer(data, 1))
    if data.startswith(_ASF_HEADER):
        return (found.start() for found in _ASF.finditer(data, 1))
    if data[4:8] == b"ftyp":
        return _mp4(data)
    if data[:1] == b"\xff" and len(data) > 1 and data[1] & 0xF6 == 0xF0:
        return _adts(data)
    return iter(new_programs(data))


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
    outer, form = data[:4], data[8:11]
    for kind, at, _ in islice(riff_chunks(data, 0, order), 1, None):
        inner = data[at : at + 4]  # OpenDML goes on in RIFF chunks of another one, AVIX
        if kind != outer or inner[:3] != form or inner == b"AVIX":
            return
        yield at - 8


def _mp4(data: bytes) -> Iterator[int]:
    """A file type box after the index and the media of the one before; fragments go on behind a repeated one."""
    found = list(boxes(data))
    if any(box.kind == b"moof" for box in found):
        return
    at = 0
    seen: set[bytes] = set()
    for kind, _, size, _ in found:
        if kind == b"ftyp" and {b"moov", b"mdat"} <= seen:
            yield at
            seen.clear()
        seen.add(kind)
        at += size


def _adts(data: bytes) -> Iterator[int]:
    """Where the sample rate of ADTS frames changes (ISO/IEC 13818-7, 6.2), which FFmpeg stamps by the first one's."""
    at, rate = 0, data[2] & 0x3C
    while (at := data.find(b"\xff", at)) >= 0 and at + 7 <= len(data):
        length = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        if data[at + 1] & 0xF6 != 0xF0 or length < 7:
            at += 1
            continue
        following = data[at + length : at + length + 2]
        if data[at + 2] & 0x3C != rate and len(following) == 2 and following[0] == 0xFF and following[1] & 0xF6 == 0xF0:
            rate = data[at + 2] & 0x3C
            yield at
        at += length
