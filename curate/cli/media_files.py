"""Files under a folder that a command of `tokenizers` was given; those that cannot be read are named and left out."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TypeVar

import typer

from curate.schema.errors import CurateError, MediaError, first_line

Read = TypeVar("Read")


def read_files(folder: Path, suffixes: Collection[str], read: Callable[[Path], Read]) -> list[tuple[Path, Read]]:
    """Files under a folder in name order, each with what `read` made of it.

    Args:
        suffixes: lower case without the dot, as in `sources.media_types`.
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
            typer.echo(f"left out {path.name}: {first_line(error)}", err=True)
    if not found:
        raise CurateError(f"none of the {len(paths)} files under {folder} can be used", "each says why above")
    return found
