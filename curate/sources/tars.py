"""WebDataset tars: members that share a key are one record.

The convention is webdataset's: a member's key is its name up to the first dot of the last part, folders included
(`a/b.c.jpg` has the key `a/b` and the ending `c.jpg`).

Tars come from strangers. Nothing of them is ever unpacked to a disk or unpickled; what is wrong comes to this:

| in the tar | outcome |
| --- | --- |
| a name with `..` or a leading `/` | that record is broken: unsafe name |
| a symbolic or hard link, a device, a pipe | that record is broken; the link is not followed |
| a sparse file (GNU's old or PAX form) | that record is broken |
| a name with control, bidirectional or other unprintable characters, or not in UTF-8 | that record is broken |
| a name of more than MAX_NAME characters | that record is broken; the uri holds the beginning |
| folders with dots in their names, endings with dots | by the convention above |
| members of several keys between each other | one record a key, in the order of first members |
| two members of one name, or of names that differ in the ending's case | that record is broken |
| a key with no media member, or with several | that record is broken |
| `.npy` without other media in its key | media: an array, never unpickled |
| `.npy` beside other media; `.pt`, `.pkl`, `.cls` and other members | not read, never opened |
| a `.txt` or `.json` that is larger than 1 MiB, not UTF-8, no JSON object, or nested too deep | that record is broken |
| a `.json` whose values are not UTF-8, or whose keys come twice, in neither text nor licence | read |
| a folder, a hidden member (`.x`), `__meta__/x` | passed over |
| a size that leads beyond the end | that record is broken, and the tar: cut off |
| two sizes (header, PAX); one below 0, or into another member; a bad checksum | as far as that; the tar is broken |
| the tar cut off at a member's end, without an end mark | all records are listed; the tar is broken |
| bytes after the end mark (two tars joined) | records before it are listed; the tar is broken |
| gzip, bzip2, xz, zstd; something else; no bytes | the tar is broken |
| an end mark only | no records: an error where no other tar of the source has some |
| it is gone, or another one, before all of it is listed | what was listed is kept; the tar is broken |

"The tar is broken" is one more entry, whose uri is the tar's name: it fails at reading, so the ledger has it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from curate.schema import recipe
from curate.schema.errors import CurateError
from curate.sources.ahead import State, raw_file, state_of
from curate.sources.base import Glance, Source, Unit, looked, lost, readable, why
from curate.sources.entry import Entry, Location, TarMember, UnreadableEntry, meta_json, numbered
from curate.sources.media_types import is_array, is_media
from curate.sources.paths import matching, pattern_of
from curate.sources.sidecar import MAX_BYTES, SidecarMetadata, SourceError, parse_sidecar, reason
from curate.storage import Stat, Store

MAX_NAME = 4096
"""Characters of a member's name; what Linux takes for a path. tar itself has no limit."""

MEMBERS = 4
"""Members of a record, mostly fewer: so many are read for each record that a glance is to show."""

