"""One pass over all fragments of a build: what the card counts, and candidates for what it shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from curate.schema.manifest import SecondLook
from curate.shards.tables import CHUNK_ROWS, LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, Tables
from curate.signals.probed import probed_sql
from curate.storage.sql import text

JUDGED = {
    # what a rule failed (`missing: fail`), or what failed only after rules had been applied, was there when percentiles
    # were taken
    "record": "({0}.outcome <> 'failed' OR {0}.stage = 'decide')",
    "sample": "({0}.outcome <> 'failed' OR {0}.stage = 'decide' OR {0}.stage LIKE 'tokenize%' "
    "OR {0}.stage LIKE 'look%' OR list_contains({1}, {0}.stage))",
}
"""SQL that is true of those that had not failed when the rules were applied; {1} is a list of the stages of the second
look, which are after them."""

RECORD_VALUES = f"""
    SELECT r.kind, {JUDGED["record"].format("l")} AS judged,
        {probed_sql("r")}
    FROM records r JOIN ledger l ON l.level = 'record' AND l.part = r.part AND l.id = r.record_id
"""
"""Query of the probed columns of records, for `sweep`."""


def sweep(
    tables: Tables,
    signals: Callable[[Tables], Mapping[str, Mapping[str, str]]],
    queries: Mapping[str, str],
    *,
    records: bool,
) -> None:
    """Make a table of each query's rows, over all partitions.

    A query runs once for every chunk of partitions, so it selects sums to be summed up again, the first few of an
    order, or narrow columns. It reads the views `ledger` and `records` of the chunk, and the table `chunk`: a row for
    each sample with a verdict, with `kind`, `licence`, `us` (its length in microseconds, null for images), `kept`,
    `judged`, `unseen` (the second look did not look at it), the columns of `PROBED`, and those of signals that are
    asked for.

    Args:
        signals: gives for each group of signals, when a chunk is looked at, columns and their SQL.
        queries: tables to make, each with its query.
        records: true if a query reads them.
    """
    columns = [
        "s.kind, s.licence, round(s.duration * 1e6)::BIGINT AS us, s.outcome = 'kept' AS kept",
        f"{JUDGED['sample'].format('s', _stages(tables.manifest.second_look))} AS judged",
        "s.unseen",
        probed_sql("s"),
    ]
    stages = [LEDGER_FILES, SAMPLES_FILES, *([RECORDS_FILES] if records else []), *tables.groups]
    for i, parts in enumerate(tables.chunks(CHUNK_ROWS)):
        with tables.look(parts, stages):
            rows = tables.with_signals(", ".join(columns), signals(tables))
            tables.execute(f"CREATE OR REPLACE TEMP TABLE chunk AS {rows}")
            for name, query in queries.items():
                tables.execute(f"CREATE TEMP TABLE {name} AS {query}" if i == 0 else f"INSERT INTO {name} {query}")
    tables.execute("DROP TABLE chunk")


def _stages(second: SecondLook | None) -> str:
    """SQL of a list: the stages that failures of the second look name."""
    names = () if second is None else second.signals
    return f"[{', '.join(text(f'annotate:{name}') for name in names)}]::VARCHAR[]"
