"""Texts that lie beside media: `.txt` is the text, `.json` an object with caption or text, licence and more."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from typing import Any

from curate.schema.errors import CurateError
from curate.sources.entry import BadCell, clean, replaced

MAX_BYTES = 1 << 20
"""Longer ones are refused: they are not captions."""

MAX_DEPTH = 64
"""Of nested objects and arrays. Deeper ones are no metadata, and recursion ends somewhere."""


class SourceError(Exception):
    """A record that a source lists and that cannot be read. Becomes a `UnreadableEntry` entry."""


@dataclass(frozen=True)
class SidecarMetadata:
    """What sidecars say of one record."""

    text: str | None
    licence: str | None
    meta: dict[str, Any]


def parse_sidecar(txt: bytes | None, js: bytes | None) -> SidecarMetadata:
    """What the sidecars say. Text is that of `.txt`, else `caption`, else `text` of `.json`, where they are strings.

    Args:
        txt: content of the `.txt`, or None where there is none.
        js: content of the `.json`, or None.

    Raises:
        SourceError: a `.txt` that is longer than MAX_BYTES or not UTF-8; what `json_object` raises; a caption, text or
            licence of the `.json` that would be used and is a `BadCell`.
    """
    said = json_object(js, "its .json") if js is not None else {}
    text = clean(_utf8(txt, "its .txt").strip()) if txt is not None else None
    text = text if text is not None else _said(said, ("caption", "text"))
    return SidecarMetadata(text, _said(said, ("licence", "license")), said)


def _said(said: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first text under one of the keys, which is taken out."""
    for key in keys:
        value = said.get(key)
        if isinstance(value, BadCell):
            raise SourceError(f"{key} of its .json {value.why}")
        if isinstance(value, str) and (text := clean(said.pop(key).strip())) is not None:
            return text
    return None


def json_object(raw: bytes, what: str) -> dict[str, Any]:
    """The JSON object that `raw` holds; NaN and infinities, which Python's own writer makes, come as None.

    A value that is not UTF-8, one whose key comes again with another value (RFC 8259, section 4, leaves open which
    holds), and an integer of more digits than Python reads, are each a `BadCell`.

    Args:
        raw: UTF-8, with or without a byte order mark.
        what: how messages call it, e.g. `its .json`.

    Raises:
        SourceError: longer than MAX_BYTES, not UTF-8 and not to be read for that, not JSON, not an object, or nested
            deeper than MAX_DEPTH.
    """
    problem: SourceError | None = None
    try:
        text = _utf8(raw, what)
    except SourceError as exc:
        if len(raw) > MAX_BYTES:
            raise
        text, problem = raw.decode("utf-8-sig", "surrogateescape"), exc
    try:
        value = _JSON.decode(text)
    except (ValueError, RecursionError) as exc:
        raise problem or SourceError(f"{what} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise SourceError(f"{what} is not a JSON object")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner.shown if isinstance(inner, BadCell) else inner for inner in level]
        level = [inner for inner in level if isinstance(inner, dict | list)]
        if not level:
            return _marked(value) if problem else value
    raise SourceError(f"{what} is nested deeper than {MAX_DEPTH} levels")


def reason(exc: Exception) -> str:
    """What an error of reading says, without path or bucket: the same files elsewhere are the same build."""
    if isinstance(exc, CurateError):
        return exc.message.rpartition(": ")[2]
    if isinstance(exc, FileNotFoundError):
        return os.strerror(errno.ENOENT)  # a bucket's has no words of its own
    if isinstance(exc, OSError):
        return exc.strerror or "it cannot be read"
    return str(exc)[:500]


def _utf8(raw: bytes, what: str) -> str:
    if len(raw) > MAX_BYTES:
        raise SourceError(f"{what} is larger than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        utf16 = " but UTF-16, as it begins" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else ""
        raise SourceError(f"{what} is not UTF-8{utf16} (byte {exc.start})") from exc


def _integer(digits: str) -> int | BadCell:
    try:
        return int(digits)
    except ValueError:  # Python reads, and writes, 4300 digits
        return BadCell(digits, f"has {len(digits)} digits")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if not isinstance(found[key], BadCell) and found[key] != value:
                found[key] = BadCell(found[key], "is there more than once, with different values")
    return found


_JSON = json.JSONDecoder(parse_constant=lambda _: None, parse_int=_integer, object_pairs_hook=_object)


def _marked(value: Any) -> Any:
    """A value of JSON that is not all UTF-8, with each text that is not as a `BadCell`."""
    if isinstance(value, dict):
        return {replaced(key): _marked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_marked(item) for item in value]
    if isinstance(value, str) and (shown := replaced(value)) != value:
        return BadCell(shown, "is not UTF-8")
    return value
