"""A folder of media files."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from curate.sources.entry import Broken, Entry, LocalFile, Location, meta_json
from curate.sources.media_types import is_media
from curate.sources.sidecar import MAX_BYTES, SourceError, Words, read_words


def list_folder(source: str, folder: Path, licence: str | None = None) -> list[Entry]:
    """Every file under `folder` that is named as media are, sorted by path; uris are relative to the folder.

    Hidden files and folders are passed over. `a.txt` and `a.json` are the words of all media `a.*` beside them. A link
    to a file inside the folder is read; links to folders are not followed (what they show inside the folder is listed
    in its own place). A link that leaves the folder or leads nowhere, a pipe or a device, a name that is not UTF-8 and
    a sidecar that cannot be read give broken entries.

    Args:
        source: name of the source.
        folder: must be a folder.
        licence: of records whose sidecar states none.
    """
    top = folder.resolve()
    found = [_entry(source, top, item, licence) for item in _walk(top, top, "")]
    return sorted(found, key=lambda entry: entry.uri)


@dataclass(frozen=True)
class _Item:
    path: Path
    uri: str
    siblings: frozenset[str]


def _walk(top: Path, folder: Path, prefix: str) -> Iterator[_Item]:
    with os.scandir(folder) as scan:
        here = [item for item in scan if not item.name.startswith(".")]
    siblings = frozenset(item.name for item in here)
    for item in here:
        if item.is_dir(follow_symlinks=False):
            yield from _walk(top, Path(item.path), f"{prefix}{item.name}/")
        elif is_media(item.name) or (item.is_dir() and not Path(item.path).resolve().is_relative_to(top)):
            yield _Item(Path(item.path), prefix + item.name, siblings)


def _entry(source: str, top: Path, item: _Item, licence: str | None) -> Entry:
    words = Words(None, None, {})
    location: Location
    try:
        item.uri.encode()
        location = _locate(top, item.path)
        words = _words(top, item)
    except UnicodeEncodeError:
        location = Broken("SourceError", "its name is not UTF-8")
    except SourceError as exc:
        location = Broken("SourceError", str(exc))
    except OSError as exc:
        location = Broken(type(exc).__name__, exc.strerror or "it cannot be read")
    # bytes that are not UTF-8 come as half surrogates, which no table takes
    uri = item.uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Entry(source, uri, 0, words.text, words.licence or licence, meta_json(words.meta), location)


def _locate(top: Path, path: Path) -> LocalFile:
    real = path.resolve()
    if not real.is_relative_to(top):
        raise SourceError("it is a link that leaves the folder: not followed")
    if not real.exists():
        raise SourceError("it is a link to nothing")
    about = real.stat()
    if not stat.S_ISREG(about.st_mode):
        raise SourceError("it is not a file")
    return LocalFile(str(real), about.st_size)


def _words(top: Path, item: _Item) -> Words:
    def read(suffix: str) -> bytes | None:
        name = item.path.stem + suffix
        if name not in item.siblings:
            return None
        _locate(top, item.path.with_name(name))
        with item.path.with_name(name).open("rb") as file:
            return file.read(MAX_BYTES + 1)

    return read_words(read(".txt"), read(".json"))
