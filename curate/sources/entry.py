"""Entries: what listing a source gives. Plain data, so that it travels as columns of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from curate.schema.ids import content_id, record_id


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
class UnreadableEntry:
    """A record that listing found and cannot be read. Reading it gives its failure, so that nothing is lost (law 1).

    Attributes:
        error: class name, as `Failure.error`.
        message: what is wrong; names no path of this machine.
    """

    error: str
    message: str


Location = File | TarMember | Url | UnreadableEntry

ENTRIES = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("ordinal", pa.int64(), nullable=False),
        pa.field("text", pa.string()),
        pa.field("licence", pa.string()),
        pa.field("meta", pa.string(), nullable=False),
        pa.field("location", pa.string(), nullable=False),  # file, tar, url or broken: what the columns below say
        pa.field("address", pa.binary()),  # of file, tar or url: paths of this machine may hold any bytes
        pa.field("offset", pa.int64()),  # of tar
        pa.field("bytes", pa.int64()),  # of file and tar
        pa.field("error", pa.string()),  # of broken
        pa.field("message", pa.string()),
    ]
)
"""Entries as they travel between tasks."""

_ESCAPED = re.compile("[\udc80-\udcff]+")
_JSON = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))
_SORTED_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class Entry:
    """One record as its source lists it.

    Attributes:
        source: name of the source in the recipe.
        uri: how the source calls the record: a path relative to the folder, `name.tar/key`, or a table's own words.
        ordinal: 0, or how often the same uri came before in the same unit; -1 where it stands for the unit.
        text: the source's text, None where it has none.
        licence: the record's own, else the source's.
        meta: whatever else the source says: a JSON object with sorted keys, ASCII.
        location: where the bytes are.
        unit: what tells the record from one of the same uri in another unit, mostly the unit's name; part of its id.
            Empty where uris of the source are unique.
    """

    source: str
    uri: str
    ordinal: int
    text: str | None
    licence: str | None
    meta: str
    location: Location
    unit: str = ""

    @classmethod
    def whole(cls, source: str, unit: str, licence: str | None, error: str, message: str) -> Entry:
        """What stands for a unit that cannot be read, or for the rest of it: a broken entry with the unit's name."""
        return cls(source, unit, -1, None, licence, "{}", UnreadableEntry(error, message), unit)

    @property
    def is_whole(self) -> bool:
        """True if it stands for its unit and is no record of it."""
        return self.ordinal < 0

    @property
    def record_id(self) -> str:
        """The id of the record: 32 hex digits, of source, unit, uri and ordinal."""
        return record_id(self.source, self.uri, self.ordinal, self.unit)

    def identity(self) -> list[Any]:
        """All that listing knows of the content, as a JSON value; partitions are named by it.

        Holds neither a path of this machine nor a bucket nor a host, so that the same recipe names the same partitions
        anywhere.
        A file that changes and keeps its size, or other content behind the same url, is not seen.
        """
        at = self.location
        size = at.bytes if isinstance(at, File | TarMember) else None
        broken = [at.error, at.message] if isinstance(at, UnreadableEntry) else None
        return [self.source, self.unit, self.uri, self.ordinal, self.text, self.licence, self.meta, size, broken]


def identities(entries: Iterable[Entry]) -> list[str]:
    """The digest of each entry's identity, 32 hex digits."""
    return [content_id(_JSON.encode(entry.identity()).encode()) for entry in entries]


def entries_table(entries: Sequence[Entry]) -> pa.Table:
    """Entries as a table of the schema ENTRIES, a row each."""
    places = [_place(entry.location) for entry in entries]
    own = ([getattr(entry, name) for entry in entries] for name in ENTRIES.names[:7])
    columns = [*own, *(zip(*places, strict=True) if places else [()] * 6)]
    return pa.table([pa.array(cells, f.type) for cells, f in zip(columns, ENTRIES, strict=True)], schema=ENTRIES)


def entries_of(table: pa.Table) -> list[Entry]:
    """Inverse of `entries_table`."""
    columns = [column.to_pylist() for column in table.select(ENTRIES.names).columns]
    return [
        Entry(source, uri, ordinal, text, licence, meta, _location(*place), unit)
        for source, unit, uri, ordinal, text, licence, meta, *place in zip(*columns, strict=True)
    ]


def _place(at: Location) -> tuple[str, bytes | None, int | None, int | None, str | None, str | None]:
    if isinstance(at, TarMember):
        return "tar", at.tar.encode("utf-8", "surrogateescape"), at.offset, at.bytes, None, None
    if isinstance(at, File):
        return "file", at.path.encode("utf-8", "surrogateescape"), None, at.bytes, None, None
    if isinstance(at, Url):
        return "url", at.url.encode("utf-8", "surrogateescape"), None, None, None, None
    return "broken", None, None, None, at.error, at.message


def _location(kind: str, address: bytes | None, offset: int, size: int, error: str, message: str) -> Location:
    if address is None:
        return UnreadableEntry(error, message)
    place = address.decode("utf-8", "surrogateescape")
    return TarMember(place, offset, size) if kind == "tar" else File(place, size) if kind == "file" else Url(place)


def numbered(entries: Iterable[Entry]) -> Iterator[Entry]:
    """Entries of one unit, each with its ordinal."""
    before: dict[str, int] = {}
    for entry in entries:
        if entry.is_whole:
            yield entry
            continue
        seen = before.get(entry.uri, 0)
        before[entry.uri] = seen + 1
        yield replace(entry, ordinal=seen) if seen else entry


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
    return _SORTED_JSON.encode(_plain(value)) if value else "{}"


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
