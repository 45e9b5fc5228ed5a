"""What a server did to a file before it sent it: undone as browsers do it, and never to more than a stated size."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from threading import Event

import pyarrow as pa

from curate.schema.errors import FetchError

_PIECE = 1 << 20
_FIRST, _SLICE = 1 << 10, 1 << 16
"""Bytes that are unpacked of a member of gzip to begin with, and at most: what belongs to the next is read again."""


def decoded(body: bytes, codings: str, content_type: str, max_bytes: int, stop: Event | None = None) -> bytes:
    """The file in a body that came with `Content-Encoding: codings` (RFC 9110, 8.4).

    gzip, deflate (in zlib's format, or raw as some servers send it), br and zstd are unpacked, the last one stated
    first. Other words, such as `identity`, `aws-chunked`, `none`, `binary` or `UTF-8`, change nothing. gzip of a type
    that is itself gzip is the file, as Firefox has it: servers state it twice.

    Args:
        stop: ends the work soon after it is set. Time is linear in the sizes of the body and of what it unpacks to, but
            an empty member is 20 bytes, and a server may state many codings.

    Raises:
        FetchError: it is not what is stated; it is cut off (transient); the file is larger than `max_bytes`, of which
            no more is unpacked than that; `stop` was set.
    """
    stop = stop or Event()
    stated = [word for coding in codings.split(",") if (word := coding.strip().lower().removeprefix("x-"))]
    if "gzip" in content_type.lower():
        stated = [word for word in stated if word != "gzip"]
    for coding in reversed(stated):
        if coding in ("gzip", "deflate", "br", "zstd"):
            body = _joined(_pieces(_Body(body, stop), coding), coding, max_bytes)
    return body


def _joined(pieces: Iterator[bytes], coding: str, max_bytes: int) -> bytes:
    out = bytearray()
    try:
        for piece in pieces:
            out += piece
            if len(out) > max_bytes:
                raise FetchError(f"it has more than {max_bytes} bytes when it is unpacked ({coding})")
    except EOFError as exc:
        raise FetchError(f"it was cut off: it came compressed ({coding}) and does not end", transient=True) from exc
    except (zlib.error, OSError) as exc:  # pyarrow raises OSError
        raise FetchError(f"it came compressed ({coding}) and cannot be unpacked") from exc
    return bytes(out)


class _Body(io.BytesIO):
    """A body that can be read until it is to stop."""

    def __init__(self, body: bytes, stop: Event) -> None:
        super().__init__(body)
        self._stop = stop

    def read(self, size: int | None = -1) -> bytes:
        if self._stop.is_set():
            raise FetchError("it was not unpacked in time", transient=True)
        return super().read(size)

    def peek(self, size: int) -> bytes:
        ahead = self.read(size)
        self.seek(-len(ahead), io.SEEK_CUR)
        return ahead


def _pieces(body: _Body, coding: str) -> Iterator[bytes]:
    if not body.peek(1):
        return
    if coding in ("gzip", "deflate"):
        yield from _inflated(body, coding)
        return
    stream = pa.CompressedInputStream(body, "brotli" if coding == "br" else coding)
    try:
        while piece := stream.read(_PIECE):
            yield piece
    except OSError as exc:
        raise (EOFError() if "Truncated" in str(exc) else exc) from exc


def _inflated(body: _Body, coding: str) -> Iterator[bytes]:
    """Members of gzip one after the other, or one stream of deflate; what follows it is left, as browsers do."""
    if coding == "gzip":
        bits = 16 + zlib.MAX_WBITS
    else:  # a zlib header's two bytes are a multiple of 31 (RFC 1950, 2.2)
        head = body.peek(2)
        bits = zlib.MAX_WBITS if head[0] & 15 == 8 and int.from_bytes(head, "big") % 31 == 0 else -zlib.MAX_WBITS
    while True:
        inflater, size = zlib.decompressobj(bits), _FIRST
        while not inflater.eof:
            data = inflater.unconsumed_tail or body.read(size)
            piece = inflater.decompress(data, _PIECE)
            if not data and not piece and not inflater.eof:
                raise EOFError
            size = min(2 * size, _SLICE)
            yield piece
        body.seek(-len(inflater.unused_data), io.SEEK_CUR)
        if coding != "gzip" or body.peek(2) != b"\x1f\x8b":
            return
