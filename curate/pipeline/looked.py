"""What lies at a path: sources for a recipe, by a look that costs little whatever there is."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from curate.schema.errors import CurateError
from curate.schema.manifest import MANIFEST
from curate.schema.nearest import nearest
from curate.schema.recipe import FolderSource, Source, TableSource, TarSource
from curate.schema.text import escape_controls
from curate.sources.base import Glance, readable, why
from curate.sources.columns import Columns, columns_of
from curate.sources.entry import File, UnreadableEntry, Url
from curate.sources.folder import some_files
from curate.sources.listing import open_source
from curate.sources.media_types import is_media, kind_of
from curate.sources.network import is_public
from curate.sources.paths import objects_below
from curate.storage import Store, is_remote, open_store

MOST = 1000
"""Records of each source that are looked at."""

MOST_TABLES = 32
"""Tables of a folder that become sources, and tars that are named one by one."""

NAMES = 20
"""Names of tars and tables beside each other that a look in a folder is content with."""

TABLES = (".parquet", ".csv", ".jsonl", ".ndjson")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".zip", ".rar", ".7z")
RECIPES = (".yaml", ".yml")


@dataclass(frozen=True)
class Looked:
    """A source that was found.

    Attributes:
        spec: the recipe's section.
        kinds: of the records looked at how many are image, video, audio or array by name, or `unknown`.
        broken: beside these, records that cannot be read.
        texts: of them, those with a text.
        licences: that they state.
        bytes: that they weigh, as far as names and listings tell.
        is_all: True if there are no other records.
        columns: of a table.
        private: an address of this machine or network among the urls of a table, if there is one.
    """

    spec: Source
    kinds: Mapping[str, int]
    broken: int
    texts: int
    licences: Sequence[str]
    bytes: int
    is_all: bool
    columns: Columns | None = None
    private: str = ""

    @property
    def records(self) -> int:
        """Records that were looked at."""
        return self.broken + sum(self.kinds.values())


@dataclass(frozen=True)
class Found:
    """What lies at some paths.

    Attributes:
        sources: at least one.
        notes: on what lies beside them and is not read, a sentence each.
    """

    sources: Sequence[Looked]
    notes: Sequence[str]


def look(paths: Sequence[str], root: Path, build: Store) -> Found:
    """The sources at some paths.

    Args:
        paths: folders, tars, globs of tars, tables, of this machine or `s3://`.
        root: the recipe's folder.
        build: takes what listing a source writes.

    Raises:
        CurateError: nothing is there, or nothing that can be read.
    """
    notes: list[str] = []
    sources: list[Looked] = []
    tars = [path for path in paths if _is_tar(path)]
    for path in [*paths_of_tars(tars), *(path for path in paths if not _is_tar(path))]:
        at = _At(path, root, build, {source.spec.name for source in sources}, notes)
        sources += at.sources()
    return Found(sources, notes)


def is_media_path(said: str) -> bool:
    """True if a word of the command line names media rather than a recipe."""
    return is_remote(said) or said.lower().endswith((".tar", *TABLES)) or Path(said).is_dir()


def name_of(path: str) -> str:
    """A name for a recipe or a source that is at a path."""
    here = Path(path).expanduser()
    parts = (path if is_remote(path) else os.path.normpath(here.absolute())).split("/")
    is_pattern = is_remote(path) or not here.exists()
    named = [part for part in parts if part and not (is_pattern and glob.has_magic(part))]
    stem = re.sub(r"(?i)\.(tar|parquet|csv|jsonl|ndjson)$", "", named[-1]) if named else ""
    return re.sub(r"[^A-Za-z0-9_.@-]+", "-", stem).strip("-._@") or "data"


def paths_of_tars(tars: Sequence[str]) -> list[str]:
    """The tars as few paths: a pattern that fits them and no other, or each.

    Raises:
        CurateError: there are many, and no pattern is theirs alone.
    """
    plain = [tar for tar in tars if not glob.has_magic(tar) or Path(tar).exists()]
    if len(plain) < 2 or any(map(is_remote, plain)) or len({os.path.dirname(tar) for tar in plain}) > 1:  # noqa: PTH120
        return list(tars)
    names = [Path(tar).name for tar in plain]
    folder = Path(plain[0]).parent
    begin = os.path.commonprefix(names)  # noqa: RUF071 -- by characters is meant
    end = os.path.commonprefix([name[len(begin) :][::-1] for name in names])[::-1]  # noqa: RUF071
    pattern = f"{glob.escape(begin)}*{glob.escape(end)}"
    if folder.is_dir() and sorted(fnmatch.filter(os.listdir(folder), pattern)) == sorted(set(names)):  # noqa: PTH208
        return [str(Path(glob.escape(str(folder))) / pattern), *(tar for tar in tars if tar not in plain)]
    if len(plain) > MOST_TABLES:
        raise CurateError(
            f"{len(plain)} tars are given, and {pattern} would be other ones too",
            "give their folder, or a pattern in quotes",
        )
    return list(tars)


class _At:
    """What lies at one path.

    Args:
        taken: names of sources.
        notes: takes sentences.
    """

    def __init__(self, path: str, root: Path, build: Store, taken: set[str], notes: list[str]) -> None:
        self._path, self._root, self._build, self._taken, self._notes = path, root, build, taken, notes
        if "${" in path:
            raise CurateError(f"{path}: a recipe reads `${{` as a variable", "rename it, or give a link to it")

    def sources(self) -> Iterator[Looked]:
        path, low = self._path, self._path.lower()
        if is_remote(path):
            if low.endswith(".tar"):
                yield self._tars(path)
            elif low.endswith(TABLES):
                yield self._table(path)
            else:
                yield from self._folder()
            return
        here = Path(path).expanduser()
        with readable(path):
            is_folder, is_file = here.is_dir(), here.is_file()
        if is_folder:
            yield from self._folder()
        elif is_file:
            yield self._file(here)
        elif _is_tar(path) and glob.has_magic(path):
            yield self._tars(self._said(path))
        else:
            raise CurateError(f"there is no {path}", _beside(here))

    def _file(self, path: Path) -> Looked:
        name, low = path.name, path.name.lower()
        if low.endswith(".tar"):
            return self._tars(self._said(glob.escape(str(path))))
        if low.endswith(TABLES):
            return self._table(self._said(str(path)))
        if low.endswith(RECIPES):
            raise CurateError(f"{name} is a recipe, or means to be one", f"run it: curate run {path}")
        if low.endswith(PACKED):
            raise CurateError(f"{name} is compressed; folders, plain tars and tables are read", "unpack it")
        if is_media(name):
            raise CurateError(f"{name} is one file of media", f"give its folder: {path.parent}")
        raise CurateError(
            f"{name} is nothing that is read", "give a folder of media, a .tar, or a table: .parquet, .csv, .jsonl"
        )

    def _said(self, path: str) -> str:
        """A path as the recipe says it: relative where it lies below the recipe's folder."""
        whole = Path(os.path.normpath(Path(path).expanduser().absolute()))
        said = str(whole.relative_to(self._root)) if whole.is_relative_to(self._root) else str(whole)
        return f"./{said}" if said.startswith("~") else said

    def _name(self, path: str) -> str:
        name = name_of(path)
        free = (name if i == 1 else f"{name}-{i}" for i in range(1, len(self._taken) + 2))
        found = next(one for one in free if one not in self._taken)
        self._taken.add(found)
        return found

    def _folder(self) -> Iterator[Looked]:
        path = self._path
        said = path.rstrip("/") if is_remote(path) else self._said(path)
        if open_store(path).stat(MANIFEST) is not None:
            raise CurateError(f"{path} is a build, not data for one", f"look at it: curate card {shlex.quote(path)}")
        tars, tables, packed, others = self._named(path)
        spec = FolderSource(kind="folder", name=name_of(path), path=said)
        with readable(path):
            glance = open_source(spec, self._root, os.environ).glance(self._build, MOST)
        found: list[Looked] = []
        if tars:
            pattern = "*.tar"
            if any("/" in tar for tar in tars):
                pattern = "**/*.tar"
                self._refuse_around()
            base = said if is_remote(said) else glob.escape(said)
            try:
                found.append(self._tars(f"{base}/{pattern}"))
            except CurateError as exc:
                if not glance.seen:
                    raise
                self._notes.append(f"{tars[0]} is not read: {exc.message}")
            if tables:
                self._notes.append(f"{tables[0]} lies beside tars in {path}: it is not read unless you name it")
        elif len(tables) <= MOST_TABLES:
            found += self._tables(said, tables)
        elif glance.seen:
            self._notes.append(f"{tables[0]} and more than {MOST_TABLES - 1} other tables are not read")
        else:
            raise CurateError(
                f"{path} holds more than {MOST_TABLES} tables, and a source is one of them",
                "join them, or name those that are meant",
            )
        if glance.seen and any(_leads_to_files(one) for one in found):
            self._notes.append(f"media in {path} are read as the table names them, and no others")
        elif glance.seen:
            self._refuse_around()
            found.append(_looked(spec.model_copy(update={"name": self._name(path)}), glance))
        if packed:
            self._notes.append(f"{packed[0]} is compressed: it is not read, unpack it")
        if not found:
            raise _nothing(path, [*packed, *others], self._notes)
        yield from found

    def _refuse_around(self) -> None:
        """Raises CurateError where the recipe and its build would lie in the folder, and be read with it."""
        top = Path(self._path).expanduser().resolve()
        if not is_remote(self._path) and any(at.resolve().is_relative_to(top) for at in (self._root, Path.cwd())):
            raise CurateError(
                f"the recipe and its build would lie among the media of {top}, and be read with them",
                f"begin beside it: cd {shlex.quote(str(top.parent))}, and give {shlex.quote(top.name)}",
            )

    def _named(self, path: str) -> tuple[list[str], list[str], list[str], list[str]]:
        """Names in a folder, or below a prefix: of tars, of tables, of archives, and some others."""
        wanted: tuple[Callable[[str], bool], ...] = (
            _is_tar,
            lambda name: name.lower().endswith(TABLES),
            lambda name: name.lower().endswith(PACKED),
            lambda name: not is_media(name),
        )
        most = (NAMES, MOST_TABLES + 1, 1, 3)
        with readable(path):
            if is_remote(path):
                # an empty object named as the prefix stands for a folder, as consoles of buckets leave them
                first = [stat.path for stat in islice(objects_below(path.rstrip("/")), MOST) if stat.path]
                found = [list(islice(filter(is_wanted, first), n)) for is_wanted, n in zip(wanted, most, strict=True)]
            else:
                top = Path(path).expanduser()
                found = [some_files(top, is_wanted, n)[0] for is_wanted, n in zip(wanted, most, strict=True)]
        tars, tables, packed, others = found
        return tars, tables, packed, others

    def _tables(self, said: str, names: Sequence[str]) -> Iterator[Looked]:
        for name in names:
            try:
                yield self._table(f"{said}/{name}")
            except CurateError as exc:
                self._notes.append(f"{name} is not read: {exc.message}")

    def _tars(self, said: str) -> Looked:
        spec = TarSource(kind="webdataset", name=self._name(said), path=said)
        source = open_source(spec, self._root, os.environ)
        source.check()
        glance = source.glance(self._build, MOST)
        if all(entry.is_whole for _, entry in glance.seen):
            raise source.nothing(next((entry for _, entry in glance.seen), None))
        return _looked(spec, glance)

    def _table(self, said: str) -> Looked:
        spec = TableSource(kind="table", name=name_of(said), path=said)
        columns = columns_of(spec, self._root, os.environ, self._build, MOST)
        if not columns.glance.seen:
            raise CurateError(f"{said} has no rows")
        chosen = spec.model_copy(
            update={
                "name": self._name(said),
                "uri": columns.uri,
                "text": columns.text,
                "licence_column": columns.licence,
            }
        )
        return replace(_looked(chosen, columns.glance), columns=columns, private=_private(columns.glance))


