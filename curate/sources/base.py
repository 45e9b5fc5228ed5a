"""What a source is: units that can be read on their own, by tasks that know nothing of each other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from curate.schema import recipe
from curate.schema.errors import CurateError
from curate.sources.entry import Entry
from curate.sources.sidecar import reason
from curate.storage import Store


@dataclass(frozen=True)
class Unit:
    """A piece of a source that can be read on its own.

    Attributes:
        source: name of the source.
        name: identity inside the source: a tar's relative name, `table.parquet#3` (row group 3), a page's digest.
        address: what to open: an absolute path, or `s3://...`.
        bytes: known size of what is read; 0 where it is unknown.
        detail: small extras of the source's own. Numbers may come back from a table as text.
    """

    source: str
    name: str
    address: str
    bytes: int
    detail: Mapping[str, int | str]


class Source(ABC):
    """A source of the recipe, with its address. Cheap to make and to send to tasks.

    Args:
        spec: the recipe's section.
        root: the folder that relative paths start from.
        env: what stands for `${NAME}` in `path` and `base_url`. It does not show in names, uris or ids.

    Raises:
        CurateError: a variable that is not set, an address that is none.
    """

    kind: ClassVar[str]
    """What the recipe calls it."""

    def __init__(self, spec: recipe.Source, root: Path, env: Mapping[str, str]) -> None:
        self.name = spec.name
        self.licence = spec.licence

    @property
    @abstractmethod
    def place(self) -> str:
        """The address of a file or folder that every process that reads the source has to see."""

    @abstractmethod
    def check(self) -> None:
        """Whether it is there and what it is said to be, by a look that costs little whatever its size.

        Raises:
            CurateError: it is not.
        """

    @abstractmethod
    def units(self, build: Store) -> Iterator[Unit]:
        """Names and sizes of all units, in the source's order; nothing is held of one when the next is asked for.

        Args:
            build: takes what is too long for a unit (`entries/`).

        Raises:
            CurateError: the source cannot be listed.
        """

    def state(self, unit: Unit) -> str:
        """What tells this version of a unit from others, its text sidecars and media included: while it is the same, a
        unit that was read need not be read again. Empty where nothing tells, as by default.

        Raises:
            OSError: the unit is gone.
        """
        return ""

    @abstractmethod
    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        """Every record of a unit, in order; one that is there and cannot be read has a `UnreadableEntry` location.

        A unit that is gone, or that changed since it was listed or while it was read, ends with an entry that says so
        and stands for it (`Entry.is_whole`).

        Raises:
            CurateError: what all units would meet, such as a bucket that refuses the credentials.
        """

    @abstractmethod
    def fingerprint(self) -> Any:
        """JSON value of the source's own options that change what is read and that entries do not tell."""

    @abstractmethod
    def nothing(self, said: Entry | None) -> CurateError:
        """The error for a source that, all units read, gave no record.

        Args:
            said: the first entry that stands for a unit (`Entry.is_whole`), if there is one.
        """


@contextmanager
def readable(source: str) -> Iterator[None]:
    """Says of which source an error of the machine is.

    Raises:
        CurateError: in place of an OSError.
    """
    try:
        yield
    except OSError as exc:
        raise CurateError(f"source {source!r} cannot be read: {exc}") from exc


def lost(unit: Unit, licence: str | None, exc: OSError) -> Entry:
    """The entry for a unit that cannot be opened."""
    return Entry.whole(unit.source, unit.name, licence, type(exc).__name__, reason(exc))


def looked(path: str) -> str:
    """Where a path of the recipe was looked for, as a hint."""
    if "://" in path or Path(path).is_absolute():
        return ""
    return f"{path!r} starts in the recipe's folder, where it is relative"
