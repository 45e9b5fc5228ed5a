"""From a recipe's source to its entries, in an order that depends on nothing but the source."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from curate.schema.errors import CurateError
from curate.schema.recipe import FolderSource, Source, TableSource, TarSource
from curate.sources.entry import Broken, Entry
from curate.sources.folder import list_folder, list_prefix
from curate.sources.paths import address_of, in_bucket, matching, substitute
from curate.sources.tables import list_table
from curate.sources.tars import list_tar
from curate.storage import is_remote

TARS_AT_ONCE = 8
"""Tars of a bucket whose headers are read together."""


def list_entries(source: Source, root: Path, env: Mapping[str, str]) -> list[Entry]:
    """All records of a source: folders by path, tars by name and then in their own order, tables by row.

    Args:
        source: of the recipe.
        root: the folder that relative paths start from.
        env: what stands for `${NAME}` in `path` and `base_url`. It does not show in uris.

    Returns:
        Entries with unique record ids; a record that is there and cannot be read is an entry with a `Broken` location.

    Raises:
        CurateError: nothing found, a variable that is not set, a table that cannot be read or lacks a column, a bucket
            that cannot be listed or read.
    """
    try:
        entries = _list(source, root, env)
    except OSError as exc:
        raise CurateError(f"source {source.name!r} cannot be read: {exc}") from exc
    before: Counter[str] = Counter()
    out = []
    for entry in entries:
        out.append(replace(entry, ordinal=before[entry.uri]))
        before[entry.uri] += 1
    return out


def _list(source: Source, root: Path, env: Mapping[str, str]) -> list[Entry]:
    if isinstance(source, FolderSource):
        return _folder(source, root, env)
    if isinstance(source, TarSource):
        return _tars(source, root, env)
    return _table(source, root, env)


def _folder(source: FolderSource, root: Path, env: Mapping[str, str]) -> list[Entry]:
    folder = address_of(source.path, root, env)
    if is_remote(folder):
        entries = list_prefix(source.name, folder, source.licence)
    elif Path(folder).is_dir():
        entries = list_folder(source.name, Path(folder), source.licence)
    else:
        raise CurateError(f"source {source.name!r}: there is no folder {folder}", _looked(source.path))
    if not entries:
        raise CurateError(
            f"source {source.name!r}: no media files in {folder}",
            "looked in all its folders for names that end as pictures, videos, sounds and arrays do, such as "
            ".jpg, .mp4, .wav, .npy",
        )
    return entries


def _tars(source: TarSource, root: Path, env: Mapping[str, str]) -> list[Entry]:
    base, tars = matching(source.path, root, env)
    if not tars:
        raise CurateError(f"source {source.name!r}: no file matches {source.path!r} in {base}", _looked(source.path))

    def listed(tar: str) -> list[Entry]:
        return list_tar(source.name, f"{base}/{tar}", tar, source.licence)

    with ThreadPoolExecutor(TARS_AT_ONCE if is_remote(base) else 1) as pool:
        entries = [entry for some in pool.map(listed, tars) for entry in some]
    some = f"{base}/{tars[0]}" + (f" and {len(tars) - 1} more" if len(tars) > 1 else "")
    if not entries:
        raise CurateError(f"source {source.name!r}: no records in {some}", "looked for members with a name")
    if all(entry.uri in tars for entry in entries):
        at = entries[0].location
        message = at.message if isinstance(at, Broken) else ""
        raise CurateError(f"source {source.name!r}: no records in {some}", f"{entries[0].uri}: {message}")
    return entries


def _table(source: TableSource, root: Path, env: Mapping[str, str]) -> list[Entry]:
    table = address_of(source.path, root, env)
    if not _is_there(table):
        raise CurateError(f"source {source.name!r}: there is no table {table}", _looked(source.path))
    base_url = substitute(source.base_url, env) if source.base_url is not None else None
    if base_url is not None and not (
        base_url.lower().startswith(("http://", "https://")) or base_url.startswith("s3://")
    ):
        raise CurateError(f"source {source.name!r}: base_url {source.base_url!r} is not http://, https:// or s3://")
    entries = list_table(source, table, base_url)
    if not entries:
        raise CurateError(f"source {source.name!r}: the table {table} has no rows")
    return entries


def _is_there(address: str) -> bool:
    if is_remote(address):
        store, path = in_bucket(address)
        return bool(path) and store.stat(path) is not None
    return Path(address).is_file()


def _looked(path: str) -> str:
    if is_remote(path) or Path(path).is_absolute():
        return ""
    return f"{path!r} starts in the recipe's folder, where it is relative"
