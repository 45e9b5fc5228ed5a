"""Two builds side by side: their sums, distributions, and the samples that changed sides.

Samples meet by id, which comes from their content: a medium that lies elsewhere, or has another name, is the same
sample.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc

from curate.browse import query
from curate.browse.columns import BINS, Columns
from curate.browse.table import Browsed
from curate.schema.errors import CurateError
from curate.storage.sql import scan

FLIPS = 200
"""Ways to change sides that are listed, the commonest first."""

NOT_THERE = "not there"
"""Outcome of a sample that a build does not have."""

_WAYS = ("was", "was_why", "now", "now_why")


class Compared:
    """A build and the one that it is compared with, which is told of as what was before."""

    def __init__(self, now: Browsed, now_columns: Columns, was: Browsed, was_columns: Columns) -> None:
        self._now, self._was = now, was
        self._columns = (was_columns, now_columns)
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """Sums of both builds by cause, how many samples both have, and the ways in which samples changed sides."""
        flips = query.rows(
            self._now,
            f"SELECT {', '.join(_WAYS)}, count(*) AS count FROM {self._table} "
            f"GROUP BY ALL ORDER BY count DESC, {', '.join(_WAYS)} LIMIT {FLIPS}",
        )
        [common] = query.rows(
            self._now,
            "SELECT count(*) AS count FROM rows r JOIN was o USING (id) "
            "WHERE r.level = 'sample' AND o.level = 'sample'",
        )
        return {"was": _side(self._was), "now": _side(self._now), "common": common["count"], "flips": flips}

    def flips(self, asked: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The first samples that changed sides in one way, each with its row in both builds.

        Args:
            asked: `was`, `was_why`, `now`, `now_why` of an entry of `about`.

        Raises:
            CurateError: one of these is no text.
        """
        values = [asked.get(name) for name in _WAYS]
        if not all(isinstance(value, str) for value in values):
            raise CurateError(f"{', '.join(_WAYS)} are texts")
        where = " AND ".join(f"{name} = ?" for name in _WAYS)
        sql = f"SELECT now_n, was_n, uri FROM {self._table} WHERE {where} ORDER BY 1, 2 LIMIT {query.PAGE_ROWS}"
        return [{**row, "uri": query.seen(row["uri"])} for row in query.rows(self._now, sql, values)]

    def spreads(self) -> list[dict[str, Any]]:
        """Histograms of the kept samples of both builds, on one axis, of each number that both have."""
        out = []
        for field in (name for name in self._now.numbers if name in self._was.numbers and name in self._now.fields):
            spread = self._columns[1].spread(field)
            counts = []
            for columns in self._columns:
                kept = pc.equal(columns.arrow(["outcome"])["outcome"], "kept").to_numpy()
                values = columns.number(field)[kept]
                bins = np.searchsorted(spread.edges[1:-1], values[~np.isnan(values)], side="right")
                counts.append(np.bincount(bins, minlength=BINS).tolist())
            if any(map(sum, counts)):
                about = self._now.fields[field]
                told = {"name": field, "unit": about.unit, "about": about.about, "ticks": spread.ticks}
                out.append({**told, "was": counts[0], "now": counts[1]})
        return out

    @property
    def _table(self) -> str:
        with self._lock:
            return self._flipped

    @cached_property
    def _flipped(self) -> str:
        """The name of a table of samples whose outcomes differ; made once."""
        self._now.con.execute(f"CREATE VIEW was AS SELECT * FROM {scan(list(map(str, self._was.files)))}")
        self._now.con.execute(
            f"""
            CREATE TABLE flips AS
            SELECT r.n AS now_n, o.n AS was_n, coalesce(r.uri, o.uri) AS uri,
                coalesce(o.outcome, '{NOT_THERE}') AS was, coalesce(o.rule, o.error, '') AS was_why,
                coalesce(r.outcome, '{NOT_THERE}') AS now, coalesce(r.rule, r.error, '') AS now_why
            FROM (SELECT * FROM rows WHERE level = 'sample') r
            FULL JOIN (SELECT * FROM was WHERE level = 'sample') o ON r.id = o.id
            WHERE r.outcome IS DISTINCT FROM o.outcome
            """
        )
        return "flips"


def _side(browsed: Browsed) -> dict[str, Any]:
    return {
        "build": str(browsed.tables.build),
        "version": browsed.tables.manifest.version,
        "counts": browsed.tables.manifest.counts.samples,
        "causes": query.rows(
            browsed,
            "SELECT outcome, coalesce(rule, error, '') AS why, count(*) AS count FROM rows "
            "WHERE level = 'sample' GROUP BY ALL ORDER BY count DESC, 1, 2",
        ),
    }
