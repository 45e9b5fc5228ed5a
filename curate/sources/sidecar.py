"""Texts that lie beside media: `.txt` is the text, `.json` an object with caption or text, licence and more."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from typing import Any

from curate.schema.errors import CurateError
from curate.sources.entry import clean

MAX_BYTES = 1 << 20
"""Longer ones are refused: they are not captions."""

MAX_DEPTH = 64
"""Of nested objects and arrays. Deeper ones are no metadata, and recursion ends somewhere."""


class SourceError(Exception):
    """A record that a source lists and that cannot be read. Becomes a `Broken` entry."""


@dataclass(frozen=True)
class Words:
    """What sidecars say of one record."""

    text: str | None
    licence: str | None
    meta: dict[str, Any]


def read_words(txt: bytes | None, js: bytes | None) -> Words:
    """What the sidecars say. Text is that of `.txt`, else `caption`, else `text` of `.json`, where they are strings.

    Args:
        txt: content of the `.txt`, or None where there is none.
        js: content of the `.json`, or None.

    Raises:
        SourceError: longer than MAX_BYTES, not UTF-8, or not a JSON object.
    """
    said = json_object(js, "its .json") if js is not None else {}
    text = clean(_utf8(txt, "its .txt").strip()) if txt is not None else None
    for key in ("caption", "text"):
        if text is None and isinstance(said.get(key), str):
            text = clean(said.pop(key).strip())
    licence = None
    for key in ("licence", "license"):
        if licence is None and isinstance(said.get(key), str):
            licence = clean(said.pop(key).strip())
    return Words(text, licence, said)


def json_object(raw: bytes, what: str) -> dict[str, Any]:
    """The JSON object that `raw` holds; NaN and infinities, which Python's own writer makes, come as None.

    Args:
        raw: UTF-8, with or without a byte order mark.
        what: how messages call it, e.g. `its .json`.

    Raises:
        SourceError: longer than MAX_BYTES, not UTF-8, not JSON, not an object, or nested deeper than MAX_DEPTH.
    """
    text = _utf8(raw, what)
    try:
        value = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError) as exc:
        raise SourceError(f"{what} is not JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise SourceError(f"{what} is not a JSON object")
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
        level = [inner for inner in level if isinstance(inner, dict | list)]
        if not level:
            return value
    raise SourceError(f"{what} is nested deeper than {MAX_DEPTH} levels")


def reason(exc: OSError | CurateError) -> str:
    """What an error of reading says, without path or bucket: the same files elsewhere are the same build."""
    if isinstance(exc, CurateError):
        return exc.message.rpartition(": ")[2]
    if isinstance(exc, FileNotFoundError):
        return os.strerror(errno.ENOENT)  # a bucket's has no words of its own
    return exc.strerror or "it cannot be read"


def _utf8(raw: bytes, what: str) -> str:
    if len(raw) > MAX_BYTES:
        raise SourceError(f"{what} is larger than {MAX_BYTES} bytes")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise SourceError(f"{what} is not UTF-8 (byte {exc.start})") from exc
