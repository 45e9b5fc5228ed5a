"""JPEG by libjpeg-turbo, which says whether every coded pixel was there. Pillow's libjpeg keeps that to itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_EOI = b"\xff\xd9"
_NO_END = "Premature end of JPEG file"
_JUNK = re.compile(r"(\d+) extraneous bytes before marker 0xd9")

_SPACES = {"L": ("GRAY", "L"), "RGB": ("RGB", "RGB"), "CMYK": ("CMYK", "CMYK;I")}
"""By Pillow's mode: libjpeg-turbo's name, and Pillow's of the bytes. Four channels are read as Adobe writes them,
inverted, as browsers do."""


def decode_jpeg(data: bytes, mode: str) -> Image:
    """The first JPEG image in `data`, whole: `L`, `RGB` or `CMYK`, with the pixels that Pillow gives.

    A missing EOI marker, and bytes of no meaning before it or after it, are no damage: all pixels are there. Anything
    else that libjpeg-turbo warns of is (ITU-T T.81): coded data that end too early, an EOI that a tool put behind them
    or not, codes that are none, restart markers out of order.

    Raises ValueError, with the decoder's words.
    """
    import simplejpeg
    from PIL import Image

    name, raw = _SPACES[mode]
    for _ in range(4):
        try:
            pixels = simplejpeg.decode_jpeg(data, name)
            return Image.frombuffer(mode, (pixels.shape[1], pixels.shape[0]), pixels, "raw", raw, 0, 1)
        except ValueError as error:
            # the decoder tells its last warning only: what it warns of is taken away, and it is asked again
            warning = str(error)
            junk = _JUNK.search(warning)
            if junk:
                data = data[: max(2, _end(data) - int(junk[1]))] + _EOI
            elif warning == _NO_END and _is_complete(data):
                data += _EOI
            else:
                raise
    raise ValueError(warning)


def _end(data: bytes) -> int:
    """Where the EOI marker of the first image begins."""
    return next((at for at, marker, _ in _markers(data) if marker == 0xD9), len(data))


def _is_complete(data: bytes) -> bool:
    """Whether the scans code every coefficient to its last bit: of a progressive file that was cut off between two
    scans only this tells (ITU-T T.81, G.1.1.1)."""
    pending: dict[int, set[int]] = {}
    for _, marker, segment in _markers(data):
        if marker in (0xC2, 0xCA):  # progressive, Huffman or arithmetic
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
