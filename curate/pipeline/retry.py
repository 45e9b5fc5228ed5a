"""Forget what failed, so that the run that follows tries it again and ends with the build that would have been."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import pyarrow.compute as pc

from curate.pipeline.annotate import SignalFiles
from curate.signals.base import Signal
from curate.storage import Store
from curate.storage.base import Hold
from curate.storage.tables import read_table, write_table

KEPT = "retry"
"""Folder of records files that hold failures: their good rows are taken over, not fetched again. The end of a run
removes it."""


def forget_failures(build: Store, hold: Hold, signals: Sequence[Signal]) -> dict[str, int]:
    """Take back the commit, and remove committed pieces that hold failures.

    Until the run that follows has committed, the build is unfinished; killed anywhere, the same command or a plain run
    ends it. Tokens need nothing: a build holds them for kept samples only.

    Args:
        build: a finished build, or one that was interrupted.
        hold: what the run has on it.
        signals: all of the recipe.

    Returns:
        Failures that were forgotten, by stage.
    """
    hold.retract()
    found = {"ingest": 0, "cut": 0, "annotate": 0}
    for path in _tables(build, "records"):
        failed = _failures(build, path)
        if failed:
            found["ingest"] += failed
            write_table(build, f"{KEPT}/{path}", read_table(build, path))  # first the copy, then the removal
            build.remove([path])
    for path in _tables(build, "cut"):
        failed = _failures(build, path)
        if failed:
            found["cut"] += failed
            build.remove([path])
    followers = _followers(signals)
    tables = {s.name: _tables(build, f"signals/{s.name}") for s in signals}
    again: dict[str, set[str]] = {s.name: set() for s in signals}  # pieces to compute anew, by signal
    for signal in signals:
        for path in tables[signal.name]:
            failed = _failures(build, path)
            if failed:
                found["annotate"] += failed
                for name in followers[signal.name]:
                    again[name].add(_number(path))
    build.remove(path for name, paths in tables.items() for path in paths if _number(path) in again[name])
    return found


def good_rows(build: Store, records: str) -> dict[str, dict[str, Any]]:
    """Rows of a records file that are to be taken over, by record id; none where nothing is retried."""
    path = f"{KEPT}/{records}"
    if build.stat(path) is None:
        return {}
    return {row["record_id"]: row for row in read_table(build, path).to_pylist() if row["error"] is None}


def _tables(build: Store, folder: str) -> list[str]:
    return [s.path for s in build.files(folder) if s.path.endswith(".parquet")]


def _number(path: str) -> str:
    """What the files of all signals of a piece have in common."""
    return PurePosixPath(path).name.rpartition("-")[0]


def _failures(build: Store, path: str) -> int:
    column = read_table(build, path, ["error"])["error"]
    return int(pc.sum(pc.is_valid(column)).as_py() or 0)


def _followers(signals: Sequence[Signal]) -> dict[str, set[str]]:
    """For each signal itself and all that read what it gives, directly or through others."""
    giver = SignalFiles(signals).giver
    reads = {s.name: {giver[field].name for field in s.after if field in giver} for s in signals}
    out = {s.name: {s.name} for s in signals}
    for signal in signals:  # in an order in which each comes after those that it reads
        for name, found in out.items():
            if reads[signal.name] & found and name != signal.name:
                found.add(signal.name)
    return out
