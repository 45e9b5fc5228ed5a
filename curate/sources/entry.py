"""Entries: what listing a source gives. Plain data, so that it travels as columns of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from curate.schema.ids import record_id


@dataclass(frozen=True)
class File:
    """A file or an object of a bucket.

    Attributes:
        path: absolute, or `s3://bucket/key`.
        bytes: its size as listed.
    """

    path: str
    bytes: int


@dataclass(frozen=True)
class TarMember:
    """A span of an uncompressed tar: reading it is a seek, or a request for that range.

    Attributes:
        tar: as `File.path`.
    """

    tar: str
    offset: int
    bytes: int


@dataclass(frozen=True)
class Url:
    """An http or https address, complete."""

    url: str


@dataclass(frozen=True)
class Broken:
    """A record that listing found and cannot be read. Reading it gives its failure, so that nothing is lost (law 1).

    Attributes:
        error: class name, as `Failure.error`.
        message: what is wrong; names no path of this machine.
    """

    error: str
    message: str


Location = File | TarMember | Url | Broken

_LOCATIONS: dict[str, type[File | TarMember | Url | Broken]] = {
    "file": File,
    "tar": TarMember,
    "url": Url,
    "broken": Broken,
}
_NAMES = {kind: name for name, kind in _LOCATIONS.items()}
_ESCAPED = re.compile("[\udc80-\udcff]+")
_COLUMNS = ("path", "tar", "offset", "bytes", "url", "error", "message")


@dataclass(frozen=True)
class Entry:
    """One record as its source lists it.

    Attributes:
        source: name of the source in the recipe.
        uri: how the source calls the record: a path relative to the folder, `name.tar/key`, or a table's own words.
        ordinal: 0, or how often the same uri came before in the same source.
        text: the source's text, None where it has none.
        licence: the record's own, else the source's.
        meta: whatever else the source says: a JSON object with sorted keys, ASCII.
        location: where the bytes are.
    """

    source: str
    uri: str
    ordinal: int
    text: str | None
    licence: str | None
    meta: str
    location: Location

    @property
    def record_id(self) -> str:
        """The id of the record: 32 hex digits, of source, uri and ordinal."""
        return record_id(self.source, self.uri, self.ordinal)

    def identity(self) -> list[Any]:
        """All that listing knows of the content, as a JSON value; partitions are named by it.

        Holds neither a path of this machine nor a bucket nor a host, so that the same recipe names the same partitions
        anywhere.
        A file that changes and keeps its size, or other content behind the same url, is not seen.
        """
        at = self.location
        size = at.bytes if isinstance(at, File | TarMember) else None
        broken = [at.error, at.message] if isinstance(at, Broken) else None
        return [self.source, self.uri, self.ordinal, self.text, self.licence, self.meta, size, broken]

    def to_row(self) -> dict[str, Any]:
        """Flat columns: the attributes, `location` as its kind, and the kind's own columns, None where absent."""
        own = {name: getattr(self, name) for name in ("source", "uri", "ordinal", "text", "licence", "meta")}
        place = {name: getattr(self.location, name, None) for name in _COLUMNS}
        return own | {"location": _NAMES[type(self.location)]} | place

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Entry:
        """The entry that `to_row` made the row of."""
        kind = _LOCATIONS[row["location"]]
        location = kind(**{name: row[name] for name in kind.__dataclass_fields__})
        own = {name: row[name] for name in ("source", "uri", "ordinal", "text", "licence", "meta")}
        return cls(**own, location=location)


@dataclass(frozen=True)
class BadCell:
    """A value of a table or a sidecar that is there and cannot be used. Where it is uri, text or licence, the record
    fails; in `meta` it takes down nothing.

    Attributes:
        shown: what stands for it in `meta`.
        why: said after the column's name, e.g. `is not UTF-8`.
    """

    shown: Any
    why: str


def meta_json(value: Mapping[str, Any]) -> str:
    """`meta` as it is stored: sorted keys, ASCII, numbers that JSON has no word for as null."""
    return json.dumps(_plain(value), sort_keys=True, ensure_ascii=True, allow_nan=False)


def clean(text: str | None) -> str | None:
    """Text that any UTF-8 writer takes: half surrogate pairs become U+FFFD. Empty text is None: it says nothing."""
    if text is None:
        return None
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") or None


def replaced(text: str) -> str:
    """Text of which `surrogateescape` kept bytes that are not UTF-8: each run of them as one U+FFFD."""
    return text if text.isascii() else _ESCAPED.sub("\ufffd", text)


def _plain(value: Any) -> Any:
    if isinstance(value, BadCell):
        return _plain(value.shown)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if value - value == 0 else None  # infinities and NaN
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return str(value)  # dates, decimals, uuids
