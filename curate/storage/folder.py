"""A store that is a folder of this machine, or of a file system that nodes share."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from curate.schema.errors import CurateError
from curate.storage.base import Lease, Stat, Store
from curate.storage.place import NOT_THERE, atomic_write, is_temporary, sweep, walk


@dataclass(frozen=True)
class Folder(Store):
    """Files below `root`, an absolute path."""

    root: Path

    @property
    def remote(self) -> bool:
        return False

    def __str__(self) -> str:
        return str(self.root)

    def read(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def read_range(self, path: str, offset: int, size: int) -> bytes:
        with (self.root / path).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def chunks(self, path: str, size: int = 1 << 24) -> Iterator[bytes]:
        with (self.root / path).open("rb") as file:
            while chunk := file.read(size):
                yield chunk

    def stat(self, path: str) -> Stat | None:
        try:
            found = (self.root / path).stat()
        except OSError as exc:
            if exc.errno in NOT_THERE:
                return None
            raise
        return Stat(path, found.st_size) if S_ISREG(found.st_mode) else None

    def files(self, folder: str = "") -> list[Stat]:
        found: dict[str, int] = {}  # a file that is replaced meanwhile may come twice
        for entry in walk(self.root / folder):
            if not is_temporary(entry.name):
                with suppress(FileNotFoundError):  # removed since it was listed
                    path = Path(entry.path).relative_to(self.root).as_posix()
                    found[path] = entry.stat(follow_symlinks=False).st_size
        return [Stat(path, size) for path, size in sorted(found.items())]

    def write(self, path: str, data: bytes) -> None:
        with atomic_write(self.root / path) as temporary:
            temporary.write_bytes(data)

    def atomic_write(self, path: str) -> AbstractContextManager[Path]:
        return atomic_write(self.root / path)

    def remove(self, paths: Iterable[str]) -> None:
        for path in paths:
            place = self.root / path
            place.unlink(missing_ok=True)
            for folder in place.parents:
                if folder == self.root:
                    break
                try:
                    folder.rmdir()
                except FileNotFoundError:
                    continue  # another was first
                except OSError:
                    break  # it is not empty

    def local(self, path: str) -> Path:
        return self.root / path

    @contextmanager
    def acquire(self, commit_point: str) -> Iterator[Lease]:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root, os.O_RDONLY)
        except OSError as exc:
            raise CurateError(f"cannot make the build in {self}: {exc.strerror}", "choose another --out") from exc
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(handle)
            raise CurateError(f"another run is at work on {self}", "wait for it, or choose another --out") from exc
        try:
            yield FolderLease(self, commit_point)
        finally:
            os.close(handle)  # and with it the lock; the kernel does the same for a process that is killed


class FolderLease(Lease):
    """The kernel keeps others out for as long as the process lives, so committing is a rename."""

    def __init__(self, folder: Folder, commit_point: str) -> None:
        self._folder = folder
        self._commit_point = commit_point

    def commit(self, data: bytes) -> None:
        sweep(self._folder.root)
        self._folder.write(self._commit_point, data)

    def retract(self) -> None:
        self._folder.remove([self._commit_point])
