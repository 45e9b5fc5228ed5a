"""A bounded folder of files that were made when they were asked for: the oldest go first."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

CACHE_BYTES = 256 << 20
"""Of all files of a folder; beyond it the oldest go."""

_SWEEP = 64  # so many are written between two looks at how much is kept


class KeptFiles:
    """Files by name. Several processes may read and write them at once."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._written = folder, 0

    def read(self, name: str) -> bytes | None:
        """A file; None where it was not made yet, or was pruned."""
        try:
            return (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put a file in place, whole or not at all."""
        handle, partial = tempfile.mkstemp(dir=self._folder, prefix="new-")
        with os.fdopen(handle, "wb") as out:
            out.write(data)
        Path(partial).replace(self._folder / name)
        self._written += 1
        if self._written % _SWEEP == 0:
            prune(self._folder, CACHE_BYTES)


def prune(folder: Path, most: int) -> None:
    """Remove the oldest files of a folder until the others have at most `most` bytes."""
    found = []
    for file in folder.iterdir():
        with suppress(FileNotFoundError):  # another thread gave it its name, or removed it
            told = file.stat()
            found.append((told.st_mtime_ns, told.st_size, file))
    held = 0
    for _, size, file in sorted(found, reverse=True):
        held += size
        if held > most:
            file.unlink(missing_ok=True)
