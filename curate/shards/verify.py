"""`curate verify`: a build against its manifest, its ledger against itself, its shards against both."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from curate.schema.errors import CurateError
from curate.schema.manifest import File, Manifest
from curate.shards.commit import read_manifest
from curate.shards.lists import read_files
from curate.shards.report import Problems, Report, StreamReport
from curate.shards.verify_files import check_files
from curate.shards.verify_ledger import check_ledger, opened_ledger
from curate.shards.verify_shards import check_shards
from curate.storage import Store, open_store


def verify(build: Store | Path | str, deep: bool = True) -> Report:
    """Check a finished build. Nothing is changed, and nothing of a file is trusted whose digest is not right.

    * Files: each one that the manifest names lies inside the build and has its digest, size and rows; there are no
      others.
    * Ledger: recounted, it adds up (law 1) and equals the manifest's counts; every verdict says what it must.
    * Shards: kept samples and rows of shards are the same, each once, of one kind and span, splits share no content,
      the order is the final order; each stream has its type, codec, shape and ids below its vocabulary; a stream is
      missing only where the sample cannot have it (law 9).

    Memory is bounded: files are read one after the other, and what needs more than one at once is a query that spills
    to a temporary folder (`TMPDIR` moves it). Ledger and shards are compared by sums over their rows, and row by row
    only where these differ, to name the rows.

    Args:
        build: a build's folder, or its `s3://` uri.
        deep: False skips what reads whole files: digests, ids, members of tars.

    Raises:
        CurateError: there is no finished build to check, or its manifest cannot be read.
    """
    build = open_store(build)
    manifest = read_manifest(build)
    problems = Problems()
    try:
        files = read_files(build, manifest)
    except CurateError as exc:
        problems.add(str(exc))
        return Report(ok=False, problems=problems.found, records={}, samples={}, streams=[])
    intact = check_files(build, manifest, files, problems, deep)
    _check_splits(manifest, files, problems)
    with opened_ledger(build, files, intact, problems) as db:
        ledger = check_ledger(db, manifest, problems) if db is not None else None
        streams = check_shards(build, manifest, files, intact, db, problems, deep)
    return Report(
        ok=not problems.found,
        problems=problems.found,
        records=ledger.records if ledger else {},
        samples=ledger.samples if ledger else {},
        streams=streams,
    )


def _check_splits(manifest: Manifest, listed: Sequence[File], problems: Problems) -> None:
    files = {f.path: f for f in listed if f.path.startswith("tokens/")}
    named: set[str] = set()
    for split in manifest.splits:
        if len(split.shards) != len(split.shard_rows) or sum(split.shard_rows) != split.samples:
            problems.add(f"manifest.json: split {split.name}: its shards do not add up to {split.samples} samples")
        for path, rows in zip(split.shards, split.shard_rows, strict=False):
            if path in named:
                problems.add(f"{path}: named twice by splits")
            named.add(path)
            if path not in files:
                problems.add(f"{path}: split {split.name} names it, but the manifest's files do not")
            elif files[path].rows != rows:
                problems.add(f"{path}: {files[path].rows} rows as a file, {rows} in split {split.name}")
    for path in sorted(files.keys() - named):
        problems.add(f"{path}: lies in tokens, but no split names it")


__all__ = ["Report", "StreamReport", "verify"]
