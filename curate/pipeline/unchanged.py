"""A run of a build that is all there: nothing is decided, packed or drawn again, and no Ray is started."""

from __future__ import annotations

from collections.abc import Iterable

from curate.pipeline.finish import made_by
from curate.pipeline.plan import Plan
from curate.schema.manifest import MANIFEST, WORK, Manifest, Trial
from curate.shards.commit import read_manifest
from curate.shards.lists import read_files
from curate.storage import Store
from curate.storage.lease import LEASE

LISTED = "entries/"
"""What listing the sources has just written, to be removed at the end of each run."""

OF_PARTITIONS = ("media", "fetched", "records", "samples", "signals")
"""Folders with files of partitions, whose names say all that they were made of."""


def finished(plan: Plan, build: Store, paths: Iterable[str], trial: Trial | None) -> Manifest | None:
    """The manifest of the build, where it is what a run would commit; None where there is something to do.

    Everything is compared that the manifest follows from: the recipe and code that made it, the partitions, and the
    files that its lists name, by their sizes. A file beside them means that a run was killed on its way to another
    manifest.

    Args:
        paths: of all files of the partitions that the sources have now, of the folders OF_PARTITIONS; but those of the
            second look, which follow from these and the recipe.
        trial: what is drawn of the sources now, if they are not whole.

    Raises:
        CurateError: a build of another format.
    """
    if build.stat(MANIFEST) is None:
        return None
    manifest = read_manifest(build)
    if any(getattr(manifest, name) != value for name, value in {**made_by(plan), "trial": trial}.items()):
        return None
    named = {file.path: file.bytes for file in (*read_files(build, manifest), *manifest.lists)}
    there = {s.path: s.bytes for s in build.files() if not s.path.startswith(WORK) and s.path not in (MANIFEST, LEASE)}
    if named != {path: size for path, size in there.items() if not path.startswith(LISTED)}:
        return None
    second = tuple(f"signals/{group.name}/" for group in plan.groups if group.is_second)
    of_partitions = (p for p in named if p.split("/")[0] in OF_PARTITIONS and not p.startswith(second))
    if set(of_partitions) != set(paths):
        return None
    build.remove(path for path in there if path.startswith(LISTED))
    return manifest
