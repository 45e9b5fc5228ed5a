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

"The tar is broken" is one more entry, whose uri is the tar's name: it fails at reading, so the ledger has it.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from curate.sources.ahead import ReadAhead
from curate.sources.entry import Broken, Entry, Location, TarMember, meta_json
from curate.sources.media_types import is_array, is_media
from curate.sources.paths import in_bucket
from curate.sources.sidecar import MAX_BYTES, SourceError, Words, read_words
from curate.storage import is_remote

MAX_NAME = 4096
"""Characters of a member's name; what Linux takes for a path. tar itself has no limit."""

_SIDECARS = ("txt", "json")
_BLOCK = 512
_LARGEST_OCTAL = 8**11 - 1  # of a header; only PAX states larger sizes
_LONGEST_END = 64 << 20  # zeros that a tar may end in; writers pad to 10 KiB
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def split_key(name: str) -> tuple[str, str]:
    """The key and the ending of a member's name: `a/b.c.jpg` gives `a/b` and `c.jpg`."""
    folder, slash, base = name.rpartition("/")
    stem, _, ending = base.partition(".")
    return folder + slash + stem, ending


def list_tar(source: str, tar: Path | str, name: str, licence: str | None = None) -> list[Entry]:
    """The records of one tar, in the order of their first members; uris are `name/key`.

    Only headers and sidecars are read. A record is broken when one of its members repeats an ending, is a link or a
    device, lies outside the tar's own folder by its name, or is cut off; when none of them is media or several are;
    and when a sidecar cannot be read. Where the tar itself is damaged, cut off or compressed, a broken entry with the
    uri `name` says so after the records that were found.
    Hidden members and members of `__name__` folders are passed over, as webdataset does.

    Args:
        source: name of the source.
        tar: the file, or the `s3://` address of an object.
        name: what uris call it.
        licence: of records whose sidecar states none.
    """
    groups: dict[str, _Group] = {}
    entries = []
    with _Bounded.of(tar) as file:
        head = file.read(8)
        file.seek(0)
        reader = _Reader(file)
        for info in reader:
            key, ending = split_key(info.name)
            if not _is_passed_over(info):
                groups.setdefault(key, _Group()).add(info, ending, file)
    for key, group in groups.items():
        words = Words(None, None, {})
        location: Location
        try:
            words = group.words()
            location = group.locate(str(tar))
        except SourceError as exc:
            location = Broken("SourceError", str(exc))
        uri = f"{name}/{_short(_text(key))}"
        entries.append(Entry(source, uri, 0, words.text, words.licence or licence, meta_json(words.meta), location))
    for magic, what in _COMPRESSED.items():
        if head.startswith(magic):
            reader.damage = f"the tar is compressed with {what}; only plain tars are read: unpack it"
    if reader.damage:
        entries.append(Entry(source, name, 0, None, licence, "{}", Broken("SourceError", reader.damage)))
    return entries


@dataclass
class _Group:
    """Members of one key, and the first thing that is wrong with them."""

    members: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    sidecars: dict[str, bytes] = field(default_factory=dict)
    problem: str = ""

    def add(self, info: tarfile.TarInfo, ending: str, file: _Bounded) -> None:
        """A member, and its content where it is a sidecar; of a longer one a little more than is allowed.

        Sidecars are read as they come: a bucket's bytes beside the header are at hand.
        """
        problem = _problem(info, file.size)
        if ending.lower() in self.members:
            problem = problem or f"the tar holds more than one member {_short(_text(info.name))}"
        self.problem = self.problem or problem
        self.members.setdefault(ending.lower(), info)
        if ending.lower() in _SIDECARS and not self.problem:
            file.seek(info.offset_data)
            self.sidecars[ending.lower()] = file.read(min(info.size, MAX_BYTES + 1))

    def words(self) -> Words:
        """What the sidecars say; nothing where a member has a problem."""
        return Words(None, None, {}) if self.problem else read_words(*map(self.sidecars.get, _SIDECARS))

    def locate(self, tar: str) -> TarMember:
        if self.problem:
            raise SourceError(self.problem)
        shown = {ending: info for ending, info in self.members.items() if is_media(f"x.{ending}")}
        media = [info for ending, info in shown.items() if not is_array(f"x.{ending}")] or list(shown.values())
        if not media:
            names = ", ".join(sorted(_text(info.name) for info in self.members.values()))
            raise SourceError(f"none of its members is media: {names}")
        if len(media) > 1:
            names = ", ".join(sorted(_text(info.name) for info in media))
            raise SourceError(f"more than one of its members is media, which is not read yet: {names}")
        return TarMember(tar, media[0].offset_data, media[0].size)


