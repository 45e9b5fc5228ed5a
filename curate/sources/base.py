"""What a source is: units that can be read on their own, by tasks that know nothing of each other."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

from curate.plugins import checked_options
from curate.schema import recipe
from curate.schema.errors import CurateError
from curate.sources.ahead import is_there, state_of
from curate.sources.entry import Entry, UnreadableEntry, clean, meta_json, numbered
from curate.sources.locate import home_of, locate, sized
from curate.sources.paths import address_of
from curate.sources.sidecar import SourceError, reason
from curate.storage import Store


class Options(BaseModel):
    """Options of a source of one's own; subclasses add fields. Unknown keys are refused with the allowed names."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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


@dataclass(frozen=True)
class Glance:
    """Some of the records of a source.

    Attributes:
        seen: each with a name that ends as its media are named.
        is_all: True if the source has no more.
    """

    seen: Sequence[tuple[str, Entry]]
    is_all: bool


class Source(ABC):
    """A source of the recipe, with its address. Cheap to make and to send to tasks.

    One of your own writes `records`, and `units` where its file has parts that can be read on their own; the rest is
    for sources that know better. `examples/plugins/source.py` is one.

    Args:
        spec: the recipe's section.
        root: the folder that relative paths start from.
        env: what stands for `${NAME}` in `path` and `base_url`. It does not show in names, uris or ids.

    Attributes:
        kind: what the recipe calls it.
        Options: pydantic model of its options: of a source of your own, the other keys of its section.
        name, licence, path: as in the recipe.
        address: what `path` means: an absolute path, or `s3://...`.
        options: an `Options`.

    Raises (constructor):
        CurateError: a variable that is not set, an address that is none, an option that it does not have.
    """

    kind: str
    Options: ClassVar[type[BaseModel]] = Options

    def __init__(self, spec: recipe.Source, root: Path, env: Mapping[str, str]) -> None:
        self.name, self.licence, self.path = spec.name, spec.licence, spec.path
        self.kind = spec.kind
        self.address = address_of(spec.path, root, env)
        self._given = spec.options if isinstance(spec, recipe.PluginSource) else {}
        self._fetch = spec.fetch if isinstance(spec, recipe.PluginSource) else None
        self.options: Any = checked_options("source", spec.kind, self.Options, self._given)

    @property
    def place(self) -> str:
        """The address of a file or folder that every process that reads the source has to see."""
        return self.address

    def check(self) -> None:
        """Raises where it is not there or not what it is said to be, by a look that costs little whatever its size.

        Raises:
            CurateError: it is not.
        """
        with readable(self.name):
            if not is_there(self.address) and not Path(self.address).is_dir():
                raise CurateError(f"source {self.name!r}: there is no {self.address}", looked(self.path))

    def units(self, build: Store) -> Iterator[Unit]:
        """Names and sizes of all units, in the source's order; nothing is held of one when the next is asked for.

        By default the whole file is one.

        Args:
            build: takes what is too long for a unit (`entries/`).

        Raises:
            CurateError: the source cannot be listed.
        """
        with readable(self.name):
            size = state_of(self.address)[0]
        yield Unit(self.name, self.address.rpartition("/")[2], self.address, size, {})

    def glance(self, build: Store, most: int) -> Glance:
        """A look at some of its records, at most so many. What it costs does not grow with the source.

        Raises:
            CurateError: the source cannot be read.
        """
        seen: list[tuple[str, Entry]] = []
        for unit in self.units(build):
            for entry in self.read(unit, build):
                if len(seen) == most:
                    return Glance(seen, False)
                seen.append((entry.uri, entry))
        return Glance(seen, True)

    def state(self, unit: Unit, build: Store) -> str:
        """What tells this version of a unit from others, its text sidecars and media included: while it is the same, a
        unit that was read need not be read again. Empty where nothing tells, as by default.

        Raises:
            OSError: the unit is gone.
        """
        return ""

    def records(self, unit: Unit) -> Iterator[Entry]:
        """The records of a unit, in order, each made by `entry`. Whatever it raises stands for the rest of the unit."""
        raise NotImplementedError(f"the source {self.kind} has neither `records` nor `read`")

    def entry(self, unit: Unit, uri: str, text: str | None = None, licence: str | None = None, **meta: Any) -> Entry:
        """The entry of one record of `records`.

        Args:
            uri: `http(s)://`, `s3://`, an absolute path, or one relative to the source's folder. What leads nowhere
                gives a broken entry.
            text: a caption, if there is one.
            licence: in place of the source's.
            meta: whatever else is known, as JSON can hold it.
        """
        try:
            location = locate(uri, home_of(self.address))
        except SourceError as exc:
            location = UnreadableEntry("SourceError", str(exc))
        return Entry(self.name, uri, 0, clean(text), licence or self.licence, meta_json(meta), location, unit.name)

    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        """Every record of a unit, in order; one that is there and cannot be read has a `UnreadableEntry` location.

        A unit that is gone, or that changed since it was listed or while it was read, ends with an entry that says so
        and stands for it (`Entry.is_whole`).

        Raises:
            CurateError: what all units would meet, such as a bucket that refuses the credentials.
        """
        try:
            yield from sized(numbered(self.records(unit)))
        except CurateError:
            raise
        except Exception as exc:  # of another's code: the unit fails, with the reason, and no other
            yield lost(unit, self.licence, exc)

    def weight(self, units: Sequence[Unit], build: Store) -> float | None:
        """Bytes of the media of some units, about, by a look that costs little; None where nobody knows before they
        are read.

        Args:
            build: that the units were listed to.
        """
        return None

    def fingerprint(self) -> Any:
        """JSON value of the source's own options that change what is read and that entries do not tell."""
        own = [self.options.model_dump(mode="json")] if self._given else []
        return [self.kind, *own, *([self._fetch.model_dump(exclude={"concurrency"})] if self._fetch else [])]

    def nothing(self, said: Entry | None) -> CurateError:
        """The error for a source that, all units read, gave no record.

        Args:
            said: the first entry that stands for a unit (`Entry.is_whole`), if there is one.
        """
        return CurateError(f"source {self.name!r}: no records in {self.address}", why(said))


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


def lost(unit: Unit, licence: str | None, exc: Exception) -> Entry:
    """The entry for a unit that cannot be read."""
    return Entry.whole(unit.source, unit.name, licence, type(exc).__name__, reason(exc))


def why(said: Entry | None) -> str:
    """What an entry that stands for a unit says of it, as a hint."""
    return f"{said.uri}: {said.location.message}" if said and isinstance(said.location, UnreadableEntry) else ""


def looked(path: str) -> str:
    """Where a path of the recipe was looked for, as a hint."""
    if "://" in path or Path(path).is_absolute():
        return ""
    return f"{path!r} starts in the recipe's folder, where it is relative"
