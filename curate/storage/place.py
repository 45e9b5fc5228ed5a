"""A file is written beside its place and then put in place whole (law 7)."""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from curate.schema.errors import CurateError

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{16}\.part")

NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""Error numbers of a path that leads to nothing, or no longer does."""


def temporary_name(name: str) -> str:
    """A name of its own for a file that is being written: `.NAME.<16 hex digits>.part`."""
    return f".{name}.{secrets.token_hex(8)}.part"


def is_temporary(name: str) -> bool:
    """True if a name is one of `temporary_name`: such files never count as part of a build, and may go any time."""
    return _TEMPORARY.fullmatch(name) is not None


@contextmanager
def atomic_write(path: Path, hint: str = "choose another --out", *, sync: bool = True) -> Iterator[Path]:
    """Give a temporary path in the folder of `path` to write to; on success sync it to disk and rename it to `path`.

    Two writers of one path do not disturb each other: each has its own temporary file, the last rename wins, and
    both wrote the same bytes (law 6). On an exception the temporary file is removed and `path` is as it was.

    Args:
        hint: what a person can do where the folder cannot be written.
        sync: False where what is written need not outlive the machine's running.

    Raises:
        CurateError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(temporary_name(path.name))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if sync:
            _sync(temporary)
        temporary.replace(path)
        if sync:
            _sync(path.parent)
    except OSError as exc:
        raise _user_error(exc, path.parent, hint) from exc
    finally:
        with suppress(OSError):  # the error to be raised is the one above; a leftover counts for nothing
            temporary.unlink(missing_ok=True)


def _user_error(exc: OSError, folder: Path, hint: str) -> Exception:
    """What a person can do about it, where there is something; else the error as it is."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return CurateError(
            f"no space left on the disk of {folder}",
            "free some and run the same command again: what was committed is kept",
        )
    if exc.errno in (errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR):
        return CurateError(f"cannot write to {folder}: {exc.strerror}", hint)
    return exc


def walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """What is below a folder and is not a folder, links among them; links to folders are not followed.

    Others may write, rename and remove meanwhile: a folder that is gone when it is its turn holds nothing.
    """
    try:
        with os.scandir(folder) as scan:
            here = list(scan)
    except PermissionError:
        return  # not ours
    except OSError as exc:
        if exc.errno in NOT_THERE:
            return
        raise
    for entry in here:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(Path(entry.path))
        else:
            yield entry


def sweep(folder: Path) -> list[str]:
    """Remove what killed writers left behind under `folder`; call it only while nothing writes there.

    Returns:
        The removed paths, relative to `folder`, sorted.
    """
    found = sorted(Path(entry.path) for entry in walk(folder) if is_temporary(entry.name))
    for path in found:
        path.unlink(missing_ok=True)
    return [p.relative_to(folder).as_posix() for p in found]


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
