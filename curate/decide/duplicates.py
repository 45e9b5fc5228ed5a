"""Exact duplicates: records whose media are the same bytes."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from curate.decide.sql import connect, scan


def exact_duplicates(records: Sequence[str], without: pa.Table | None = None) -> pa.Table:
    """Records of the same `content_id` as another, and that other: the keeper.

    The keeper of a group is the record with text before those without, then that of the smallest `record_id`.

    Args:
        records: Parquet files of RECORDS.
        without: a table with a string column `id`: records that take no part, neither as keeper nor as duplicate.

    Returns:
        `record_id`, `duplicate_of` (both string, not null), sorted by `record_id`; the keeper itself has no row.
        Records that failed, or have no content, take no part.
    """
    schema = pa.schema([pa.field("record_id", pa.string(), False), pa.field("duplicate_of", pa.string(), False)])
    if not records:
        return schema.empty_table()
    with connect() as con:
        con.register("without_ids", pa.table({"id": pa.array([], pa.string())}) if without is None else without)
        return (
            con.sql(
                f"""SELECT record_id, keeper AS duplicate_of FROM (
                    SELECT record_id, first_value(record_id) OVER (
                        PARTITION BY content_id ORDER BY without_text, record_id
                    ) AS keeper
                    FROM (
                        SELECT record_id, content_id, trim(coalesce(text, '')) = '' AS without_text
                        FROM {scan(records)}
                        WHERE stage IS NULL AND error IS NULL AND content_id IS NOT NULL
                            AND record_id NOT IN (SELECT id FROM without_ids)
                    )
                ) WHERE record_id <> keeper ORDER BY record_id"""
            )
            .to_arrow_table()
            .cast(schema)
        )
