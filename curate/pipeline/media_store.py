"""Media as they came: a WebDataset tar for each partition, written once; read back by offset."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from curate.storage import Store

_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,5})$")


class MediaTar:
    """Writes a WebDataset tar. Times and owners are zero, so equal media give equal tars.

    Headers are made from a template: of a tiny image they would cost more than its hash otherwise.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._at = 0

    def add(self, key: str, uri: str, data: bytes, about: dict[str, Any]) -> tuple[str, int]:
        """Add media and its JSON; the member's name and the offset of its first byte in the tar.

        Args:
            key: ASCII, of at most 80 characters.
        """
        found = _SUFFIX.search(uri.split("?", 1)[0])
        suffix = found.group(1).lower() if found else "bin"
        name = f"{key}.{suffix if suffix != 'json' else 'bin'}"
        offset = self._add(name, data)
        self._add(f"{key}.json", json.dumps(about, sort_keys=True).encode())
        return name, offset

    def _add(self, name: str, data: bytes) -> int:
        header = _header(name, len(data))
        self._file.write(header)
        at = self._at + len(header)
        self._file.write(data)
        padding = -len(data) % tarfile.BLOCKSIZE
        self._file.write(bytes(padding))
        self._at = at + len(data) + padding
        return at

    def close(self) -> None:
        """End the tar, as `tarfile` does: two empty blocks, and zeros up to a whole record."""
        self._file.write(bytes(2 * tarfile.BLOCKSIZE + -(self._at + 2 * tarfile.BLOCKSIZE) % tarfile.RECORDSIZE))
        self._file.close()


_TEMPLATE = tarfile.TarInfo("").tobuf(tarfile.GNU_FORMAT)
_SIZE, _CHECKSUM = slice(124, 136), slice(148, 156)
"""Fields of a header, POSIX.1-1988."""


def _header(name: str, size: int) -> bytes:
    """The header that `tarfile` makes."""
    raw = name.encode("ascii")
    if len(raw) > 99 or size > 0o77777777777:
        info = tarfile.TarInfo(name)
        info.size = size
        return info.tobuf(tarfile.GNU_FORMAT)
    header = bytearray(_TEMPLATE)
    header[: len(raw)] = raw
    header[_SIZE] = b"%011o\0" % size
    header[_CHECKSUM] = b" " * 8
    header[_CHECKSUM] = b"%06o\0 " % sum(header)
    return bytes(header)


def read_media(build: Store, media: str, offset: int, size: int) -> bytes:
    """The bytes of a member.

    Raises:
        OSError: the tar is gone or shorter than it was.
    """
    data = build.read_range(media, offset, size)
    if len(data) != size:
        raise OSError(f"{media} ends before byte {offset + size}")
    return data


READ_BYTES, GAP_BYTES = 8 << 20, 256 << 10
"""Media that stand together in their tar are read with one request, up to so many bytes, over gaps of so many."""


class MediaReader:
    """Reads the media of some samples, in their order; clips of one video share a read.

    Args:
        samples: rows of the SAMPLES table, or of FETCHED, as they will be read.
    """

    def __init__(self, build: Store, samples: Sequence[Mapping[str, Any]]) -> None:
        self._build, self._samples = build, samples
        self._media, self._start, self._data = "", 0, b""

    def read(self, i: int) -> bytes:
        """Media of sample i."""
        sample = self._samples[i]
        if not self._holds(sample):
            self._media, self._start = sample["media"], sample["offset"]
            self._data = read_media(self._build, self._media, self._start, self._stop(i) - self._start)
        at = sample["offset"] - self._start
        return self._data[at : at + sample["bytes"]]

    def _holds(self, sample: Mapping[str, Any]) -> bool:
        at: int = sample["offset"] - self._start
        return bool(sample["media"] == self._media and at >= 0 and at + sample["bytes"] <= len(self._data))

    def _stop(self, i: int) -> int:
        """Where a read that begins with sample i ends."""
        first = self._samples[i]
        stop: int = first["offset"] + first["bytes"]
        for sample in self._samples[i + 1 :]:
            end: int = sample["offset"] + sample["bytes"]
            near = first["offset"] <= sample["offset"] <= stop + GAP_BYTES and end <= first["offset"] + READ_BYTES
            if sample["media"] != first["media"] or not near:
                break
            stop = max(stop, end)
        return stop
