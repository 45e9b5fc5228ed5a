"""What a server did to a file before it sent it: undone as browsers do it, and never to more than a stated size."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import pyarrow as pa

from curate.schema.errors import FetchError

_PIECE = 1 << 20


def decoded(body: bytes, codings: str, content_type: str, max_bytes: int) -> bytes:
    """The file in a body that came with `Content-Encoding: codings` (RFC 9110, 8.4).

    gzip, deflate (in zlib's format, or raw as some servers send it), br and zstd are unpacked, the last one stated
    first. Other words, such as `identity`, `aws-chunked`, `none`, `binary` or `UTF-8`, change nothing. gzip of a type
    that is itself gzip is the file, as Firefox has it: servers state it twice.

    Raises:
        FetchError: it is not what is stated; it is cut off (transient); the file is larger than `max_bytes`, of which
            no more is unpacked than that.
    """
    stated = [word for coding in codings.split(",") if (word := coding.strip().lower().removeprefix("x-"))]
    if "gzip" in content_type.lower():
        stated = [word for word in stated if word != "gzip"]
    for coding in reversed(stated):
        if coding in ("gzip", "deflate", "br", "zstd"):
            body = _joined(_pieces(body, coding), coding, max_bytes)
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


def _pieces(body: bytes, coding: str) -> Iterator[bytes]:
    if not body:
        return
    if coding in ("gzip", "deflate"):
        yield from _inflated(body, coding)
        return
    stream = pa.CompressedInputStream(pa.BufferReader(body), "brotli" if coding == "br" else coding)
    try:
        while piece := stream.read(_PIECE):
            yield piece
    except OSError as exc:
        raise (EOFError() if "Truncated" in str(exc) else exc) from exc


def _inflated(body: bytes, coding: str) -> Iterator[bytes]:
    """Members of gzip one after the other, or one stream of deflate; what follows it is left, as browsers do."""
    if coding == "gzip":
        bits = 16 + zlib.MAX_WBITS
    else:  # a zlib header's two bytes are a multiple of 31 (RFC 1950, 2.2)
        bits = zlib.MAX_WBITS if body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0 else -zlib.MAX_WBITS
    while True:
        inflater = zlib.decompressobj(bits)
        while not inflater.eof:
            piece = inflater.decompress(body, _PIECE)
            body = inflater.unconsumed_tail
            if not piece and not inflater.eof:
                raise EOFError
            yield piece
        body = inflater.unused_data
        if coding != "gzip" or not body.startswith(b"\x1f\x8b"):
            return
