"""The interface of a place that holds files by relative path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Stat:
    """One file.

    Attributes:
        path: relative to the store, with forward slashes.
        bytes: its size.
        version: of an object by `Store.stat`, what tells it from others of its name and size; does not count where two
            are compared.
    """

    path: str
    bytes: int
    version: str = field(default="", compare=False)


class Store(ABC):
    """Files by relative path. Cheap to make and to send to other processes: it holds an address, no connection.

    A missing file is a FileNotFoundError in every method that reads. A user error (no space, no permission, a
    server that does not answer after all tries) is a CurateError.
    """

    @property
    @abstractmethod
    def remote(self) -> bool:
        """True if every node of a cluster can reach it by its address alone."""

    @abstractmethod
    def __str__(self) -> str:
        """The address as a person writes it; never with credentials."""

    def name(self, path: str) -> str:
        """A file's address, for messages."""
        return f"{str(self).rstrip('/')}/{path}"

    @abstractmethod
    def read(self, path: str) -> bytes:
        """A whole file."""

    @abstractmethod
    def read_range(self, path: str, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on; fewer where the file ends before."""

    def tail(self, path: str, size: int) -> tuple[bytes, int]:
        """The last `size` bytes of a file, or all of it where it has fewer, and its size."""
        found = self.stat(path)
        if found is None:
            raise FileNotFoundError(self.name(path))
        return self.read_range(path, max(0, found.bytes - size), size), found.bytes

    @abstractmethod
    def chunks(self, path: str, size: int = 1 << 24) -> Iterator[bytes]:
        """A file's bytes in order, about `size` at a time."""

    @abstractmethod
    def stat(self, path: str) -> Stat | None:
        """The file, or None where there is none."""

    @abstractmethod
    def files(self, folder: str = "") -> list[Stat]:
        """All files below a folder, sorted by path; empty where there is no such folder.

        Others may write and remove meanwhile: a file that is there from before until after is listed, one that comes or
        goes may be, and none that is still being written is. A listed file may be gone when it is read.
        """

    @abstractmethod
    def write(self, path: str, data: bytes) -> None:
        """Put a file in place, whole or not at all, over one that may be there."""

    @abstractmethod
    def atomic_write(self, path: str) -> AbstractContextManager[Path]:
        """A temporary local file to write to, put in place whole when the block ends without an error."""

    @abstractmethod
    def remove(self, paths: Iterable[str]) -> None:
        """Remove files; those that are not there are no error."""

    @abstractmethod
    def local(self, path: str) -> Path:
        """A local file with these bytes, to map or to hand to a library: the file itself, or a copy of it.

        Open it at once. A copy stays until this process has asked for 64 others; one that is open can be read on then.
        Who needs files for longer before they are opened says `pinned`.
        """

    @abstractmethod
    def acquire(self, commit_point: str) -> AbstractContextManager[Lease]:
        """Keep other runs out.

        Args:
            commit_point: the file that commits what this run does.

        Raises:
            CurateError: another run is at work, or nothing can be written here.
        """

    @contextmanager
    def pinned(self, paths: Sequence[str]) -> Iterator[list[Path]]:
        """`local` of many files, all of which stay until the block ends."""
        yield [self.local(path) for path in paths]

    def existing(self, paths: Iterable[str]) -> set[str]:
        """Those of `paths` that are there."""
        return {path for path in paths if self.stat(path) is not None}


class Lease(ABC):
    """What a run has on a store while it is at work."""

    warning: str | None = None
    """What the store cannot promise, to be shown; None where it promises all."""

    @abstractmethod
    def commit(self, data: bytes) -> None:
        """Put the commit point in place, if it is still what it was when the hold began.

        Raises:
            CurateError: another run has committed meanwhile.
        """

    @abstractmethod
    def retract(self) -> None:
        """Remove the commit point, on the same condition."""
