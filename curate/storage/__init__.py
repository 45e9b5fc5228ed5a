"""Where builds and sources lie: a folder, or a bucket on an object store. One small interface for both.

A file appears whole or not at all, one run at a time works on a build, and the manifest is the one commit point: the
protocol is `docs/commit-protocol.md`.
"""

from __future__ import annotations

from pathlib import Path

from curate.storage.base import Stat, Store
from curate.storage.bucket import Bucket
from curate.storage.folder import Folder

__all__ = ["Bucket", "Folder", "Stat", "Store", "is_remote", "open_store"]


def is_remote(place: str | Path) -> bool:
    """True if a path of a recipe or of the command line names an object store (`s3://bucket/prefix`)."""
    return isinstance(place, str) and "://" in place


def open_store(place: str | Path | Store) -> Store:
    """The store at a path or an `s3://bucket/prefix` uri. Nothing is read or made yet.

    Raises:
        CurateError: a uri of another kind, without a bucket, or with credentials in it.
    """
    if isinstance(place, Store):
        return place
    if is_remote(place):
        return Bucket.of(str(place))
    return Folder(Path(place).absolute())
