"""Verdicts on records, from what ingest probed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from curate.decide.duplicates import exact_duplicates
from curate.decide.ledger import VERDICTS, record_rows
from curate.decide.probed import PROBED, probed_sql
from curate.decide.rules import BROKEN, CANDIDATES, apply_rules, bounds, check_rules
from curate.decide.sql import connect, name, refuse_any, scan
from curate.schema.fields import SignalField
from curate.schema.recipe import Rule
from curate.schema.tables import FAILURE_NAMES, LEDGER

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection


def decide_records(
    records: Sequence[str], rules: Sequence[Rule], fields: Mapping[str, SignalField] = PROBED
) -> pa.Table:
    """What becomes of each record: failed, else dropped by the first rule it breaks, else duplicate, else sampled.

    Rules come before duplicates, so that a keeper is never dropped by a rule: duplicates have the same bytes, hence the
    same probed fields and the same fate.

    Args:
        records: Parquet files of RECORDS.
        rules: `decide.records` of the recipe.
        fields: probed fields that rules may bound.

    Returns:
        Ledger rows of level `record`, sorted by id. Records that then cannot be cut: `ledger.override`.

    Raises:
        CurateError: rules that `check_rules` refuses, a record that is listed twice.
    """
    check_rules(rules, fields)
    if not records:
        return LEDGER.empty_table()
    with connect() as con:
        _load(con, records, rules)
        twice = f"SELECT id FROM {CANDIDATES} GROUP BY id HAVING count(*) > 1"
        refuse_any(con, twice, "records are listed more than once", "remove the build's records and run again")
        apply_rules(con, bounds(rules))
        dropped = con.sql(f"SELECT id FROM {BROKEN}").to_arrow_table()
        con.register("duplicates", exact_duplicates(records, without=dropped))
        con.execute(
            f"""CREATE TEMP TABLE {VERDICTS} AS SELECT c.id,
                    CASE WHEN c.failed THEN 'failed' WHEN b.id IS NOT NULL THEN 'dropped'
                        WHEN d.record_id IS NOT NULL THEN 'duplicate' ELSE 'sampled' END AS outcome,
                    b.rule, b.value, b.threshold,
                    d.duplicate_of, if(d.record_id IS NULL, NULL, 'exact') AS match, NULL::DOUBLE AS similarity,
                    {", ".join(f"c.{column}" for column in FAILURE_NAMES)}
                FROM {CANDIDATES} c LEFT JOIN {BROKEN} b ON b.id = c.id LEFT JOIN duplicates d ON d.record_id = c.id"""
        )
        return record_rows(con, records)


def _load(con: DuckDBPyConnection, records: Sequence[str], rules: Sequence[Rule]) -> None:
    columns = "".join(f", ({probed_sql(f)})::DOUBLE AS {name(f)}" for f in sorted({r.field for r in rules}))
    con.execute(
        f"""CREATE TEMP TABLE {CANDIDATES} AS
        SELECT record_id AS id, kind, stage IS NOT NULL OR error IS NOT NULL AS failed{columns},
            {", ".join(FAILURE_NAMES)}
        FROM {scan(records)}"""
    )
