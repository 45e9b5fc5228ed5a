"""A folder of media files, of this machine or in a bucket, a page of names at a time.

Names come sorted by path, and a page ends where the digest of a name says so: a file that is added or removed moves the
end of its own page and seldom of one more, so that the pages behind it stay as they were. Names go to the build, to be
looked at by the tasks that read the pages; what is held of a folder is one directory's names, of a bucket one page's.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
from blake3 import blake3

from curate.schema.errors import CurateError
from curate.schema.ids import ID_HEX, content_id
from curate.sources.base import Glance, Source, Unit, looked, readable
from curate.sources.entry import Entry, File, Location, UnreadableEntry, meta_json
from curate.sources.media_types import is_array, is_media, media_among
from curate.sources.paths import LAST, in_bucket, listed_after, objects_below
from curate.sources.sidecar import MAX_BYTES, SidecarMetadata, SourceError, parse_sidecar, reason
from curate.storage import Stat, Store, is_remote
from curate.storage.tables import read_table, write_table

AT_ONCE = 16
"""Sidecars of a bucket that are asked for together."""

FEWEST, MEAN, MOST = 512, 1024, 4096
"""Names of a page."""

WEIGHED = 64
"""Files of a folder whose sizes tell what the others weigh."""

TURN, LOOKED_AT = 32, 1 << 15
"""Names of each folder that a glance begins with, 32 times as many with each further turn; and most names of all."""

HELD = 4096
"""Names of a bucket that wait for those of their sidecars."""

PAGE = pa.schema(
    [
        pa.field("name", pa.binary(), nullable=False),  # relative to the folder; those of a file system hold any bytes
        pa.field("bytes", pa.int64()),  # as a bucket lists them
        pa.field("txt", pa.bool_(), nullable=False),  # whether a sidecar of its stem is there
        pa.field("json", pa.bool_(), nullable=False),
    ]
)
"""A page of names (`entries/*.parquet`)."""


@dataclass(frozen=True)
class Named:
    """A name that is listed as a record's.

    Attributes:
        name: relative to the folder; bytes that are not UTF-8 as half surrogates.
        bytes: its size, None where the file has to be asked.
        txt, json: true if there is a sidecar of this ending.
    """

    name: str
    bytes: int | None
    txt: bool
    json: bool


class Folders(Source):
    """Every file under a folder, or object below a prefix, that is named as media are; uris are relative to it.

    Hidden files and folders are passed over. `a.txt` and `a.json` are the words of all media `a.*` beside them;
    `a.npy` beside other media `a.*` is passed over, as in tars. A link to a file inside the folder is read; links to
    folders are not followed (what they show inside the folder is listed in its own place).
    A link that leaves the folder or leads nowhere, a pipe or a device, a name that is not UTF-8, a sidecar that
    cannot be read and a file that is gone when its page is read give broken entries.
    The same files of a folder and of a bucket give the same entries, but for their location.
    """

    kind = "folder"

    def check(self) -> None:
        with readable(self.name):
            if is_remote(self.address):
                if next(objects_below(self.address), None) is None:
                    raise self.nothing(None)
            elif not Path(self.address).is_dir():
                raise CurateError(f"source {self.name!r}: there is no folder {self.address}", looked(self.path))

    def units(self, build: Store) -> Iterator[Unit]:
        there = {found.path for found in build.files("entries")}
        for page in pages(self._names()):
            yield self._unit(page, build, there)

    def glance(self, build: Store, most: int) -> Glance:
        """Of a folder in no order, some of each folder in it; of a bucket the first."""
        with readable(self.name):
            if is_remote(self.address):
                found = list(islice(self._names(), most + 1))
                names, is_all = found[:most], len(found) <= most
            else:
                top = Path(self.address).resolve()
                paths, is_all = some_files(top, is_media, most)
                names = [_beside_its_words(top, path) for path in paths]
        entries = self.read(self._unit(names, build, set()), build) if names else ()
        return Glance([(entry.uri, entry) for entry in entries], is_all)

    def _names(self) -> Iterator[Named]:
        with readable(self.name):
            if is_remote(self.address):
                yield from _named(objects_below(self.address), self._after)
            else:
                top = Path(self.address).resolve()
                yield from _walk(top, top, "")

    def _after(self, name: str) -> Iterator[Stat]:
        """Objects of the bucket behind a name, by names relative to the source's prefix."""
        store, prefix = in_bucket(self.address)
        start = f"{prefix}/" if prefix else ""
        for found in listed_after(store, prefix, start + name):
            yield Stat(found.path[len(start) :], found.bytes)

    def _unit(self, page: list[Named], build: Store, there: set[str]) -> Unit:
        columns = [
            [os.fsencode(named.name) for named in page],
            *([getattr(named, name) for named in page] for name in PAGE.names[1:]),
        ]
        names = b"\0".join(columns[0])
        path = f"entries/{self.name}-{content_id(names + repr(columns[1:]).encode())[:16]}.parquet"
        if path not in there:
            write_table(build, path, pa.table(columns, schema=PAGE))
        size = sum(named.bytes or 0 for named in page)
        # by names alone: where the same files lie, and whether their sizes are told, is no part of a build
        return Unit(self.name, content_id(names)[:16], self.address, size, {"page": path, "names": len(page)})

    def state(self, unit: Unit, build: Store) -> str:
        """Sizes and times of all files of a page, sidecars among them; a bucket's are not asked for one by one."""
        if is_remote(self.address):
            return ""
        known = blake3()
        for named in _page(unit, build):
            stem = named.name.rpartition(".")[0]
            names = [named.name, *[f"{stem}.txt"] * named.txt, *[f"{stem}.json"] * named.json]
            for name in names:
                try:
                    about = os.stat(os.path.join(self.address, name))  # noqa: PTH116, PTH118 -- a Path takes longer
                    known.update(b"%d %d\0" % (about.st_size, about.st_mtime_ns))
                except OSError as exc:
                    known.update(b"%d\0" % (exc.errno or 0))
        return str(known.hexdigest())

    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        names = _page(unit, build)
        if is_remote(self.address):
            with ThreadPoolExecutor(AT_ONCE) as pool:
                yield from pool.map(self._object, names)
        else:
            top = Path(self.address).resolve()
            folders: dict[str, bool] = {}
            yield from (self._file(top, folders, named) for named in names)

    def _object(self, named: Named) -> Entry:
        store, prefix = in_bucket(self.address)
        stem = f"{prefix}/" * bool(prefix) + named.name.rpartition(".")[0]
        return self._entry(
            named,
            lambda: File(f"{self.address}/{named.name}", named.bytes or 0),
            lambda suffix: store.read_range(stem + suffix, 0, MAX_BYTES + 1),
        )

    def _file(self, top: Path, folders: dict[str, bool], named: Named) -> Entry:
        path = os.path.join(top, named.name)  # noqa: PTH118 -- a Path for each name takes longer than its stat

        def read(suffix: str) -> bytes:
            beside = path.rpartition(".")[0] + suffix
            _locate(top, folders, beside)
            with Path(beside).open("rb") as file:
                return file.read(MAX_BYTES + 1)

        return self._entry(named, lambda: _locate(top, folders, path), read)

    def _entry(self, named: Named, locate: Callable[[], File], read: Callable[[str], bytes]) -> Entry:
        """`locate` and `read` raise what is wrong with the file; `read` gives what the sidecar with an ending says."""
        words = SidecarMetadata(None, None, {})
        location: Location
        unit = ""
        try:
            named.name.encode()
            location = locate()
            words = parse_sidecar(read(".txt") if named.txt else None, read(".json") if named.json else None)
        except UnicodeEncodeError:
            # as it is written here it may be the name of another file
            unit = content_id(os.fsencode(named.name))[: ID_HEX // 2]
            location = UnreadableEntry("SourceError", "its name is not UTF-8")
        except SourceError as exc:
            location = UnreadableEntry("SourceError", str(exc))
        except OSError as exc:
            location = UnreadableEntry(type(exc).__name__, reason(exc))
        uri = _shown(named.name)
        return Entry(
            self.name, uri, 0, words.text, words.licence or self.licence, meta_json(words.meta), location, unit
        )

    def weight(self, units: Sequence[Unit], build: Store) -> float:
        """As a bucket lists them; of a folder by the files of some names of a page in its middle."""
        if is_remote(self.address) or not units:
            return sum(unit.bytes for unit in units)
        names = _page(units[len(units) // 2], build)
        some = names[:: -(-len(names) // WEIGHED)]
        sizes = [size for named in some if (size := _size(Path(self.address) / named.name)) is not None]
        mean = sum(sizes) / len(sizes) if sizes else 0.0
        return mean * sum(int(unit.detail["names"]) for unit in units)

    def nothing(self, said: Entry | None) -> CurateError:
        return CurateError(
            f"source {self.name!r}: no media files in {self.address}",
            "looked in all its folders for names that end as images, videos, audio and arrays do, such as "
            ".jpg, .mp4, .wav, .npy",
        )


def _page(unit: Unit, build: Store) -> list[Named]:
    """The names of a page."""
    table = read_table(build, str(unit.detail["page"]))
    rows = zip(*(column.to_pylist() for column in table.select(PAGE.names).columns), strict=True)
    return [Named(os.fsdecode(name), *rest) for name, *rest in rows]


def _size(path: Path) -> int | None:
    """None where it is gone, or a link to nothing."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def pages(names: Iterable[Named]) -> Iterator[list[Named]]:
    """Cut a sorted list of names, which says itself where: at names whose digest begins with zeros, from FEWEST names
    on; at the latest after MOST."""
    page: list[Named] = []
    for named in names:
        page.append(named)
        if len(page) >= FEWEST:
            drawn = int.from_bytes(blake3(os.fsencode(named.name)).digest(4), "little")
            if drawn % (MEAN - FEWEST) == 0 or len(page) == MOST:
                yield page
                page = []
    if page:
        yield page


def _shown(name: str) -> str:
    """A name that any UTF-8 writer takes."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _walk(top: Path, folder: Path, prefix: str) -> Iterator[Named]:
    """Names of a folder and those in it, sorted as paths are: `a-b` comes before `a/c`."""
    try:
        with os.scandir(folder) as scan:
            here = [(item.name, item.is_dir(follow_symlinks=False), item.is_symlink()) for item in scan]
    except FileNotFoundError:
        if folder == top:
            raise
        return  # removed since its name was listed
    here = [item for item in here if not item[0].startswith(".")]
    siblings = {name for name, is_folder, _ in here if not is_folder}
    media = media_among(siblings)
    for name, is_folder, is_link in sorted(here, key=lambda item: _shown(item[0]) + "/" * item[1]):
        if is_folder:
            yield from _walk(top, folder / name, f"{prefix}{name}/")
        elif name in media or (is_link and _is_folder_outside(top, folder / name)):
            stem = name.rpartition(".")[0]
            yield Named(prefix + name, None, f"{stem}.txt" in siblings, f"{stem}.json" in siblings)


def some_files(top: Path, wanted: Callable[[str], bool], most: int) -> tuple[list[str], bool]:
    """Some files of a folder and those in it, without a list of all: at first a few of each folder, then more.

    Args:
        wanted: tells by a file's name.
        most: files to find.

    Returns:
        Paths relative to `top`, sorted, hidden ones left out; and whether there are no others.
    """
    each = TURN
    while True:
        found, is_all = _some_of_each(top, wanted, most, each)
        if is_all or len(found) >= most or each >= LOOKED_AT:
            return sorted(found[:most]), is_all and len(found) <= most
        each *= TURN


def _some_of_each(top: Path, wanted: Callable[[str], bool], most: int, each: int) -> tuple[list[str], bool]:
    """As `some_files`, by so many names of each folder and LOOKED_AT of all; not sorted."""
    found: list[str] = []
    folders, looked_at, is_all = deque([""]), 0, True
    while folders and len(found) <= most and looked_at < LOOKED_AT:
        prefix = folders.popleft()
        with os.scandir(top / prefix) as scan:
            names = list(islice(scan, each + 1))
        is_all &= len(names) <= each
        looked_at += len(names)
        for item in names:
            if item.name.startswith("."):
                continue
            if item.is_dir(follow_symlinks=False):
                folders.append(f"{prefix}{item.name}/")
            elif wanted(item.name):
                found.append(prefix + item.name)
    return found, is_all and not folders


def _beside_its_words(top: Path, path: str) -> Named:
    stem = path.rpartition(".")[0]
    return Named(path, None, (top / f"{stem}.txt").exists(), (top / f"{stem}.json").exists())


def _is_folder_outside(top: Path, link: Path) -> bool:
    return link.is_dir() and not link.resolve().is_relative_to(top)


def _locate(top: Path, folders: dict[str, bool], path: str) -> File:
    """The file at a path in `top`.

    Args:
        folders: those that are known to lie in `top` with no link on the way, so that their files are asked once.
    """
    about = os.lstat(path)
    folder = path.rpartition("/")[0]
    if folder not in folders:
        folders[folder] = Path(folder).resolve() == Path(folder)
    if not folders[folder] or stat.S_ISLNK(about.st_mode):
        real = Path(path).resolve()
        if not real.is_relative_to(top):
            raise SourceError("it is a link that leaves the folder: not followed")
        if not real.exists():
            raise SourceError("it is a link to nothing")
        path, about = str(real), real.stat()
    if not stat.S_ISREG(about.st_mode):
        raise SourceError("it is not a file")
    return File(path, about.st_size)


@dataclass
class _Stem:
    """What is known of the names that begin with `stem.` and go on in the same folder."""

    stem: str
    txt: bool = False
    json: bool = False
    is_shown: bool = False  # by media other than an array
    is_known: bool = False  # no more of them comes

    def add(self, name: str) -> None:
        if name.rpartition(".")[0] != self.stem:
            return
        self.txt |= name == f"{self.stem}.txt"
        self.json |= name == f"{self.stem}.json"
        self.is_shown |= is_media(name) and not is_array(name)


def _named(objects: Iterable[Stat], after: Callable[[str], Iterator[Stat]]) -> Iterator[Named]:
    """Media among a sorted list of objects, with the sidecars of their stems, which come before or after them.

    All names of a stem begin with `stem.`, so they lie together; but others may lie between them (`a.b.jpg`, and all of
    a folder `a.d/`). Media wait until no more can come for their stem. Where too many wait, the list is read ahead for
    the first one's stem.

    Args:
        after: lists the objects behind a name.
    """
    waiting: deque[tuple[Stat, _Stem]] = deque()
    chain: list[_Stem] = []  # stems of which more may come; each begins with the one before
    for item in objects:
        while chain and not item.path.startswith(f"{chain[-1].stem}."):
            chain.pop().is_known = True
        yield from _known(waiting)
        if "/." in f"/{item.path}" or "." not in item.path.rpartition("/")[2]:
            continue
        stem = item.path.rpartition(".")[0]
        if not chain or chain[-1].stem != stem:
            chain.append(_Stem(stem))
        if not chain[-1].is_known:
            chain[-1].add(item.path)
        if is_media(item.path):
            waiting.append((item, chain[-1]))
            if len(waiting) > HELD:
                _read_ahead(waiting[0][1], item.path, after)
                yield from _known(waiting)
    for one in chain:
        one.is_known = True
    yield from _known(waiting)


def _known(waiting: deque[tuple[Stat, _Stem]]) -> Iterator[Named]:
    while waiting and waiting[0][1].is_known:
        item, stem = waiting.popleft()
        if not (is_array(item.path) and stem.is_shown):
            yield Named(item.path, item.bytes, stem.txt, stem.json)


def _read_ahead(stem: _Stem, at: str, after: Callable[[str], Iterator[Stat]]) -> None:
    """Look for all further names of a stem behind `at`, one of those that begin with it."""
    for name in _beside(f"{stem.stem}.", at, after):
        stem.add(name)
    stem.is_known = True


def _beside(begin: str, at: str, after: Callable[[str], Iterator[Stat]]) -> Iterator[str]:
    """Names behind `at` that begin so. Folders among them are stepped over, a request each."""
    while at:
        inside, slash, _ = at[len(begin) :].partition("/")
        found = after(f"{begin}{inside}/{LAST}" if slash else at)
        at = ""
        for item in found:
            if not item.path.startswith(begin):
                return
            if "/" in item.path[len(begin) :]:
                at = item.path
                break
            yield item.path
