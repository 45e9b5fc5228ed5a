"""The quickstart's media, made from installed packages and served in part over http."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from curate.storage.copies import cache_folder

from .make import prepare
from .serve import serve

__all__ = ["media", "prepare"]


def default_folder() -> Path:
    """Where the media lie: `$CURATE_CACHE`, else the user's cache folder."""
    return cache_folder() / "demo"


@contextmanager
def media(folder: Path | None = None) -> Iterator[dict[str, str]]:
    """Prepare the media, serve their web part while the block runs, and give the variables that the recipe names.

    Args:
        folder: where to put them; `default_folder()` where absent.

    Raises:
        CurateError: a package that carries media is not installed, or the folder cannot be written.
    """
    made = prepare(folder if folder is not None else default_folder())
    with serve(made.folder) as base_url:
        yield made.env(base_url)
