"""Media as they came: a WebDataset tar for each piece of records, written once; read back by offset."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

from curate.storage import Store

_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,5})$")


class MediaTar:
    """Writes a WebDataset tar. Times and owners are zero, so equal media give equal tars."""

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, mode="w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - closed by `close`

    def add(self, key: str, uri: str, data: bytes, about: dict[str, Any]) -> tuple[str, int]:
        """Add media and its JSON; the member's name and the offset of its first byte in the tar."""
        found = _SUFFIX.search(uri.split("?", 1)[0])
        suffix = found.group(1).lower() if found else "bin"
        name = f"{key}.{suffix if suffix != 'json' else 'bin'}"
        offset = self._add(name, data)
        self._add(f"{key}.json", json.dumps(about, sort_keys=True).encode())
        return name, offset

    def _add(self, name: str, data: bytes) -> int:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        at = self._tar.offset
        self._tar.addfile(info, io.BytesIO(data))
        return at + len(info.tobuf(tarfile.GNU_FORMAT))

    def close(self) -> None:
        self._tar.close()


def read_media(build: Store, media: str, offset: int, size: int) -> bytes:
    """The bytes of a member.

    Raises:
        OSError: the tar is gone or shorter than it was.
    """
    data = build.read_range(media, offset, size)
    if len(data) != size:
        raise OSError(f"{media} ends before byte {offset + size}")
    return data
