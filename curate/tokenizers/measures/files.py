"""The files of a folder that a tokenizer is fitted or measured on; those that cannot be read are named and left out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from curate.media.images import decode_image, render
from curate.media.requests import Frames
from curate.schema.errors import CurateError, MediaError, first_line

Read = TypeVar("Read")


def read_files(folder: Path, suffixes: Collection[str], read: Callable[[Path], Read]) -> list[tuple[Path, Read]]:
    """Files under a folder in name order, each with what `read` made of it.

    Args:
        suffixes: lower case, without the dot.
        read: may raise CurateError or MediaError for a file, which is then said on stderr.

    Raises:
        CurateError: there is none, or none can be read.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower().removeprefix(".") in suffixes and p.is_file())
    if not paths:
        raise CurateError(f"no media under {folder}", f"looked for {', '.join(sorted(suffixes))}")
    found = []
    for path in paths:
        try:
            found.append((path, read(path)))
        except (CurateError, MediaError) as error:
            print(f"left out {path.name}: {first_line(error)}", file=sys.stderr)
    if not found:
        raise CurateError(f"none of the {len(paths)} files under {folder} can be used", "each says why above")
    return found


def square(path: Path, size: int) -> NDArray[np.uint8]:
    """An image file as uint8 `(size, size, 3)` sRGB: exactly what the pipeline would give an image tokenizer.

    Raises:
        MediaError: the file is no image, cannot be decoded, or has too many pixels.
    """
    return render(decode_image(path.read_bytes(), path.name), Frames(size))
