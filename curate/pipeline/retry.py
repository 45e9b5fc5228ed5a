"""Forget what failed, so that the run that follows tries it again and ends with the build that would have been."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.decide.engine import Engine
from curate.pipeline.blocks import failed_rows, rows_failed
from curate.pipeline.paths import Group
from curate.shards.fragments import read_failed
from curate.storage import Store
from curate.storage.base import Lease
from curate.storage.tables import read_table, write_named_table, write_table

KEPT = "retry"
"""Folder of `fetched` fragments that hold failures: their good rows are taken over, not fetched again. The end of a run
removes it."""

FOLDERS = ("fetched", "records", "signals", "tokenized")
STAGES = ("ingest", "cut", "annotate", "tokenize")
"""Where failures stand, and what came to them there."""

LOOKED_AT = 64
"""Fragments that one task looks at."""


def reset_failures(
    build: Store, lease: Lease, engine: Engine, groups: Sequence[Group] = (), texts: Sequence[str] = ()
) -> dict[str, int]:
    """Take back the commit, and remove committed fragments that hold failures, and those that were made of them.

    Until the run that follows has committed, the build is unfinished; killed anywhere, the same command or a plain run
    ends it: what was made of a file goes before it, so that nothing is left that is older than what it was made of.

    Args:
        build: a finished build, or one that was interrupted.
        lease: what the run has on it.
        engine: runs the tasks that look for failures.
        groups: of signals, in an order that respects what they read of each other.
        texts: token streams that read captions or labels.

    Returns:
        Failures that were forgotten, by stage.
    """
    lease.retract()
    found: dict[str, int] = {}
    failing: dict[str, list[str]] = {}
    for folder, stage in zip(FOLDERS, STAGES, strict=True):
        paths = [s.path for s in build.files(folder)]
        parts = ((build, folder, paths[at : at + LOOKED_AT]) for at in range(0, len(paths), LOOKED_AT))
        counts = dict(one for some in engine.map(_failures, parts) for one in some)
        found[stage], failing[folder] = sum(counts.values()), list(counts)
    good = _keep_good(build, engine, failing, groups)
    _remove(build, failing, groups, texts, good)
    return found


def _keep_good(build: Store, engine: Engine, failing: Mapping[str, Sequence[str]], groups: Sequence[Group]) -> set[str]:
    """Rows of the second look of samples that did not fail there, in fragments of their own, which the run that follows
    takes them from: its models are dear. Not where records of the partition are fetched or cut again.

    Returns:
        Paths of these fragments.
    """
    again = {_partition(path) for folder in ("fetched", "records") for path in failing[folder]}
    second = {group.name for group in groups if group.is_second}
    failed: dict[str, list[str]] = {}
    for path in failing["signals"]:
        if _partition(path) not in again:
            failed.setdefault(_partition(path), []).append(path)
    stale: dict[str, list[str]] = {}
    for group in second if failed else ():
        for stat in build.files(f"signals/{group}"):
            if _partition(stat.path) in failed:
                stale.setdefault(_partition(stat.path), []).append(stat.path)
    work = [(build, paths, failed[name]) for name, paths in stale.items()]
    return {path for some in engine.map(_write_good, work) for path in some}


def _write_good(build: Store, paths: Sequence[str], failing: Sequence[str]) -> list[str]:
    """Write the rows of samples that failed nowhere, of some fragments of a partition; the paths of what was written.

    Args:
        failing: fragments of the partition that hold failures.
    """
    tables = (read_table(build, path) for path in failing)
    bad = pa.concat_arrays([t.filter(rows_failed(t)).column("sample_id").combine_chunks() for t in tables])
    written = []
    for path in paths:
        table = read_table(build, path)
        good = table.filter(pc.invert(pc.is_in(table.column("sample_id"), value_set=bad)))
        if good.num_rows:
            written.append(write_named_table(build, path.rpartition("-")[0], good).path)
    return written


def _remove(
    build: Store,
    failing: Mapping[str, Sequence[str]],
    groups: Sequence[Group],
    texts: Sequence[str],
    good: Collection[str] = (),
) -> None:
    """Remove fragments that hold failures, by folder, and what was made of them, but those in `good`."""
    again = {_partition(path) for folder in ("fetched", "records") for path in failing[folder]}
    bad = {(_folder(path), _partition(path)) for path in failing["signals"]}
    bad |= {(reader, name) for group, name in bad for reader in readers(groups).get(group, ())}
    stale: dict[str, list[str]] = {}
    for path in (s.path for s in build.files("signals") if s.path not in good):
        if _partition(path) in again or (_folder(path), _partition(path)) in bad:
            stale.setdefault(_folder(path), []).append(path)
    if stale:
        build.remove(s.path for s in build.files("pairs"))  # they are named by names of fragments, which come again
    # a record that comes again may take the place of one of the same bytes and another text
    texts = [s.path for text in texts for s in build.files(f"tokenized/{text}") if _tokenized_of(s.path) in again]
    build.remove([*failing["tokenized"], *texts])
    last = [group.name for group in reversed(groups)]
    for group in sorted(stale, key=lambda name: last.index(name) if name in last else -1):
        build.remove(stale[group])
    for folder in ("records", "samples"):
        build.remove(s.path for s in build.files(folder) if _partition(s.path) in again)
    for path in failing["fetched"]:
        write_table(build, f"{KEPT}/{path}", read_table(build, path))  # first the copy, then the removal
    # and no other: a retry that was killed may have mended what it left in KEPT
    build.remove(failing["fetched"])


def readers(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Of each group those that read what it gives, or what is made of that.

    Args:
        groups: each after those that it reads.
    """
    found = {}
    for i, group in enumerate(groups):
        known = {f.name for s in group.signals for f in s.gives}
        found[group.name] = of = list[str]()
        for later in groups[i + 1 :]:
            if any(known & set(s.after) for s in later.signals):
                known |= {f.name for s in later.signals for f in s.gives}
                of.append(later.name)
    return found


def good_rows(build: Store, fetched: str) -> dict[str, dict[str, Any]]:
    """Rows of a fragment that are to be taken over, by record id; none where nothing is retried."""
    path = f"{KEPT}/{fetched}"
    if build.stat(path) is None:
        return {}
    return {row["record_id"]: row for row in read_table(build, path).to_pylist() if row["error"] is None}


def _partition(path: str) -> str:
    """The partition that a fragment is of."""
    return PurePosixPath(path).name.rpartition("-")[0]


def _tokenized_of(path: str) -> str:
    """As `_partition`, of a token stream, whose fragments also name what they hold."""
    return _partition(path).rpartition("-")[0]


def _folder(path: str) -> str:
    """The group of a fragment of signals."""
    return PurePosixPath(path).parent.name


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
