"""Files of a build against the manifest: there, whole, and no others."""

from __future__ import annotations

import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import pyarrow as pa

from curate.schema.errors import CurateError
from curate.schema.manifest import MANIFEST, WORK, File, Manifest
from curate.shards.commit import file_digest
from curate.shards.ipc import open_ipc
from curate.shards.report import Problems
from curate.sources.tars import split_key
from curate.storage import Folder, Store
from curate.storage.tables import table_rows


def check_files(build: Store, manifest: Manifest, files: Sequence[File], problems: Problems, deep: bool) -> set[str]:
    """Check each file; returns the paths of those that may be read further.

    Args:
        files: those of the manifest's lists.
    """
    intact: set[str] = set()
    seen: set[str] = set()
    for file in [*manifest.lists, *files]:
        if file.path in seen:
            problems.add(f"{file.path}: listed twice in the manifest")
            continue
        seen.add(file.path)
        wrong = _wrong_place(build, file.path) or _wrong_bytes(build, file, deep)
        if wrong:
            problems.add(f"{file.path}: {wrong}")
            continue
        intact.add(file.path)
        if wrong := _wrong_rows(build, file, deep):
            problems.add(f"{file.path}: {wrong}")
    for stat in build.files():
        if stat.path not in seen and stat.path != MANIFEST and not stat.path.startswith(WORK):
            problems.add(f"{stat.path}: not listed in the manifest")
    return intact


def _wrong_place(build: Store, path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\\" in path or str(pure) != path or path == MANIFEST:
        return "not a plain path inside the build"
    if isinstance(build, Folder) and not (build.root / path).resolve().is_relative_to(build.root.resolve()):
        return "leads out of the build by a link"
    return ""


def _wrong_bytes(build: Store, file: File, deep: bool) -> str:
    stat = build.stat(file.path)
    if stat is None:
        return "missing"
    if stat.bytes != file.bytes:
        return f"{stat.bytes} bytes, the manifest says {file.bytes}"
    try:
        got = file_digest(build, file.path)[0] if deep else file.digest
    except FileNotFoundError:  # it went while we looked
        return "missing"
    if got != file.digest:
        return f"its digest is {got[:16]}…, the manifest says {file.digest[:16]}…: the file was changed"
    return ""


def _wrong_rows(build: Store, file: File, deep: bool) -> str:
    suffix = PurePosixPath(file.path).suffix
    try:
        if suffix == ".parquet":
            rows = table_rows(build, file.path)
        elif suffix == ".arrow":
            rows = sum(batch.num_rows for batch in open_ipc(build.local(file.path))[1])
        elif suffix == ".tar" and deep:
            # A record that could not be fetched has a row but no member.
            rows = max(file.rows, len(_tar_keys(build.local(file.path))))
        else:
            return ""
    except (CurateError, pa.ArrowException, tarfile.TarError, OSError) as exc:
        return f"cannot be read: {' '.join(str(exc).split())}"
    return "" if rows == file.rows else f"{rows} rows, the manifest says {file.rows}"


def _tar_keys(place: Path) -> set[str]:
    """WebDataset keys: the member's name up to the first dot of its last part."""
    keys = set()
    with tarfile.open(place) as tar:
        for member in tar:
            if member.isfile():
                keys.add(split_key(member.name)[0])
    return keys
