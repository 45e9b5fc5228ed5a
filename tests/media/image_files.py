"""Image files written byte by byte, for what Pillow cannot write: chunks, tags, boxes and profiles of any content."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from curate.media.images import decode_image

Colour = tuple[float, float, float]


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def flat(colour: tuple[int, ...], size: tuple[int, int] = (8, 8)) -> Image.Image:
    return Image.new("RGB", size, colour)


def photo(size: tuple[int, int] = (96, 64)) -> Image.Image:
    """Smooth and noisy: no two blocks are alike."""
    y, x = np.mgrid[: size[1], : size[0]]
    wave = np.stack([x * 2, y * 3, (x + y) * 1.5], -1) + np.random.default_rng(5).normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray(wave.clip(0, 255).astype(np.uint8))


def first(data: bytes) -> list[int]:
    """The first pixel of what is decoded."""
    return pixels(data)[0]


def pixels(data: bytes) -> list[list[int]]:
    """All pixels, row by row."""
    found: list[list[int]] = np.asarray(decode_image(data)).reshape(-1, 3).tolist()
    return found


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(row: bytes, bits: int = 8, kind: int = 2, width: int = 1, before: bytes = b"", after: bytes = b"") -> bytes:
    """A PNG of one row. `kind` 0: grey, 2: RGB, 3: palette, 4: grey and alpha, 6: RGBA."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + before + data + after + chunk(b"IEND", b"")


def tiff(
    tags: dict[int, tuple[int, ...]], pixels: bytes, order: str = "<", typed: dict[int, str] | None = None
) -> bytes:
    """A TIFF of one strip (or of `tags` 273 and 279); a value is SHORT, or of the type code in `typed` (I: LONG)."""
    wanted: dict[int, tuple[int, ...]] = {259: (1,), 273: (8,), 277: (1,), 278: tags[257], 279: (len(pixels),)} | tags
    where = 8 + len(pixels) + len(pixels) % 2
    extra_at = where + 2 + 12 * len(wanted) + 4
    entries, extra = b"", b""
    for tag in sorted(wanted):
        code = (typed or {}).get(tag, "H")
        content = struct.pack(f"{order}{len(wanted[tag])}{code}", *wanted[tag])
        entries += struct.pack(f"{order}HHI", tag, {"H": 3, "I": 4, "B": 1}[code], len(wanted[tag]))
        if len(content) <= 4:
            entries += content.ljust(4, b"\0")
        else:
            entries += struct.pack(f"{order}I", extra_at + len(extra))
            extra += content + bytes(len(content) % 2)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", where)
    body = head + pixels + bytes(len(pixels) % 2)
    return body + struct.pack(f"{order}H", len(wanted)) + entries + bytes(4) + extra


def bmp(header: bytes, pixels: bytes, gap: bytes = b"") -> bytes:
    """A BMP of a DIB header (with its size), what lies between it and the pixels, and the pixels."""
    at = 14 + len(header) + len(gap)
    return b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + header + gap + pixels


