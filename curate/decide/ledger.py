"""The ledger: one row for each record and each sample, and the sums that must come out (law 1)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from curate.decide.sql import connect, one_row, scan
from curate.schema.errors import CurateError
from curate.schema.tables import FAILURE_NAMES, LEDGER
from curate.schema.verdict import RECORD_OUTCOMES, SAMPLE_OUTCOMES, Failure, Outcome

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

RECORD = "record"
SAMPLE = "sample"

_OUTCOMES = {RECORD: RECORD_OUTCOMES, SAMPLE: SAMPLE_OUTCOMES}
_PASSED = {RECORD: Outcome.SAMPLED, SAMPLE: Outcome.KEPT}

_BROKEN_BUILD = "the build may hold files of different runs: remove its ledger, samples and signals and run again"

VERDICTS = "verdicts"
"""DuckDB table that ledger rows are made from: `id`, and the columns of LEDGER from `outcome` on. They are the verdict;
the columns before say what it is about."""

_CHUNK = 1 << 16  # rows of one Arrow chunk of the ledger, so that chunks follow from the number of rows alone


def record_rows(con: DuckDBPyConnection, records: Sequence[str]) -> pa.Table:
    """Ledger rows of records.

    Args:
        con: has the table `verdicts`, one row a record.
        records: Parquet files of RECORDS.

    Returns:
        A table of LEDGER, sorted by `id`.

    Raises:
        CurateError: a record without a verdict or with two, a verdict without a record, a record that is listed twice.
    """
    return _rows(
        con, RECORD, "record_id AS id, record_id, source, uri, kind, NULL AS start_us, NULL AS end_us", records
    )


def sample_rows(con: DuckDBPyConnection, samples: Sequence[str]) -> pa.Table:
    """Ledger rows of samples, as `record_rows`; `samples` are Parquet files of SAMPLES."""
    return _rows(con, SAMPLE, "sample_id AS id, record_id, source, uri, kind, start_us, end_us", samples)


def override(rows: pa.Table, later: Iterable[tuple[str, Failure]]) -> pa.Table:
    """Ledger rows with the failures of a later stage, such as records that could not be cut.

    A duplicate stays one of the row that failed: the same bytes fail the same way.

    Args:
        rows: of LEDGER, of one level.
        later: pairs of id and failure.

    Raises:
        CurateError: an id that is not there, comes twice, or did not pass: a later stage never sees those.
    """
    failures: dict[str, Failure] = {}
    for key, failure in later:
        if key in failures:
            raise CurateError(f"{key} failed twice", _BROKEN_BUILD)
        failures[key] = failure
    if not failures:
        return rows
    which = pc.index_in(rows["id"], pa.array(list(failures), pa.string()))
    failed = rows.select(["level", "id", "outcome"]).filter(pc.is_valid(which))
    before = {row["id"]: row for row in failed.to_pylist()}
    for key in failures:
        row = before.get(key)
        if row is None or row["outcome"] != _PASSED[row["level"]]:
            was = "is not in the ledger" if row is None else f"was {row['outcome']} before"
            raise CurateError(f"a later stage failed on {key}, which {was}", _BROKEN_BUILD)
    after = [{"outcome": str(Outcome.FAILED), **asdict(failure)} for failure in failures.values()]
    for name in ("outcome", *FAILURE_NAMES):
        field = LEDGER.field(name)
        column = pc.coalesce(pa.array([row[name] for row in after], field.type).take(which), rows[name])
        rows = rows.set_column(LEDGER.get_field_index(name), field, column)
    return rows


def assemble(*rows: pa.Table) -> pa.Table:
    """The whole ledger, sorted by level (records first) and id. Tables are of LEDGER.

    Records and then samples, each sorted, are not copied.
    """
    whole = pa.concat_tables([LEDGER.empty_table(), *rows])
    level, key = whole["level"], whole["id"]
    later = pc.or_(
        pc.greater(level[:-1], level[1:]), pc.and_(pc.equal(level[:-1], level[1:]), pc.greater(key[:-1], key[1:]))
    )
    return whole.sort_by([("level", "ascending"), ("id", "ascending")]) if pc.any(later).as_py() else whole


def conserve(ledger: pa.Table, records: int | None = None, samples: int | None = None) -> dict[str, dict[str, int]]:
    """Check the ledger and sum it up.

    Args:
        ledger: of LEDGER, whole.
        records, samples: how many there must be by an independent count, where there is one.

    Returns:
        `{"records": {total, sampled, dropped, duplicate, failed},
        "samples": {total, kept, dropped, duplicate, failed}}`.

    Raises:
        CurateError: `problems` finds any.
    """
    found = problems(ledger, records, samples)
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise CurateError(f"the ledger does not add up: {found[0]}{more}", _BROKEN_BUILD)
    return {f"{level}s": _sums(ledger, level) for level in (RECORD, SAMPLE)}


def problems(ledger: pa.Table, records: int | None = None, samples: int | None = None) -> list[str]:
    """What is wrong with a ledger, one sentence for each kind of problem with a count and one example; empty if sound.

    Sound means: the counts are as given; outcomes are those of the level; no id occurs twice; a verdict carries what it
    must (dropped: rule, value, threshold; duplicate: keeper, match, and a similarity if near; failed: stage, error,
    message, attempt) and nothing of another verdict; a sample's record is `sampled`, and a `sampled` record has a
    sample; a duplicate's keeper is a row of the same level that passed, or a record that passed and could then not be
    cut.
    """
    if not ledger.schema.equals(LEDGER):
        return ["its columns are not those of a ledger"]
    out = []
    for level, count in ((RECORD, records), (SAMPLE, samples)):
        rows = _count(ledger, level)
        if count is not None and rows != count:
            out.append(f"{rows} {level}s in the ledger, {count} in the build")
    with connect() as con:
        con.register("ledger", ledger)
        for sentence, query in _CHECKS.items():
            wrong, first = con.execute(f"SELECT count(*), min(id) FROM ({query})").fetchall()[0]
            if wrong:
                out.append(f"{sentence}: {wrong}, the first {first}")
    return out


def _outcomes_sql() -> str:
    allowed = {level: ", ".join(f"'{o}'" for o in outcomes) for level, outcomes in _OUTCOMES.items()}
    return " OR ".join(f"(level = '{level}' AND outcome IN ({names}))" for level, names in allowed.items())


_DROP_NULL = "rule IS NULL AND value IS NULL AND threshold IS NULL"
_DUPLICATE_NULL = "duplicate_of IS NULL AND match IS NULL AND similarity IS NULL"
_FAILURE_NULL = " AND ".join(f"{name} IS NULL" for name in FAILURE_NAMES)
_FAILURE_SET = " AND ".join(f"{name} IS NOT NULL" for name in FAILURE_NAMES)

_CHECKS = {
    "outcomes that their level does not have": f"SELECT id FROM ledger WHERE NOT coalesce({_outcomes_sql()}, false)",
    "ids that occur twice": "SELECT id FROM ledger GROUP BY level, id HAVING count(*) > 1",
    "records whose id is not their record_id": "SELECT id FROM ledger WHERE level = 'record' AND id <> record_id",
    "verdicts that lack a column or carry one of another verdict": f"""SELECT id FROM ledger WHERE NOT CASE outcome
        WHEN 'dropped' THEN rule IS NOT NULL AND value IS NOT NULL AND threshold IS NOT NULL
            AND {_DUPLICATE_NULL} AND {_FAILURE_NULL}
        WHEN 'duplicate' THEN duplicate_of IS NOT NULL AND {_DROP_NULL} AND {_FAILURE_NULL}
            AND coalesce((match = 'exact' AND similarity IS NULL) OR (match = 'near' AND similarity IS NOT NULL), false)
        WHEN 'failed' THEN {_FAILURE_SET} AND {_DROP_NULL} AND {_DUPLICATE_NULL}
        ELSE {_DROP_NULL} AND {_DUPLICATE_NULL} AND {_FAILURE_NULL} END""",
    "samples whose record was not sampled": """SELECT id FROM ledger s WHERE level = 'sample' AND NOT EXISTS (
        SELECT 1 FROM ledger r WHERE r.level = 'record' AND r.outcome = 'sampled' AND r.id = s.record_id)""",
    "sampled records without a sample": """SELECT id FROM ledger r WHERE level = 'record' AND outcome = 'sampled'
        AND NOT EXISTS (SELECT 1 FROM ledger s WHERE s.level = 'sample' AND s.record_id = r.id)""",
    "duplicates whose keeper was not kept": """SELECT id FROM ledger d WHERE outcome = 'duplicate' AND NOT EXISTS (
        SELECT 1 FROM ledger k WHERE k.level = d.level AND k.id = d.duplicate_of AND (
            k.outcome IN ('sampled', 'kept')
            OR (k.level = 'record' AND k.outcome = 'failed' AND split_part(k.stage, ':', 1) = 'cut')))""",
}


def _rows(con: DuckDBPyConnection, level: str, about: str, files: Sequence[str]) -> pa.Table:
    reader = con.sql(
        f"""WITH about AS (SELECT '{level}' AS level, {about} FROM {scan(files)})
        SELECT {", ".join(LEDGER.names)} FROM about JOIN {VERDICTS} USING (id) ORDER BY id"""
    ).to_arrow_reader(_CHUNK)
    rows = _in_chunks(pa.Table.from_batches([batch]).cast(LEDGER) for batch in reader)
    (listed,) = one_row(con, f"SELECT count(*) FROM {scan(files)}")
    (decided,) = one_row(con, f"SELECT count(*) FROM {VERDICTS}")
    if listed != len(rows):
        raise CurateError(f"{listed} {level}s and {len(rows)} verdicts on them", _BROKEN_BUILD)
    twice = pc.sum(pc.equal(rows["id"][:-1], rows["id"][1:])).as_py() or 0
    if len(rows) != decided or twice:
        raise CurateError(f"{decided} verdicts, but {len(rows) - twice} {level}s that they are on", _BROKEN_BUILD)
    return rows


def _in_chunks(tables: Iterable[pa.Table]) -> pa.Table:
    """The rows of `tables`, of LEDGER, `_CHUNK` to a chunk."""
    whole, rest = [], LEDGER.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        while len(rest) >= _CHUNK:
            whole.append(rest.slice(0, _CHUNK).combine_chunks())
            rest = rest.slice(_CHUNK)
    return pa.concat_tables([*whole, rest.combine_chunks()])


def _count(ledger: pa.Table, level: str, outcome: str | None = None) -> int:
    mask = pc.equal(ledger["level"], level)
    if outcome is not None:
        mask = pc.and_(mask, pc.equal(ledger["outcome"], outcome))
    return int(pc.sum(mask).as_py() or 0)


def _sums(ledger: pa.Table, level: str) -> dict[str, int]:
    return {"total": _count(ledger, level), **{str(o): _count(ledger, level, o) for o in _OUTCOMES[level]}}
