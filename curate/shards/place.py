"""A file is written beside its place and then put in place whole (law 7)."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY = ".part"
"""Suffix of files that are being written; their names start with a dot. They never count as part of a build."""


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path` to write to; on success sync it to disk and rename it to `path`.

    Two writers of one path do not disturb each other: each has its own temporary file, the last rename wins, and
    both wrote the same bytes (law 6). On an exception the temporary file is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path) -> list[str]:
    """Remove what killed writers left behind under `folder`; call it only while nothing writes there.

    Returns:
        The removed paths, relative to `folder`, sorted.
    """
    found = sorted(p for p in folder.rglob(f".*{TEMPORARY}") if p.is_file())
    for path in found:
        path.unlink()
    return [p.relative_to(folder).as_posix() for p in found]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
