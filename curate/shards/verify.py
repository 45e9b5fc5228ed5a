"""`curate verify`: a build against its manifest, its ledger against itself, its shards against both."""

from __future__ import annotations

from pathlib import Path

from curate.schema.manifest import Manifest
from curate.shards.commit import read_manifest
from curate.shards.report import Problems, Report, StreamReport
from curate.shards.verify_files import check_files
from curate.shards.verify_ledger import check_ledger
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

    Args:
        build: a build's folder, or its `s3://` uri.
        deep: False skips what reads whole files: digests, ids, members of tars.

    Raises:
        CurateError: there is no finished build to check, or its manifest cannot be read.
    """
    build = open_store(build)
    manifest = read_manifest(build)
    problems = Problems()
    sound = check_files(build, manifest, problems, deep)
    _check_splits(manifest, problems)
    ledger = check_ledger(build, manifest, sound, problems)
    streams = check_shards(build, manifest, sound, ledger.table if ledger else None, problems, deep)
    return Report(
        ok=not problems.found,
        problems=problems.found,
        records=ledger.records if ledger else {},
        samples=ledger.samples if ledger else {},
        streams=streams,
    )


def _check_splits(manifest: Manifest, problems: Problems) -> None:
    files = {f.path: f for f in manifest.files}
    named: list[str] = []
    for split in manifest.splits:
        named += split.shards
        if len(split.shards) != len(split.shard_rows) or sum(split.shard_rows) != split.samples:
            problems.add(f"manifest.json: split {split.name}: its shards do not add up to {split.samples} samples")
        for path, rows in zip(split.shards, split.shard_rows, strict=False):
            if path not in files:
                problems.add(f"{path}: split {split.name} names it, but the manifest's files do not")
            elif files[path].rows != rows:
                problems.add(f"{path}: {files[path].rows} rows as a file, {rows} in split {split.name}")
    for path in sorted({p for p in named if named.count(p) > 1}):
        problems.add(f"{path}: named twice by splits")
    for path in sorted(f for f in files if f.startswith("tokens/") and f not in named):
        problems.add(f"{path}: lies in tokens, but no split names it")


__all__ = ["Report", "StreamReport", "verify"]
