"""What was made of the file that was read last: the clips of one file are read one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_all: list[LastFile[object]] = []


class LastFile(Generic[T]):
    """Keeps one result with the bytes it was made of, compared by identity: bytes never change, and a digest takes
    time."""

    def __init__(self) -> None:
        self._last: tuple[bytes, T] | None = None
        _all.append(self)  # type: ignore[arg-type]  # only to be emptied

    def of(self, data: bytes, make: Callable[[], T]) -> T:
        """The result for `data`, made anew where another file was read last. What `make` raises is raised."""
        last = self._last
        if last is None or last[0] is not data:
            last = self._last = data, make()
        return last[1]

    def forget(self) -> None:
        """Free the file."""
        self._last = None


def forget() -> None:
    """Free all files that are kept in this process."""
    for kept in _all:
        kept.forget()