_SIDECARS = ("txt", "json")
_NO_WORDS = SidecarMetadata(None, None, {})
_BLOCK = 512
_LARGEST_OCTAL = 8**11 - 1  # of a header; only PAX states larger sizes
_LONGEST_END = 64 << 20  # zeros that a tar may end in; writers pad to 10 KiB
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def split_key(name: str) -> tuple[str, str]:
    """The key and the ending of a member's name: `a/b.c.jpg` gives `a/b` and `c.jpg`."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending


class Tars(Source):
    """Tars by name, each a unit, and their records by `list_tar`. Only tasks open them."""

    kind = "webdataset"

    def __init__(self, spec: recipe.TarSource, root: Path, env: Mapping[str, str]) -> None:
        super().__init__(spec, root, env)
        self._pattern = pattern_of(spec.path, root, env)

    @property
    def place(self) -> str:
        return self._tars()[0]

    def check(self) -> None:
        with readable(self.name):
            base, tars = self._tars()
            if not tars:
                raise CurateError(f"source {self.name!r}: no file matches {self.path!r} in {base}", looked(self.path))
            with raw_file(f"{base}/{tars[0].path}", tars[0].bytes) as first:
                first.read(_BLOCK)

    def units(self, build: Store) -> Iterator[Unit]:
        with readable(self.name):
            base, tars = self._tars()
        for tar in tars:
            yield Unit(self.name, tar.path, f"{base}/{tar.path}", tar.bytes, {})

    def _tars(self) -> tuple[str, list[Stat]]:
        base, tars = matching(self._pattern)
        odd = [_text(tar.path) for tar in tars if _text(tar.path) != tar.path]
        if odd:
            raise CurateError(f"source {self.name!r}: the name {odd[0]} is not UTF-8", "uris begin with it: rename it")
        return base, tars

    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        try:
            yield from list_tar(self.name, unit.address, unit.name, self.licence)
        except OSError as exc:
            yield lost(unit, self.licence, exc)

    def glance(self, build: Store, most: int) -> Glance:
        """By the first members of the first tars."""
        seen: list[tuple[str, Entry]] = []
        for unit in self.units(build):
            if len(seen) >= most:
                return Glance(seen[:most], False)
            with readable(self.name):
                groups, damage, is_all = _first_groups(unit.address, (most - len(seen)) * MEMBERS)
            entries = _entries(self.name, unit.address, unit.name, self.licence, groups, damage)
            names = (f"{unit.name}/{_text(group.name)}" for group in groups.values())
            seen += zip(chain(names, [unit.name]), entries, strict=False)
            if not is_all:
                return Glance(seen[:most], False)
        return Glance(seen[:most], len(seen) <= most)

    def state(self, unit: Unit, build: Store) -> str:
        size, version = state_of(unit.address)
        return f"{size} {version}" if version else ""

    def weight(self, units: Sequence[Unit], build: Store) -> float:
        return sum(unit.bytes for unit in units)

    def nothing(self, said: Entry | None) -> CurateError:
        base, tars = self._tars()
        some = f"{base}/{tars[0].path}" * bool(tars) + (f" and {len(tars) - 1} more" if len(tars) > 1 else "")
        return CurateError(f"source {self.name!r}: no records in {some}", why(said) or "looked for members with a name")


def list_tar(source: str, tar: Path | str, name: str, licence: str | None = None) -> Iterator[Entry]:
    """The records of one tar, in the order of their first members; uris are `name/key`.

    Only headers and sidecars are read, all of them before the first record is given: members of a key may lie apart.
    A record is broken when one of its members repeats an ending, is a link or a device, lies outside the tar's own
    folder by its name, or is cut off; when none of them is media or several are; and when a sidecar cannot be read.
    Where the tar itself is damaged, cut off or compressed, or changes meanwhile, a broken entry with the uri `name`
    says so after the records that were found.
    Hidden members and members of `__name__` folders are passed over, as webdataset does.

    Args:
        source: name of the source.
        tar: the file, or the `s3://` address of an object.
        name: what uris call it.
        licence: of records whose sidecar states none.

    Raises:
        OSError: it cannot be opened.
    """
    groups, damage, _ = _first_groups(str(tar))
    return numbered(_entries(source, str(tar), name, licence, groups, damage))


def _first_groups(address: str, most: int | None = None) -> tuple[dict[str, _Group], str, bool]:
    """Members of a tar by key, what is wrong with the tar, and whether these are all.

    Args:
        most: members to read; all where absent. A key that they may end in is left out.

    Raises:
        OSError: it cannot be opened.
    """
    groups: dict[str, _Group] = {}
    state, key, read = state_of(address), "", 0
    with _Bounded(raw_file(address, state[0]), state[0]) as file:
        head = file.read(8)
        file.seek(0)
        reader = _Reader(file)
        try:
            for member in islice(reader, most):
                read += 1
                if not _is_passed_over(member.name):
                    key, ending = split_key(member.name)
                    group = groups.get(key)
                    if group is None:
                        group = groups[key] = _Group()
                    group.add(member, ending.lower(), file)
        except OSError as exc:
            reader.damage = f"the tar cannot be read to its end: {reason(exc)}"
    is_all = most is None or read < most
    if not is_all:
        groups.pop(key, None)
    return groups, _damage(reader.damage, head, address, state), is_all


def _damage(damage: str, head: bytes, address: str, state: State) -> str:
    """What is wrong with a whole tar, nothing where it is as it should be."""
    for magic, what in _COMPRESSED.items():
        if head.startswith(magic):
            return f"the tar is compressed with {what}; only plain tars are read: unpack it"
    try:
        is_same = state_of(address) == state
    except FileNotFoundError:
        is_same = False
    return damage if is_same else "the tar changed while it was read"


def _entries(
    source: str, tar: str, name: str, licence: str | None, groups: dict[str, _Group], damage: str
) -> Iterator[Entry]:
    for key, group in groups.items():
        words = _NO_WORDS
        location: Location
        try:
            words = group.words()
            location = group.locate(tar)
        except SourceError as exc:
            location = UnreadableEntry("SourceError", str(exc))
        uri = f"{name}/{_short(_text(key))}"
        meta = meta_json(words.meta)
        yield Entry(source, uri, 0, words.text, words.licence or licence, meta, location, name)
    if damage:
        yield Entry.whole(source, name, licence, "SourceError", damage)


class Member(NamedTuple):
    """A member as its headers state it.

    Attributes:
        name: bytes that are not UTF-8 as half surrogates.
        offset: where its bytes start in the tar.
        size: how many there are.
        fault: why it is no file whose bytes lie there, empty where it is.
    """

    name: str
    offset: int
    size: int
    fault: str = ""


@dataclass(slots=True)
class _Group:
    """Members of one key, and the first thing that is wrong with them."""

    members: dict[str, Member] = field(default_factory=dict)
    sidecars: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""

    def add(self, member: Member, ending: str, file: _Bounded) -> None:
        """A member, and its content where it is a sidecar; of a longer one a little more than is allowed.

        Sidecars are read as they come: a bucket's bytes beside the header are at hand.
        """
        problem = _problem(member, file.size)
        if ending in self.members:
            problem = problem or f"the tar holds more than one member {_short(_text(member.name))}"
        self.problem = self.problem or problem
        self.members.setdefault(ending, member)
        if ending in _SIDECARS and not self.problem:
            file.seek(member.offset)
            self.sidecars[ending] = file.read(min(member.size, MAX_BYTES + 1))

    def words(self) -> SidecarMetadata:
        """What the sidecars say; nothing where a member has a problem."""
        return _NO_WORDS if self.problem or not self.sidecars else parse_sidecar(*map(self.sidecars.get, _SIDECARS))

    @property
    def media(self) -> list[Member]:
        """Its members that are named as media are; arrays only where there is nothing else."""
        shown = {ending: member for ending, member in self.members.items() if is_media(f"x.{ending}")}
        return [member for ending, member in shown.items() if not is_array(f"x.{ending}")] or list(shown.values())

    @property
    def name(self) -> str:
        """Of its media, or of its first member."""
        return next(iter(self.media or self.members.values())).name

    def locate(self, tar: str) -> TarMember:
        if self.problem:
            raise SourceError(self.problem)
        media = self.media
        if not media:
            names = ", ".join(sorted(_text(member.name) for member in self.members.values()))
            raise SourceError(f"none of its members is media: {names}")
        if len(media) > 1:
            names = ", ".join(sorted(_text(member.name) for member in media))
            raise SourceError(f"more than one of its members is media, which is not read yet: {names}")
        return TarMember(tar, media[0].offset, media[0].size)


class _Reader:
    """Members of a tar in order; afterwards `damage` says what could not be read of it."""

    def __init__(self, file: _Bounded) -> None:
        self._file = file
        self.damage = ""

    def __iter__(self) -> Iterator[Member]:
        at = -1
        try:
            tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 -- the file is its caller's
            while (info := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
                if info.size < 0 or info.offset_data <= at:
                    self.damage = f"the tar is damaged near byte {max(at, 0)}: what follows is not read"
                    return
                if self._has_two_sizes(info):
                    name = _short(_text(info.name))
                    self.damage = f"the tar states two sizes of the member {name}: what follows is not read"
                    return
                at = info.offset_data
                if not info.isdir():
                    yield Member(info.name, info.offset_data, info.size, _fault(info))
            self.damage = self._after(tar.offset)
        except (tarfile.TarError, ValueError, ArithmeticError, RecursionError) as exc:
            self.damage = f"the tar is damaged or cut off, or no tar: {exc}"

    def _has_two_sizes(self, info: tarfile.TarInfo) -> bool:
        """True if PAX says another size than the header: members between the two are seen by some readers only."""
        if "size" not in info.pax_headers or info.size > _LARGEST_OCTAL or info.issparse():
            return False
        self._file.seek(info.offset_data - _BLOCK)
        return tarfile.TarInfo.frombuf(self._file.read(_BLOCK), "utf-8", "surrogateescape").size != info.size

    def _after(self, offset: int) -> str:
        """What is wrong from the place where tarfile stopped; it stops without a word at damage too."""
        if offset >= self._file.size:
            return "the tar ends without its end mark: it may be cut off"
        if self._file.size - offset > _LONGEST_END:
            return f"the tar holds {self._file.size - offset} bytes more after byte {offset}, which are not read"
        self._file.seek(offset)
        rest = self._file.read(self._file.size - offset)
        if rest[:_BLOCK].strip(b"\0"):
            return f"the tar is damaged or cut off at byte {offset}: what follows is not read"
        if rest.strip(b"\0"):
            return f"the tar goes on after its end mark at byte {offset} (tars joined as they are?): not read"
        return ""


class _Bounded(io.BufferedReader):
    """A file of which no more is asked than there is: headers state sizes, and Python sets room aside for them."""

    def __init__(self, raw: io.RawIOBase, size: int) -> None:
        super().__init__(raw)
        self.size = size

    def read(self, count: int | None = -1, /) -> bytes:
        if count is None or count < 0:
            raise ValueError("a header states a size below 0")
        return super().read(min(count, max(0, self.size - self.tell())))


def _is_passed_over(name: str) -> bool:
    base = name.rpartition("/")[2]
    return (name.startswith("__") and "__/" in name) or (base.startswith(".") and base.strip(".") != "")


def _fault(info: tarfile.TarInfo) -> str:
    """Why a member is no file whose bytes lie in the tar."""
    if info.issym() or info.islnk():
        return "is a link: not followed"
    if info.issparse():
        return "is a sparse file, whose bytes do not lie together"
    return "" if info.isfile() else "is not a file"


def _problem(member: Member, size: int) -> str:
    name = member.name
    if len(name) > MAX_NAME:
        return f"the member {_short(_text(name))} has a name of {len(name)} characters, more than {MAX_NAME}"
    if name.startswith("/") or (".." in name and ".." in name.split("/")):
        return f"the member {_text(name)} has an unsafe name: it lies outside the tar's folder"
    if not name.isprintable():
        return f"the member {_text(name)} has a name that is not printable UTF-8"
    if member.fault:
        return f"the member {_text(name)} {member.fault}"
    if member.offset + member.size > size:
        return f"the member {_text(name)} is cut off: the tar ends before it does"
    return ""


def _text(name: str) -> str:
    """A name that any UTF-8 writer takes; tarfile gives bytes that are not UTF-8 as half surrogates."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _short(text: str) -> str:
    """The beginning of a name that no file has."""
    return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…"
