"""Local copies of remote objects, shared by the processes of a machine, within a budget of disk space."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from curate.schema.ids import key_of
from curate.storage.place import placed

BUDGET = 20 << 30
"""Bytes of all copies; CURATE_CACHE_BYTES sets another number. The longest unused go first."""

_SWEEP_SECONDS = 30.0
_swept = 0.0


def cache_folder() -> Path:
    """Where this user's copies and prepared media lie: CURATE_CACHE, or `~/.cache/curate-tokens`."""
    given = os.environ.get("CURATE_CACHE")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "curate-tokens"


def copy_of(name: Any, suffix: str, chunks: Callable[[], Iterable[bytes]]) -> Path:
    """The local copy of an object, made where it is not there.

    Args:
        name: JSON value that tells the object and its version from all others.
        suffix: of the file.
        chunks: gives the bytes.
    """
    key = key_of(name)
    place = cache_folder() / "objects" / key[:2] / f"{key}{suffix}"
    try:
        os.utime(place)  # used now
        return place
    except FileNotFoundError:
        pass
    with placed(place) as temporary, temporary.open("wb") as file:
        for chunk in chunks():
            file.write(chunk)
    _sweep(cache_folder() / "objects", keep=place)
    return place


def _sweep(folder: Path, keep: Path) -> None:
    """Remove the longest unused copies above the budget. Who has one open keeps reading it."""
    global _swept
    if time.monotonic() - _swept < _SWEEP_SECONDS:
        return
    _swept = time.monotonic()
    budget = int(os.environ.get("CURATE_CACHE_BYTES") or BUDGET)
    found = []
    for path in folder.glob("*/*"):
        try:
            stat = path.stat()
        except FileNotFoundError:
            continue  # another process was first
        found.append((stat.st_mtime, stat.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= budget:
            break
        if path != keep:
            path.unlink(missing_ok=True)
            total -= size
