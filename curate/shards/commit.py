"""The commit point: one manifest, written last, names the lists of every file of the build (law 7)."""

from __future__ import annotations

import json
from pathlib import Path

from blake3 import blake3
from pydantic import ValidationError

from curate.schema.errors import CurateError
from curate.schema.manifest import FORMAT, MANIFEST, File, Manifest
from curate.storage import Store, open_store
from curate.storage.base import Lease


def file_digest(store: Store, path: str) -> tuple[str, int]:
    """The whole BLAKE3 of a file, 64 hex digits, and its size in bytes; read in pieces on one thread."""
    h, size = blake3(), 0
    for chunk in store.chunks(path):
        h.update(chunk)
        size += len(chunk)
    return str(h.hexdigest()), size


def describe_file(build: Store, path: str, rows: int) -> File:
    """The manifest's entry of a file.

    Args:
        build: where the file lies.
        path: the file, relative to it, with forward slashes.
        rows: rows of a table, records of a tar, 0 of anything else.
    """
    found, size = file_digest(build, path)
    return File(path=path, digest=found, bytes=size, rows=rows)


def write_manifest(lease: Lease, manifest: Manifest) -> None:
    """Commit a build: canonical JSON (keys sorted, indent 1, a newline at the end), put in place whole.

    Leftovers of killed writers are removed first, so nothing else may write to the build any more.

    Args:
        lease: what the run has on the build (`Store.acquire`).
    """
    text = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, indent=1, allow_nan=False) + "\n"
    lease.commit(text.encode())


def read_manifest(build: Store | Path | str) -> Manifest:
    """The manifest of a finished build.

    Raises:
        CurateError: no build there, an unfinished one, one of another format, or an unreadable manifest.
    """
    build = open_store(build)
    place = build.name(MANIFEST)
    if build.stat(MANIFEST) is None:
        if not build.files():
            raise CurateError(f"{build}: there is no build here", f"make one: curate run RECIPE --out {build}")
        raise CurateError(
            f"{build}: this build is not finished, it has no {MANIFEST}",
            f"run the command that began it again, it carries on where it stopped: curate run RECIPE --out {build}",
        )
    try:
        said = json.loads(build.read(MANIFEST))
    except ValueError as exc:
        raise CurateError(f"{place}: not JSON ({exc})", "the file was changed after the build; build again") from exc
    version = said.get("format") if isinstance(said, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise CurateError(
            f"{place}: format {version}, and this curate reads format {FORMAT}",
            "use the curate that made it, or a newer one",
        )
    if isinstance(version, int) and version < FORMAT:
        raise CurateError(
            f"{place}: a build of format {version}, and this curate reads format {FORMAT}",
            "make it again into a new folder (curate run RECIPE --out NEW), or read it with the curate that made it",
        )
    try:
        return Manifest.model_validate(said)
    except ValidationError as exc:
        wrong = exc.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"]) or "the file"
        hint = "the file was changed after the build; build again"
        raise CurateError(f"{place}: {where}: {wrong['msg']}", hint) from exc
