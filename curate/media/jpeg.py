"""JPEG by libjpeg-turbo, which says whether every coded pixel was there. Pillow's libjpeg keeps that to itself."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

_EOI = b"\xff\xd9"
_PROGRESSIVE = (0xC2, 0xCA)
"""Start of frame with Huffman and with arithmetic coding."""

_SOS = b"\xff\xda"
_RESTARTS = re.compile(rb"\xff[\xd0-\xd7\xda]")
_NO_END = "Premature end of JPEG file"
_HEADER = re.compile("bad ICC marker|JFIF revision|Adobe color transform|Invalid SOS parameters")
"""Warnings of headers that browsers pass over; Pillow has read the profile."""

_MISNUMBERED = "instead of RST"
_JUNK = re.compile(r"(\d+) extraneous bytes before marker 0xd9")
_TEXT = re.compile(rb"[\t-\r -~\0]+")
_FEW = 4
"""Bytes of any kind that may stand before an EOI: writers of JPEG have left so many there."""

_SPACES = {"L": ("GRAY", "L"), "RGB": ("RGB", "RGB"), "CMYK": ("CMYK", "CMYK;I")}
"""By Pillow's mode: libjpeg-turbo's name, and Pillow's of the bytes. Four channels are read as Adobe writes them,
inverted, as browsers do."""


def decode_jpeg(data: bytes, mode: str, size: tuple[int, int]) -> Image:
    """The first JPEG image in `data`, whole, of a `mode` (`L`, `RGB`, `CMYK`) and a size (width, height) that its
    header states, with the pixels that Pillow gives.

    No damage, for all pixels are there: a missing EOI marker, text, filler or a few bytes before it, anything after it,
    wrong numbers of restart markers, oddities of the headers. All else that libjpeg-turbo warns of is: coded data that
    end too early, whether or not a tool put an EOI there or filler in place of the rest, codes left over, codes that
    are none, restart intervals that are missing (ITU-T T.81).

    Raises ValueError, with the decoder's words.
    """
    from PIL import Image

    name, raw = _SPACES[mode]
    pixels = _decoded(data, name, _scratch(size[0] * size[1] * len(mode)))
    if pixels.shape[1::-1] != size:
        raise ValueError("its headers state two sizes")
    return Image.frombytes(mode, size, pixels, "raw", raw, 0, 1)


def check_strips(tags: Mapping[int, Any], data: bytes) -> None:
    """Raise ValueError, as `decode_jpeg`, where a strip or tile of a TIFF that is JPEG (TIFF Technical Note 2) lacks
    pixels: libtiff fills it with grey.

    Args:
        tags: values by number, of the page.
        data: the whole file.
    """
    import simplejpeg

    tables = bytes(tags.get(347, b""))
    offsets, counts = (tags.get(strips, tags.get(tiles, ())) for strips, tiles in ((273, 324), (279, 325)))
    for offset, count in zip(offsets, counts, strict=True):
        strip = tables[:-2] + data[offset + 2 : offset + count] if tables else data[offset : offset + count]
        _decoded(strip, "CMYK" if simplejpeg.decode_jpeg_header(strip)[2] in ("CMYK", "YCCK") else "GRAY", None)


def _decoded(data: bytes, name: str, buffer: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    import simplejpeg

    ended = True
    for _ in range(5):
        try:
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, name, buffer=buffer)
            return pixels
        except ValueError as error:
            # the decoder tells its first warning only: what it warns of is taken away, and it is asked again
            warning = str(error)
            junk = _JUNK.search(warning)
            if junk:
                data = _without_junk(data, int(junk[1]), ended) + _EOI
            elif _HEADER.search(warning):
                data = _plain(data, name)
            elif _MISNUMBERED in warning:
                data = _renumbered(data)
            elif warning == _NO_END and _is_complete(data):
                data += _EOI
                ended = False
            else:
                raise
    raise ValueError(warning)


_kept = threading.local()
_KEPT_BYTES = 16 << 20


def _scratch(count: int) -> NDArray[np.uint8] | None:
    """Memory of `count` bytes that is used again by this thread: to map and to zero anew what each image takes costs
    as much as a third of its decoding. None for large images, which take their own."""
    if count > _KEPT_BYTES:
        return None
    if len(getattr(_kept, "memory", ())) < count:
        _kept.memory = np.empty(count, np.uint8)
    memory: NDArray[np.uint8] = _kept.memory
    return memory


def _without_junk(data: bytes, count: int, ended: bool) -> bytes:
    """The coded data without the `count` bytes that no pixel needed before the EOI.

    Where they begin with one value over and over, all bytes of it are cut off: the rest of a download into a file of
    its full size is zeros, and the decoder has taken those for codes. If it needed them it now says that the data end
    too early.

    Args:
        ended: True if the file has an EOI. If so what stands before it is text, filler or a few bytes; else the coded
            data are damaged, and the decoder has lost its place.

    Raises ValueError for damaged data.
    """
    end = _end(data)
    start = max(2, end - count)
    junk, coded = data[start:end], data[:start]
    value = junk[:1]
    if junk.startswith(value * min(len(junk), 4 * _FEW)):
        kept = coded.rstrip(value)
        stuffed = value == b"\0" and kept.endswith(b"\xff") and kept != coded  # 0xff 0 is one coded byte
        junk, coded = junk.lstrip(value), kept + value if stuffed else kept
    if ended and len(junk) > _FEW and _TEXT.fullmatch(junk) is None:
        raise ValueError(f"Corrupt JPEG data: {count} extraneous bytes before the end, the decoder has lost its place")
    return coded


def _end(data: bytes) -> int:
    """Where the EOI marker of the first image begins."""
    return next((at for at, marker, _ in _markers(data) if marker == 0xD9), len(data))


def _plain(data: bytes, name: str) -> bytes:
    """The data with headers that mean the same to libjpeg-turbo and that it does not warn of."""
    out, done = [], 0
    sequential = True
    for at, marker, segment in _markers(data):
        end = at + 4 + len(segment)
        sequential = sequential and marker not in _PROGRESSIVE
        if marker == 0xE2:
            changed = b""
        elif marker == 0xE0 and segment.startswith(b"JFIF"):
            changed = data[at : at + 9] + b"\1" + data[at + 10 : end]
        elif marker == 0xEE and segment.startswith(b"Adobe") and segment[-1] > 2:
            changed = data[at : end - 1] + (b"\2" if name == "CMYK" else b"\1")
        elif marker == 0xDA and sequential:
            changed = data[at : end - 3] + b"\0\x3f\0"
        else:
            continue
        out += [data[done:at], changed]
        done = end
    return b"".join([*out, data[done:]])


def _renumbered(data: bytes) -> bytes:
    """The data with the restart markers of each scan numbered in order: where none is missing every pixel decodes, and
    else the data end too early."""
    begin = next((at for at, marker, _ in _markers(data) if marker == 0xDA), len(data))
    count = 0

    def number(found: re.Match[bytes]) -> bytes:
        nonlocal count
        count = 0 if found[0] == _SOS else count + 1
        return found[0] if found[0] == _SOS else bytes([0xFF, 0xD0 + (count - 1) % 8])

    return data[:begin] + _RESTARTS.sub(number, data[begin:])


def _is_complete(data: bytes) -> bool:
    """True if the scans code every coefficient to its last bit: of a progressive file that was cut off between two
    scans only this tells (ITU-T T.81, G.1.1.1)."""
    pending: dict[int, set[int]] = {}
    for _, marker, segment in _markers(data):
        if marker in _PROGRESSIVE:
            pending = {component: set(range(64)) for component in segment[6::3]}
        elif marker == 0xDA and len(segment) == 2 * segment[0] + 4:
            start, end, approximation = segment[-3:]
            if approximation & 15 == 0:
                for component in segment[1:-3:2]:
                    pending.get(component, set()).difference_update(range(start, end + 1))
    return not any(pending.values())


def _markers(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Position, code and content of each marker segment, from the first after SOI to EOI."""
    at = 2
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8:  # stuffing, and markers without content
            at += 2
        else:
            size = int.from_bytes(data[at + 2 : at + 4], "big")
            yield at, marker, data[at + 4 : at + 2 + size]
            if marker == 0xD9:
                return
            at += 2 + size
