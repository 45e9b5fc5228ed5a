"""Forget what failed, so that the run that follows tries it again and ends with the build that would have been."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from curate.pipeline.blocks import failed_rows
from curate.pipeline.paths import Group
from curate.pipeline.stream import ray_map
from curate.shards.fragments import read_failed
from curate.storage import Store
from curate.storage.base import Hold
from curate.storage.tables import read_table, write_table

KEPT = "retry"
"""Folder of `fetched` fragments that hold failures: their good rows are taken over, not fetched again. The end of a run
removes it."""

FOLDERS = {"fetched": "ingest", "records": "annotate", "signals": "annotate", "tokenized": "tokenize"}
"""Folders of fragments that hold failures, and the stage that made them."""

LOOKED_AT = 64
"""Fragments that one task looks at."""


def forget_failures(build: Store, hold: Hold, groups: Sequence[Group]) -> dict[str, int]:
    """Take back the commit, and remove committed fragments that hold failures, and those that were made of them.

    Until the run that follows has committed, the build is unfinished; killed anywhere, the same command or a plain run
    ends it.

    Args:
        build: a finished build, or one that was interrupted.
        hold: what the run has on it.
        groups: of the recipe's signals. What reads the values of a group with failures is made again with it.

    Returns:
        Failures that were forgotten, by stage; those of cutting and probing are counted as `annotate`'s.
    """
    hold.retract()
    found = dict.fromkeys(FOLDERS.values(), 0)
    stale: set[str] = set()
    unsure: set[tuple[str, str]] = set()
    followers = _followers(groups)
    for folder, stage in FOLDERS.items():
        paths = [s.path for s in build.files(folder)]
        parts = [paths[at : at + LOOKED_AT] for at in range(0, len(paths), LOOKED_AT)]
        for path, failed in (one for some in ray_map(partial(_failures, build, folder), parts) for one in some):
            found[stage] += failed
            if folder in ("fetched", "records"):
                stale.add(_partition(path))
            if folder == "fetched":
                write_table(build, f"{KEPT}/{path}", read_table(build, path))  # first the copy, then the removal
            elif folder == "tokenized":
                build.remove([path])
            elif folder == "signals":
                unsure |= {(group, _partition(path)) for group in followers.get(_group(path), ())}
    build.remove(s.path for s in build.files("signals") if (_group(s.path), _partition(s.path)) in unsure)
    # what was made of a partition's records goes first: a kill in between leaves nothing that is older than they are
    for folder in ("signals", "records", "samples"):
        build.remove(s.path for s in build.files(folder) if _partition(s.path) in stale)
    kept = {s.path.removeprefix(f"{KEPT}/") for s in build.files(KEPT)}
    build.remove(s.path for s in build.files("fetched") if s.path in kept)
    return found


def good_rows(build: Store, fetched: str) -> dict[str, dict[str, Any]]:
    """Rows of a fragment that are to be taken over, by record id; none where nothing is retried."""
    path = f"{KEPT}/{fetched}"
    if build.stat(path) is None:
        return {}
    return {row["record_id"]: row for row in read_table(build, path).to_pylist() if row["error"] is None}


def _followers(groups: Sequence[Group]) -> dict[str, set[str]]:
    """For each group itself and all that read what it gives, directly or through others."""
    out: dict[str, set[str]] = {g.name: {g.name} for g in groups}
    home = {f.name: g.name for g in groups for s in g.signals for f in s.gives}
    for group in groups:  # each after those that it reads
        reads = {home[field] for s in group.signals for field in s.after if field in home}
        for found in out.values():
            if reads & found:
                found.add(group.name)
    return out


def _group(path: str) -> str:
    """The group that a fragment of signals is of."""
    return PurePosixPath(path).parent.name


def _partition(path: str) -> str:
    """The partition that a fragment is of."""
    return PurePosixPath(path).name.rpartition("-")[0]


def _failures(build: Store, folder: str, paths: Sequence[str]) -> list[tuple[str, int]]:
    """Those of some fragments that hold failures, and how many."""
    counts = [(path, _count(build, folder, path)) for path in paths]
    return [(path, count) for path, count in counts if count]


def _count(build: Store, folder: str, path: str) -> int:
    if folder == "tokenized":
        return len(read_failed(build, path))
    if folder == "signals":
        return failed_rows(read_table(build, path))
    table = read_table(build, path, ["stage"])
    stages: list[str] = table.column("stage").drop_null().to_pylist()
    # a failure of fetching stands in `fetched` and is counted there; what it says of the record follows
    return len(stages) if folder == "fetched" else len(stages) - stages.count("ingest")
