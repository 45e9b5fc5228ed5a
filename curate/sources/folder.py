"""A folder of media files, of this machine or in a bucket."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from curate.sources.entry import Broken, Entry, File, Location, meta_json
from curate.sources.media_types import media_among
from curate.sources.paths import in_bucket, objects_below
from curate.sources.sidecar import MAX_BYTES, SourceError, Words, read_words, reason

AT_ONCE = 16
"""Sidecars of a bucket that are asked for together."""


def list_folder(source: str, folder: Path, licence: str | None = None) -> list[Entry]:
    """Every file under `folder` that is named as media are, sorted by path; uris are relative to the folder.

    Hidden files and folders are passed over. `a.txt` and `a.json` are the words of all media `a.*` beside them;
    `a.npy` beside other media `a.*` is passed over, as in tars. A link to a file inside the folder is read; links to
    folders are not followed (what they show inside the folder is listed in its own place).
    A link that leaves the folder or leads nowhere, a pipe or a device, a name that is not UTF-8 and a sidecar that
    cannot be read give broken entries.

    Args:
        source: name of the source.
        folder: must be a folder.
        licence: of records whose sidecar states none.
    """
    top = folder.resolve()

    def entry(item: _Item) -> Entry:
        return _entry(
            source, item.uri, licence, lambda: _locate(top, item.path), lambda suffix: _read(top, item, suffix)
        )

    return sorted(map(entry, _walk(top, top, "")), key=lambda entry: entry.uri)


def list_prefix(source: str, folder: str, licence: str | None = None) -> list[Entry]:
    """The same of objects below an `s3://` address. The same files give the same entries, but for their location.

    Raises:
        CurateError: the bucket cannot be listed or read.
    """
    store, prefix = in_bucket(folder)
    sizes = {name: size for name, size in objects_below(folder).items() if "/." not in f"/{name}"}
    start = f"{prefix}/" if prefix else ""

    def entry(name: str) -> Entry:
        def read(suffix: str) -> bytes | None:
            beside = name.rpartition(".")[0] + suffix
            return store.read_range(start + beside, 0, min(sizes[beside], MAX_BYTES + 1)) if beside in sizes else None

        return _entry(source, name, licence, lambda: File(f"{folder}/{name}", sizes[name]), read)

    media = sorted(media_among(sizes))
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(entry, media))


@dataclass(frozen=True)
class _Item:
    path: Path
    uri: str
    siblings: frozenset[str]


def _walk(top: Path, folder: Path, prefix: str) -> Iterator[_Item]:
    with os.scandir(folder) as scan:
        here = [item for item in scan if not item.name.startswith(".")]
    siblings = frozenset(item.name for item in here)
    media = media_among(siblings)
    for item in here:
        if item.is_dir(follow_symlinks=False):
            yield from _walk(top, Path(item.path), f"{prefix}{item.name}/")
        elif item.name in media or (item.is_dir() and not Path(item.path).resolve().is_relative_to(top)):
            yield _Item(Path(item.path), prefix + item.name, siblings)


def _entry(
    source: str, uri: str, licence: str | None, locate: Callable[[], File], read: Callable[[str], bytes | None]
) -> Entry:
    """`locate` and `read` raise what is wrong with the file; `read` gives what the sidecar with an ending says."""
    words = Words(None, None, {})
    location: Location
    try:
        uri.encode()
        location = locate()
        words = read_words(read(".txt"), read(".json"))
    except UnicodeEncodeError:
        location = Broken("SourceError", "its name is not UTF-8")
    except SourceError as exc:
        location = Broken("SourceError", str(exc))
    except OSError as exc:
        location = Broken(type(exc).__name__, reason(exc))
    # bytes that are not UTF-8 come as half surrogates, which no table takes
    uri = uri.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return Entry(source, uri, 0, words.text, words.licence or licence, meta_json(words.meta), location)


def _locate(top: Path, path: Path) -> File:
    real = path.resolve()
    if not real.is_relative_to(top):
        raise SourceError("it is a link that leaves the folder: not followed")
    if not real.exists():
        raise SourceError("it is a link to nothing")
    about = real.stat()
    if not stat.S_ISREG(about.st_mode):
        raise SourceError("it is not a file")
    return File(str(real), about.st_size)


def _read(top: Path, item: _Item, suffix: str) -> bytes | None:
    name = item.path.stem + suffix
    if name not in item.siblings:
        return None
    _locate(top, item.path.with_name(name))
    with item.path.with_name(name).open("rb") as file:
        return file.read(MAX_BYTES + 1)
