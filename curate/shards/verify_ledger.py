"""The ledger against itself and against the manifest: nothing is lost, and every verdict says why (law 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema.ledger_laws import LAWS, OUTCOMES, counts_of
from curate.schema.manifest import File, Manifest
from curate.schema.tables import LEDGER
from curate.shards.report import Problems
from curate.storage import Store, sql

BEFORE_WORDS = LEDGER.remove(LEDGER.get_field_index("value_text"))
"""What builds hold that were made before rules could be on words."""


@dataclass(frozen=True)
class Ledger:
    """The ledger as recounted."""

    records: dict[str, int]
    samples: dict[str, int]


@contextmanager
def opened_ledger(
    build: Store, files: Sequence[File], intact: set[str], problems: Problems
) -> Iterator[duckdb.DuckDBPyConnection | None]:
    """A database whose view `ledger` is all verdict fragments, read from disk.

    None where one of them cannot be read, since a part of the ledger would only mislead.
    """
    paths = [f.path for f in files if f.path.startswith("verdicts/")]
    if not paths:
        problems.add("ledger: the manifest lists no file of it")
    elif any(path not in intact for path in paths):
        problems.add("ledger: not recounted, since a file of it is missing or changed")
    else:
        with build.pinned(paths) as places:
            if all(_is_ledger(path, place, problems) for path, place in zip(paths, places, strict=True)):
                with sql.connect() as db:
                    view(db, "read", places)
                    # builds of before rules on words have no column for these
                    db.register("empty", LEDGER.empty_table())
                    db.execute("CREATE VIEW ledger AS SELECT * FROM read UNION ALL BY NAME SELECT * FROM empty")
                    yield db
                return
    yield None


@contextmanager
def asked(what: str, problems: Problems) -> Iterator[None]:
    """Notes what keeps a query of tables from being answered. That memory is too little is raised: it says nothing of
    them."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise
    except (duckdb.Error, pa.ArrowException, OSError) as exc:
        problems.add(f"{what}: cannot be read: {' '.join(str(exc).split())}")


def view(db: duckdb.DuckDBPyConnection, name: str, places: Sequence[Path]) -> None:
    """Name some Parquet files of one schema as one table."""
    db.execute(f"CREATE VIEW {name} AS SELECT * FROM {sql.scan([str(place) for place in places])}")


def _is_ledger(path: str, place: Path, problems: Problems) -> bool:
    try:
        schema = pq.read_schema(place)
    except (pa.ArrowException, OSError) as exc:
        problems.add(f"ledger: cannot be read: {' '.join(str(exc).split())}")
        return False
    if (schema.names, schema.types) not in [(known.names, known.types) for known in (LEDGER, BEFORE_WORDS)]:
        problems.add(f"{path}: its columns are not those of a ledger")
        return False
    return True


def check_ledger(db: duckdb.DuckDBPyConnection, manifest: Manifest, problems: Problems) -> Ledger | None:
    """Recount the ledger of a database of `opened_ledger`; None where its files cannot be read to the end."""
    counted: list[Any] | None = None
    with asked("ledger", problems):
        for what, query in LAWS:
            row = db.execute(f"SELECT min(id), count(*) FROM ({query})").fetchone()
            if row is not None:
                problems.many(f"ledger: {what}", str(row[0]), int(row[1]))
        counted = db.execute("SELECT level, outcome, count(*) FROM ledger GROUP BY ALL ORDER BY ALL").fetchall()
    if counted is None:
        return None
    found: dict[str, dict[str, int]] = {level: {} for level in OUTCOMES}
    for level, outcome, number in counted:
        if level in found and outcome not in OUTCOMES[level]:
            problems.add(f"ledger: {number} rows of level {level} have the outcome {outcome!r}, which it cannot have")
        found.get(level, {})[outcome] = number
    counts = {level: counts_of(level, numbers) for level, numbers in found.items()}
    for level, said in (("record", manifest.counts.records), ("sample", manifest.counts.samples)):
        if counts[level] != said:
            ordered = {name: said[name] for name in [*counts[level], *sorted(said)] if name in said}
            problems.add(f"ledger: its {level}s count {_text(counts[level])}, the manifest says {_text(ordered)}")
    return Ledger(counts["record"], counts["sample"])


def _text(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counts.items())
