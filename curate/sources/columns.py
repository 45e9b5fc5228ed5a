"""Which column of a table holds what: by the names that people give them, and by what stands in the first rows."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curate.schema.errors import CurateError
from curate.schema.recipe import TableSource
from curate.schema.text import escape_controls
from curate.sources.base import Glance
from curate.sources.entry import File, UnreadableEntry, Url
from curate.sources.media_types import kind_of
from curate.sources.tables import Tables
from curate.storage import Store

ROWS = 64
"""Rows that are looked at."""

MOST_COLUMNS = 64
"""Columns of other names that are tried as those of uris."""

URIS = (
    *("uri", "url", "file_name", "filename", "file_path", "filepath", "file", "path", "image_path", "video_path"),
    *("audio_path", "image_url", "video_url", "audio_url", "media_url", "content_url", "download_url", "original_url"),
    *("image", "video", "audio", "link", "href", "src"),
)
TEXTS = (
    *("caption", "text", "alt", "alt_text", "description", "title", "prompt", "sentence", "transcript"),
    *("transcription", "captions", "caption_text"),
)
LICENCES = ("licence", "license", "license_url", "licence_url", "license_name", "rights")

_WORDS = 4
"""Words that values of a text have on average, where its column has a name that tells nothing."""


@dataclass(frozen=True)
class Columns:
    """What the columns of a table are.

    Attributes:
        uri, text, licence: their names; None where there is none.
        others: all others that records take along in `meta`.
        glance: at its records, by these.
    """

    uri: str
    text: str | None
    licence: str | None
    others: Sequence[str]
    glance: Glance


def columns_of(spec: TableSource, root: Path, env: Mapping[str, str], build: Store, most: int) -> Columns:
    """The columns of a table.

    Args:
        spec: its place; what it says of columns is passed over.
        root, env: as a source takes them.
        build: takes what listing a source writes.
        most: rows of the glance.

    Raises:
        CurateError: it cannot be read; no column of it names media that are there.
    """
    names = Tables(spec, root, env).columns()
    table = spec.path.rpartition("/")[2]
    if not names:
        raise CurateError(f"{table} has no columns", "a table is .parquet, .csv with a header, or .jsonl")
    known = _in_order(names, URIS)
    rest = [name for name in names if name not in known][:MOST_COLUMNS]
    uri = _best(spec, root, env, build, known) or _best(spec, root, env, build, rest)
    if uri is None:
        raise _none(spec, root, env, build, known, names)
    rows = [json.loads(entry.meta) for _, entry in _glance(spec, root, env, build, uri, ROWS).seen]
    text = _named(rows, names, TEXTS, {uri}) or _wordy(rows, names, {uri})
    licence = _named(rows, names, LICENCES, {uri, text})
    chosen = spec.model_copy(update={"uri": uri, "text": text, "licence_column": licence})
    found = Tables(chosen, root, env)
    found.check()
    others = sorted({key for row in rows for key in row} - {text, licence})
    return Columns(uri, text, licence, others, found.glance(build, most))


def _glance(spec: TableSource, root: Path, env: Mapping[str, str], build: Store, uri: str, most: int) -> Glance:
    asked = spec.model_copy(update={"uri": uri, "text": None, "licence_column": None})
    return Tables(asked, root, env).glance(build, most)


def _best(spec: TableSource, root: Path, env: Mapping[str, str], build: Store, names: Sequence[str]) -> str | None:
    """Of some columns the first whose values lead to files, else the first whose values are web addresses."""
    web = None
    for name in names:
        try:
            seen = _glance(spec, root, env, build, name, ROWS).seen
        except CurateError:  # a column that is there twice
            continue
        files = sum(isinstance(entry.location, File) for _, entry in seen)
        urls = sum(isinstance(entry.location, Url) for _, entry in seen)
        if files * 2 > len(seen):
            return name
        web = web or (name if urls * 2 > len(seen) else None)
    return web


def _none(
    spec: TableSource, root: Path, env: Mapping[str, str], build: Store, known: Sequence[str], names: Sequence[str]
) -> CurateError:
    """The error for a table of which no column leads anywhere."""
    table = spec.path.rpartition("/")[2]
    for name in known:
        seen = _glance(spec, root, env, build, name, ROWS).seen
        if not seen:
            return CurateError(f"{table} has no rows")
        for said, entry in seen:
            if isinstance(entry.location, UnreadableEntry) and kind_of(said) is not None:
                return CurateError(
                    f"column {name!r} of {table} leads nowhere: {escape_controls(said)}: {entry.location.message}",
                    "relative paths start in the table's folder; a recipe of your own can put a `base_url` before them",
                )
    return CurateError(
        f"no column of {table} holds uris or paths of media; it has: {escape_controls(', '.join(names))}",
        "a row names its medium by http(s)://, s3://, or a path; media inside of a table are not read",
    )


def _plain(name: str) -> str:
    return re.sub(r"[^a-z]+", "_", name.lower()).strip("_")


def _in_order(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Those of the names that are known, in the order in which they are."""
    return sorted((n for n in names if _plain(n) in known), key=lambda n: known.index(_plain(n)))


def _named(rows: Sequence[Mapping[str, Any]], names: Sequence[str], known: Sequence[str], but: set[Any]) -> str | None:
    """The first column of a known name of which a row holds text."""
    for name in _in_order(names, known):
        if name not in but and any(isinstance(row.get(name), str) for row in rows):
            return name
    return None


def _wordy(rows: Sequence[Mapping[str, Any]], names: Sequence[str], but: set[Any]) -> str | None:
    """The column of most words, where they are sentences in at least half of the rows."""
    words = {
        name: [len(row[name].split()) for row in rows if isinstance(row.get(name), str)]
        for name in names
        if name not in but
    }
    means = {name: sum(counts) / len(counts) for name, counts in words.items() if 2 * len(counts) >= len(rows) > 0}
    best = max(means, key=lambda name: means[name], default=None)
    return best if best is not None and means[best] >= _WORDS else None
