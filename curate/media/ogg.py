"""Chained Ogg: recordings one after the other, each with its own codec headers and clock (RFC 3533, section 4)."""

from __future__ import annotations

_HEADER = 27
_BEGINS = 0x02


def links(data: bytes) -> list[bytes]:
    """The links of a chain, in order; the data itself where there is one, or it is no Ogg.

    A link begins with the pages that begin its streams, one for each; a page that begins a stream after others that do
    not is the first of the next link.
    """
    starts = [0]
    inside = False
    at = 0
    while (at := data.find(b"OggS", at)) >= 0 and at + _HEADER <= len(data):
        begins = bool(data[at + 5] & _BEGINS)
        if begins and inside:
            starts.append(at)
        inside = not begins
        segments = data[at + 26]
        at += _HEADER + segments + sum(data[at + _HEADER : at + _HEADER + segments])
    if len(starts) == 1 or not data.startswith(b"OggS"):
        return [data]
    return [data[a:b] for a, b in zip(starts, [*starts[1:], len(data)], strict=True)]
