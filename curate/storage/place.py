"""A file is written beside its place and then put in place whole (law 7)."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.schema.errors import CurateError

TEMPORARY = ".part"
"""Suffix of files that are being written; their names start with a dot. They never count as part of a build."""


@contextmanager
def placed(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path` to write to; on success sync it to disk and rename it to `path`.

    Two writers of one path do not disturb each other: each has its own temporary file, the last rename wins, and
    both wrote the same bytes (law 6). On an exception the temporary file is removed and `path` is as it was.

    Raises:
        CurateError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as exc:
        raise _mendable(exc, path.parent) from exc
    finally:
        if path.parent.is_dir():
            temporary.unlink(missing_ok=True)


def _mendable(exc: OSError, folder: Path) -> Exception:
    """What a person can do about it, where there is something; else the error as it is."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return CurateError(
            f"no space left on the disk of {folder}",
            "free some and run the same command again: what was committed is kept",
        )
    if exc.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
        return CurateError(f"cannot write to {folder}: {exc.strerror}", "choose another --out")
    return exc


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