class _Reader:
    """Members of a tar in order; afterwards `damage` says what could not be read of it."""

    def __init__(self, file: _Bounded) -> None:
        self._file = file
        self.damage = ""

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        try:
            with tarfile.open(fileobj=self._file, mode="r:") as tar:
                at = -1
                while (info := tar.next()) is not None:
                    if info.size < 0 or info.offset_data <= at:
                        self.damage = f"the tar is damaged near byte {max(at, 0)}: what follows is not read"
                        return
                    if self._has_two_sizes(info):
                        name = _short(_text(info.name))
                        self.damage = f"the tar states two sizes of the member {name}: what follows is not read"
                        return
                    at = info.offset_data
                    yield info
                self.damage = self._after(tar.offset)
        except (tarfile.TarError, ValueError, ArithmeticError, RecursionError) as exc:
            self.damage = f"the tar is damaged or cut off, or no tar: {exc}"

    def _has_two_sizes(self, info: tarfile.TarInfo) -> bool:
        """Whether PAX says another size than the header: members between the two are seen by some readers only."""
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

    @classmethod
    def of(cls, tar: Path | str) -> _Bounded:
        """The file, or the object, at an address."""
        if not is_remote(tar):
            return cls(io.FileIO(tar), Path(tar).stat().st_size)
        store, path = in_bucket(str(tar))
        stat = store.stat(path)
        if stat is None:
            raise FileNotFoundError(store.name(path))
        return cls(ReadAhead(store, path, stat.bytes), stat.bytes)

    def read(self, count: int | None = -1, /) -> bytes:
        if count is None or count < 0:
            raise ValueError("a header states a size below 0")
        return super().read(min(count, max(0, self.size - self.tell())))


def _is_passed_over(info: tarfile.TarInfo) -> bool:
    if info.isdir():
        return True
    base = info.name.rpartition("/")[2]
    metadata = info.name.startswith("__") and "__/" in info.name
    return metadata or (base.startswith(".") and base.strip(".") != "")


def _problem(info: tarfile.TarInfo, size: int) -> str:
    name = _short(_text(info.name))
    if len(info.name) > MAX_NAME:
        return f"the member {name} has a name of {len(info.name)} characters, more than {MAX_NAME}"
    if info.name.startswith("/") or ".." in info.name.split("/"):
        return f"the member {name} has an unsafe name: it lies outside the tar's folder"
    if not info.name.isprintable():
        return f"the member {name} has a name that is not printable UTF-8"
    if info.issym() or info.islnk():
        return f"the member {name} is a link: not followed"
    if info.issparse():
        return f"the member {name} is a sparse file, whose bytes do not lie together"
    if not info.isfile():
        return f"the member {name} is not a file"
    if info.offset_data + info.size > size:
        return f"the member {name} is cut off: the tar ends before it does"
    return ""


def _text(name: str) -> str:
    """A name that any UTF-8 writer takes; tarfile gives bytes that are not UTF-8 as half surrogates."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _short(text: str) -> str:
    """The beginning of a name that no file has."""
    return text if len(text) <= MAX_NAME else text[:MAX_NAME] + "…"
