"""The ledger against itself and against the manifest: nothing is lost, and every verdict says why (law 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema.manifest import File, Manifest
from curate.schema.tables import LEDGER
from curate.schema.verdict import RECORD_OUTCOMES, SAMPLE_OUTCOMES
from curate.shards.report import Problems
from curate.storage import Store, sql

_LEVELS = {"record": RECORD_OUTCOMES, "sample": SAMPLE_OUTCOMES}

# Each query gives the ids of rows that break a law; the sentence says which.
_QUERIES = (
    ("a level that is neither record nor sample", "SELECT id FROM ledger WHERE level NOT IN ('record', 'sample')"),
    ("more than one row of one id", "SELECT id FROM ledger GROUP BY level, id HAVING count(*) > 1"),
    (
        "dropped without rule, or with it but not dropped",
        "SELECT id FROM ledger WHERE (outcome = 'dropped') <> (rule IS NOT NULL)",
    ),
    (
        "failed without stage, error, message and attempt, or with them but not failed",
        "SELECT id FROM ledger WHERE CASE WHEN outcome = 'failed' "
        "THEN stage IS NULL OR error IS NULL OR message IS NULL OR attempt IS NULL "
        "ELSE stage IS NOT NULL OR error IS NOT NULL OR message IS NOT NULL OR attempt IS NOT NULL END",
    ),
    (
        "duplicate without keeper, or with one but not duplicate",
        "SELECT id FROM ledger WHERE (outcome = 'duplicate') <> (duplicate_of IS NOT NULL)",
    ),
    (
        "duplicate of itself, or of what the ledger does not hold",
        "SELECT id FROM ledger a WHERE duplicate_of IS NOT NULL AND (duplicate_of = id OR NOT EXISTS "
        "(SELECT 1 FROM ledger b WHERE b.level = a.level AND b.id = a.duplicate_of))",
    ),
    (
        "sample of a record that is not sampled",
        "SELECT id FROM ledger a WHERE level = 'sample' AND NOT EXISTS "
        "(SELECT 1 FROM ledger b WHERE b.level = 'record' AND b.id = a.record_id AND b.outcome = 'sampled')",
    ),
    (
        "sampled record without a sample",
        "SELECT id FROM ledger a WHERE level = 'record' AND outcome = 'sampled' AND NOT EXISTS "
        "(SELECT 1 FROM ledger b WHERE b.level = 'sample' AND b.record_id = a.id)",
    ),
)


@dataclass(frozen=True)
class Ledger:
    """The ledger as recounted."""

    records: dict[str, int]
    samples: dict[str, int]


@contextmanager
def opened_ledger(
    build: Store, files: Sequence[File], sound: set[str], problems: Problems
) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """A database whose view `ledger` is all verdict fragments, read from disk.

    None where one of them cannot be read, since a part of the ledger would only mislead.
    """
    paths = [f.path for f in files if f.path.startswith("verdicts/")]
    if not paths:
        problems.add("ledger: the manifest lists no file of it")
    elif any(path not in sound for path in paths):
        problems.add("ledger: not recounted, since a file of it is missing or changed")
    else:
        with build.pinned(paths) as places:
            if all(_is_ledger(path, place, problems) for path, place in zip(paths, places, strict=True)):
                with sql.connect() as db:
                    view(db, "ledger", places)
                    yield db
                return
    yield None


def view(db: duckdb.DuckDBPyConnection, name: str, places: Sequence[Path]) -> None:
    """Name some Parquet files of one schema as one table."""
    db.execute(f"CREATE VIEW {name} AS SELECT * FROM {sql.scan([str(place) for place in places])}")


def _is_ledger(path: str, place: Path, problems: Problems) -> bool:
    try:
        schema = pq.read_schema(place)
    except (pa.ArrowException, OSError) as exc:
        problems.add(f"ledger: cannot be read: {' '.join(str(exc).split())}")
        return False
    if schema.names != LEDGER.names or schema.types != LEDGER.types:
        problems.add(f"{path}: its columns are not those of a ledger")
        return False
    return True


def check_ledger(db: duckdb.DuckDBPyConnection, manifest: Manifest, problems: Problems) -> Ledger | None:
    """Recount the ledger of a database of `opened_ledger`; None where its files cannot be read to the end."""
    try:
        for what, query in _QUERIES:
            row = db.execute(f"SELECT min(id), count(*) FROM ({query})").fetchone()
            if row is not None:
                problems.many(f"ledger: {what}", str(row[0]), int(row[1]))
        counted = db.execute("SELECT level, outcome, count(*) FROM ledger GROUP BY ALL ORDER BY ALL").fetchall()
    except duckdb.OutOfMemoryException:
        raise  # it says nothing about the ledger
    except duckdb.Error as exc:
        problems.add(f"ledger: cannot be read: {' '.join(str(exc).split())}")
        return None
    counts = {level: {"total": 0, **{str(o): 0 for o in outcomes}} for level, outcomes in _LEVELS.items()}
    for level, outcome, number in counted:
        if level not in counts:
            continue
        counts[level]["total"] += number
        if outcome in counts[level]:
            counts[level][outcome] = number
        else:
            problems.add(f"ledger: {number} rows of level {level} have the outcome {outcome!r}, which it cannot have")
    for level, said in (("record", manifest.counts.records), ("sample", manifest.counts.samples)):
        if counts[level] != said:
            ordered = {name: said[name] for name in [*counts[level], *sorted(said)] if name in said}
            problems.add(f"ledger: its {level}s count {_text(counts[level])}, the manifest says {_text(ordered)}")
    return Ledger(counts["record"], counts["sample"])


def _text(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())