def _looked(spec: Source, glance: Glance) -> Looked:
    """What a glance tells.

    Raises:
        CurateError: nothing of it can be read.
    """
    broken = [entry for _, entry in glance.seen if isinstance(entry.location, UnreadableEntry)]
    good = [(name, entry) for name, entry in glance.seen if not isinstance(entry.location, UnreadableEntry)]
    if not good:
        raise CurateError(f"nothing in {spec.path} can be read", escape_controls(why(broken[0])))
    entries = [entry for _, entry in good]
    return Looked(
        spec,
        dict(Counter(kind_of(name) or "unknown" for name, _ in good).most_common()),
        len(broken),
        sum(entry.text is not None for entry in entries),
        [licence for licence, _ in Counter(e.licence for e in entries if e.licence).most_common()],
        sum(getattr(entry.location, "bytes", 0) for entry in entries),
        glance.is_all,
    )


def _is_tar(path: str) -> bool:
    return path.lower().endswith(".tar")


def _leads_to_files(one: Looked) -> bool:
    glance = one.columns.glance if one.columns is not None else Glance([], True)
    return any(isinstance(entry.location, File) for _, entry in glance.seen)


def _private(glance: Glance) -> str:
    """The first of the urls that spells out an address which fetching refuses."""
    for _, entry in glance.seen:
        if isinstance(entry.location, Url):
            with suppress(ValueError):  # no url: fetching it says so
                host = urlsplit(entry.location.url).hostname or ""
                if host == "localhost" or (re.fullmatch(r"[0-9.]+|.*:.*", host) and not is_public(host)):
                    return entry.location.url
    return ""


def _beside(path: Path) -> str:
    """A hint: what a path that is not there was meant to be."""
    folder = path.parent
    if not folder.is_dir():
        return f"nor is there a folder {folder}"
    names, _ = some_files(folder, lambda _: True, MOST)
    return nearest(path.name, {name.partition("/")[0] for name in names}).strip()


def _nothing(path: str, names: Sequence[str], notes: Sequence[str]) -> CurateError:
    """The error for a folder of which nothing is read."""
    wanted = "looked for names that end as images, videos and audio do, for .tar, .parquet, .csv and .jsonl"
    if not names:
        return CurateError(f"there are no files in {path}", wanted)
    some = escape_controls(", ".join(name.rpartition("/")[2] for name in names[:3]))
    more = "".join(f"; {note}" for note in notes[-1:])
    return CurateError(f"there is nothing in {path} that is read; it holds {some}{more}", wanted)
