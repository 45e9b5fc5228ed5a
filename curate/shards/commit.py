"""The commit point: one manifest, written last, names every file of the build (law 7)."""

from __future__ import annotations

import json
from pathlib import Path

from blake3 import blake3
from pydantic import ValidationError

from curate.schema.errors import CurateError
from curate.schema.manifest import FORMAT, MANIFEST, File, Manifest
from curate.shards.place import placed, sweep

_CHUNK = 1 << 20


def file_digest(path: Path) -> str:
    """The whole BLAKE3 of a file, 64 hex digits, read in pieces of 1 MiB on one thread."""
    h = blake3()
    with path.open("rb") as source:
        while chunk := source.read(_CHUNK):
            h.update(chunk)
    return str(h.hexdigest())


def describe_file(build: Path, path: str, rows: int) -> File:
    """The manifest's entry of a file.

    Args:
        build: the build's folder.
        path: the file, relative to it, with forward slashes.
        rows: rows of a table, records of a tar, 0 of anything else.
    """
    place = build / path
    return File(path=path, digest=file_digest(place), bytes=place.stat().st_size, rows=rows)


def write_manifest(build: Path, manifest: Manifest) -> None:
    """Commit a build: canonical JSON (keys sorted, indent 1, a newline at the end), put in place whole.

    Leftovers of killed writers are removed first, so nothing else may write to `build` any more.
    """
    sweep(build)
    text = json.dumps(manifest.model_dump(mode="json"), sort_keys=True, indent=1, allow_nan=False) + "\n"
    with placed(build / MANIFEST) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_manifest(build: Path) -> Manifest:
    """The manifest of a finished build.

    Raises:
        CurateError: no build there, an unfinished one, one of a newer format, or an unreadable manifest.
    """
    place = build / MANIFEST
    if not build.is_dir() or not any(build.iterdir()):
        raise CurateError(f"{build}: there is no build here", f"make one: curate run RECIPE --out {build}")
    if not place.is_file():
        raise CurateError(
            f"{build}: this build is not finished, it has no {MANIFEST}",
            f"run the command that began it again, it carries on where it stopped: curate run RECIPE --out {build}",
        )
    try:
        said = json.loads(place.read_bytes())
    except ValueError as exc:
        raise CurateError(f"{place}: not JSON ({exc})", "the file was changed after the build; build again") from exc
    version = said.get("format") if isinstance(said, dict) else None
    if isinstance(version, int) and version > FORMAT:
        raise CurateError(
            f"{place}: format {version}, and this curate reads formats up to {FORMAT}",
            "use the curate that made it, or a newer one",
        )
    try:
        return Manifest.model_validate(said)
    except ValidationError as exc:
        wrong = exc.errors()[0]
        where = ".".join(str(part) for part in wrong["loc"]) or "the file"
        hint = "the file was changed after the build; build again"
        raise CurateError(f"{place}: {where}: {wrong['msg']}", hint) from exc
