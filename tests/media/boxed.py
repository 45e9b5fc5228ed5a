"""Metadata put into containers that FFmpeg wrote: boxes of MP4 (ISO/IEC 14496-12), elements of Matroska (RFC 9559)."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import av
import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

Change = Callable[[bytes], bytes]

ENTRY = ("moov", "trak", "mdia", "minf", "stbl", "stsd", "*")
"""Path of the sample entries of all tracks."""

_HEADS = {"stsd": 8, "meta": 4}
_ENTRY_HEADS = {"vide": 78, "soun": 28}


def box(kind: str, *fields: int, body: bytes = b"") -> bytes:
    """A box of 32-bit fields and a body."""
    body = struct.pack(f">{len(fields)}I", *(value & 0xFFFFFFFF for value in fields)) + body
    return struct.pack(">I", len(body) + 8) + kind.encode() + body


def clap(width: int, height: int, right: int = 0, down: int = 0, *, by: int = 1) -> bytes:
    """A clean aperture; all four numbers are over `by`."""
    return box("clap", width, by, height, by, right, by, down, by)


def in_mp4(data: bytes, path: tuple[str, ...], change: Change, kind: str = "vide") -> bytes:
    """The file with the bodies of all boxes at `path` changed (`*`: any box; its fixed fields are kept). The index must
    lie behind the media, or be of a fragmented file, whose positions count from each fragment."""
    assert b"moof" in data or data.index(b"mdat") < data.index(b"moov"), "positions in the index would be wrong"
    return _boxes(data, path, change, kind)


def _boxes(data: bytes, path: tuple[str, ...], change: Change, kind: str) -> bytes:
    out, at = b"", 0
    while at + 8 <= len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        size = size or len(data) - at
        body = data[at + 8 : at + size]
        wanted = path[0] in ("*", name.decode("latin-1"))
        if wanted and not (path[0] == "trak" and kind.encode() not in body):
            head = _ENTRY_HEADS[kind] if path[0] == "*" else _HEADS.get(path[0], 0)
            rest = path[1:]
            inner = _boxes(body[head:], rest, change, kind) if rest else change(body[head:])
            body = body[:head] + inner
            out += struct.pack(">I", len(body) + 8) + name + body
        else:
            out += data[at : at + size]
        at += size
    return out + data[at:]


def in_mkv(data: bytes, path: tuple[int, ...], change: Change) -> bytes:
    """The file with the body of each element at `path` below the Segment changed; its index is left out."""
    segment = 0x18538067
    parts = []
    for kind, body in _elements(data):
        if kind == segment:
            kept = [(k, b) for k, b in _elements(body) if k not in (0x114D9B74, 0x1C53BB6B, 0xEC)]  # SeekHead Cues Void
            body = b"".join(element(k, _inside(b, path[1:], change) if k == path[0] else b) for k, b in kept)
        parts.append(element(kind, body))
    return b"".join(parts)


def _inside(body: bytes, path: tuple[int, ...], change: Change) -> bytes:
    if not path:
        return change(body)
    parts = [(k, _inside(b, path[1:], change) if k == path[0] else b) for k, b in _elements(body)]
    return b"".join(element(kind, inner) for kind, inner in parts)


def element(kind: int, value: bytes | int) -> bytes:
    """An EBML element."""
    body = value if isinstance(value, bytes) else value.to_bytes(4, "big")
    return kind.to_bytes((kind.bit_length() + 7) // 8, "big") + (len(body) | 1 << 56).to_bytes(8, "big") + body


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        n = 9 - data[at].bit_length()
        m = 9 - data[at + n].bit_length()
        size = int.from_bytes(data[at + n : at + n + m], "big") & (1 << 7 * m) - 1
        start = at + n + m
        end = len(data) if size == (1 << 7 * m) - 1 else start + size
        yield int.from_bytes(data[at : at + n], "big"), data[start:end]
        at = end


TRACK = (0x1654AE6B, 0xAE)
VIDEO = (*TRACK, 0xE0)
CROP = {"bottom": 0x54AA, "top": 0x54BB, "left": 0x54CC, "right": 0x54DD}


def pixel_crop(data: bytes, **edges: int) -> bytes:
    """A Matroska file with PixelCrop elements; DisplayWidth and -Height are left out, so pixels are square."""
    more = b"".join(element(CROP[edge], value) for edge, value in edges.items())
    return set_video(data, {}, more)


def set_video(
    data: bytes, fields: dict[int, int], more: bytes = b"", without: tuple[int, ...] = (0x54B0, 0x54BA)
) -> bytes:
    """A Matroska file with other fields in the Video element of its tracks."""
    more += b"".join(element(kind, value) for kind, value in fields.items())
    gone = {*without, *fields}

    def change(body: bytes) -> bytes:
        return b"".join(element(k, b) for k, b in _elements(body) if k not in gone) + more

    return in_mkv(data, VIDEO, change)


def set_track(data: bytes, fields: dict[int, int]) -> bytes:
    """A Matroska file with other fields in its tracks."""

    def change(body: bytes) -> bytes:
        kept = b"".join(element(k, b) for k, b in _elements(body) if k not in fields)
        return kept + b"".join(element(kind, value) for kind, value in fields.items())

    return in_mkv(data, TRACK, change)


def as_ffmpeg_shows(data: bytes, tmp: Any) -> NDArray[np.uint8]:
    """The first frame as the command line tool shows it, which crops and turns: `(h, w, 3)`. Pixels are not squared."""
    path, out = tmp / "in.bin", tmp / "out.png"
    path.write_bytes(data)
    tool = imageio_ffmpeg.get_ffmpeg_exe()
    command = [tool, "-v", "error", "-y", "-i", str(path), "-frames:v", "1", "-pix_fmt", "rgb24", str(out)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    with av.open(BytesIO(out.read_bytes())) as file:
        return next(file.decode(video=0)).to_ndarray(format="rgb24")
