"""Files and tars of a few bytes, for looks that go by names."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path


def put(path: Path, content: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def tar(path: Path, *names: str) -> Path:
    """A tar of members of five bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as out:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = 5
            out.addfile(info, io.BytesIO(b"hello"))
    return path