def v5(kind: int, endpoints: Sequence[float] = (0.0,) * 9, gammas: Colour = (0, 0, 0), profile: int = 0) -> bytes:
    """A BITMAPV5HEADER of one RGB pixel whose colour space is `kind`."""
    head = struct.pack("<IiiHHIIiiII", 124, 1, 1, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(16) + struct.pack("<I", kind)
    numbers = struct.pack("<9i", *(round(v * 2**30) for v in endpoints))
    numbers += struct.pack("<3I", *(round(v * 65536) for v in gammas))
    return head + numbers + struct.pack("<IIII", 4, 124 + 4, profile, 0)


def s15(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def curve(gamma: float) -> bytes:
    """`curv` of one exponent (ICC.1:2022, 10.6)."""
    if gamma == 1:
        return b"curv\0\0\0\0" + struct.pack(">I", 0)
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


def srgb_curve(entries: int) -> bytes:
    """`curv` of a table of the curve of sRGB, as HP's profile has with 1,024 entries and `c2` with 26."""
    value = np.linspace(0, 1, entries)
    light = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    return b"curv\0\0\0\0" + struct.pack(f">I{entries}H", entries, *np.rint(light * 65535).astype(int))


def parametric() -> bytes:
    """`para` of the curve of sRGB (ICC.1:2022, 10.18), as version 4 has it."""
    numbers = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    return b"para\0\0\0\0\0\3\0\0" + b"".join(map(s15, numbers))


SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
"""Red, green and blue of sRGB as XYZ of D50 (as in HP's profile)."""

ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
"""Those of Adobe RGB (1998)."""


def icc(
    curves: bytes,
    description: str = "",
    primaries: Sequence[Colour] = SRGB,
    space: bytes = b"RGB ",
    kind: bytes = b"mntr",
    version: int = 2,
    extra: dict[bytes, bytes] | None = None,
) -> bytes:
    """An ICC profile of one curve for all channels, and the tags in `extra`."""
    tags = {b"wtpt": b"XYZ \0\0\0\0" + b"".join(map(s15, (0.9642, 1, 0.8249))), b"cprt": b"text\0\0\0\0x\0"}
    name = description.encode()
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + bytes(1 + 78)
    tags |= extra or {}
    if space == b"GRAY":
        tags[b"kTRC"] = curves
    elif space == b"RGB ":
        for letter, xyz in zip("rgb", primaries, strict=True):
            tags[f"{letter}XYZ".encode()] = b"XYZ \0\0\0\0" + b"".join(map(s15, xyz))
            tags[f"{letter}TRC".encode()] = curves
    table, contents, at = b"", b"", 132 + 12 * len(tags)
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", at + len(contents), len(content))
        contents += content
    body = struct.pack(">I", len(tags)) + table + contents
    pcs = b"Lab " if space == b"CMYK" else b"XYZ "
    head = struct.pack(">I4sI4s4s4s", 128 + len(body), b"lcms", version << 24, kind, space, pcs)
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    return head + b"".join(map(s15, (0.9642, 1, 0.8249))) + bytes(48) + body


def cmyk_profile(ink: int, lab: tuple[int, int, int]) -> bytes:
    """A printer whose ink number `ink`, of cyan, magenta, yellow, black, prints a colour in L*, a*, b* of 8 bits
    (`lut8`, ICC.1:2022, 10.10); the others print nothing."""
    corners = [lab if corner >> (3 - ink) & 1 else (255, 128, 128) for corner in range(16)]
    line = bytes(range(256))
    identity = b"".join(s15(v) for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    a2b = b"mft1\0\0\0\0" + bytes([4, 3, 2, 0]) + identity + line * 4 + bytes(v for c in corners for v in c) + line * 3
    return icc(b"", space=b"CMYK", kind=b"prtr", extra={b"A2B0": a2b})


def avif_with(data: bytes, *properties: bytes) -> bytes:
    """An AVIF that Pillow wrote, whose primary item has more properties (whole boxes)."""
    out = bytearray(data)
    meta, iprp, ipco, ipma = (out.index(kind) - 4 for kind in (b"meta", b"iprp", b"ipco", b"ipma"))
    count = out[ipma + 18]
    length = int.from_bytes(out[ipco : ipco + 4], "big")
    index = sum(1 for _ in _boxes(bytes(out[ipco + 8 : ipco + length])))
    added = b"".join(properties)
    numbers = bytes(0x80 | index + i for i in range(1, len(properties) + 1))
    out[ipma + 18] = count + len(numbers)
    out[ipma + 19 + count : ipma + 19 + count] = numbers
    out[ipco + length : ipco + length] = added
    for at, more in ((ipma + len(added), len(numbers)), (ipco, len(added)), (iprp, 0), (meta, 0)):
        grown = more or len(added) + len(numbers)
        out[at : at + 4] = (int.from_bytes(out[at : at + 4], "big") + grown).to_bytes(4, "big")
    iloc = out.index(b"iloc") - 4  # version 0: the offset of the only extent of the only item
    at = iloc + 22
    moved = int.from_bytes(out[at : at + 4], "big") + len(added) + len(numbers)
    out[at : at + 4] = moved.to_bytes(4, "big")
    return bytes(out)


def _boxes(data: bytes) -> list[bytes]:
    found, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        found.append(data[at : at + size])
        at += size
    return found


def full_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def nclx(data: bytes, primaries: int, transfer: int) -> bytes:
    """An AVIF that Pillow wrote, with other code points in its `colr` box."""
    at = data.index(b"colrnclx") + 8
    return data[:at] + struct.pack(">HH", primaries, transfer) + data[at + 4 :]
