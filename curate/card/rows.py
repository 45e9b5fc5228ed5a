"""Rows of a few records and samples: each table is read once, of the partitions that hold them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from curate.schema.errors import CurateError
from curate.shards.tables import LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, Tables
from curate.storage.sql import quoted


@dataclass(frozen=True)
class Key:
    """A record or sample, and the number of its partition."""

    level: str
    id: str
    part: int


def find(tables: Tables, wanted: Sequence[tuple[str, str]]) -> list[Key]:
    """Keys of the level and id of some verdicts, by one pass over the ledger's columns of ids."""
    if not wanted:
        return []
    sql = "SELECT level, id, part FROM ledger WHERE id IN (SELECT unnest(?))"
    rows = tables.over_ledger(sql, [sorted({key for _, key in wanted})])
    return [Key(r["level"], r["id"], r["part"]) for r in rows if (r["level"], r["id"]) in wanted]


class Rows:
    """Rows of `records` and of `samples`, the latter with some fields of signals, by id."""

    def __init__(self, tables: Tables, keys: Iterable[Key], fields: Iterable[str]) -> None:
        ids: dict[str, set[str]] = {"record": set(), "sample": set()}
        parts = set()
        for key in keys:
            ids[key.level].add(key.id)
            parts.add(key.part)
        self._found: dict[tuple[str, str], dict[str, Any]] = {}
        groups: dict[str, dict[str, str]] = {}
        for field in fields:
            if field in tables.fields:
                groups.setdefault(tables.fields[field], {})[field] = quoted(field)
        with tables.look(sorted(parts), [LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, *groups]):
            sql = "SELECT * FROM records WHERE record_id IN (SELECT unnest(?))"
            for row in tables.rows(sql, [sorted(ids["record"])]):
                self._found["record", row["record_id"]] = row
            for row in tables.rows(tables.with_signals("s.*", groups, sorted(ids["sample"]))):
                self._found["sample", row["sample_id"]] = row

    def of(self, level: str, key: str) -> dict[str, Any]:
        """The row of a record or sample that was asked for.

        Raises:
            CurateError: the ledger names it, and no table holds it.
        """
        row = self._found.get((level, key))
        if row is None:
            raise CurateError(f"there is no row of {level} {key}, which the ledger names", "run: curate verify BUILD")
        return row
