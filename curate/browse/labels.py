"""What a person says of samples, good or bad, and how well rules agree with it.

A label is of a sample's id, so it holds in every version of the build, and of the same content wherever it lies. The
build is not written to: marks are lines of a file in the cache, and of an id the last one counts. Several servers may
append to it: what others wrote is read before anything is told.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, ValidationError

from curate.browse import query
from curate.browse.columns import Columns
from curate.browse.table import Browsed, check_row
from curate.schema.errors import CurateError

LABELS = ("good", "bad")

FORMATS = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
"""What labels are exported as, with types."""

EXPORTED = pa.schema(
    [("id", pa.string()), ("uri", pa.string()), ("label", pa.string()), ("when", pa.timestamp("us", "UTC"))]
)
"""Columns of an export; `uri` is null where this version of the build has no such sample."""

_HELD = pa.schema([("id", pa.string()), ("label", pa.string()), ("when", pa.timestamp("us"))])


class Mark(BaseModel):
    """A line of the file; without a label where it was taken away."""

    id: str
    label: Literal["good", "bad"] | None
    when: AwareDatetime


@dataclass(frozen=True)
class Labelled:
    """Samples that have a label, by id; the same content may lie in several.

    Attributes:
        n: int64 `(m,)`, their rows in the table.
        rows: int64 `(m,)`, their rows in Columns.
        starts: int64 `(k,)`, where those of each id begin.
        good: bool `(k,)`, the label of each id.
    """

    n: NDArray[np.int64]
    rows: NDArray[np.int64]
    starts: NDArray[np.int64]
    good: NDArray[np.bool_]

    def agree(self, passes: NDArray[np.bool_]) -> dict[str, float | None] | None:
        """How well what passes is what is good; None where nothing is labelled.

        Args:
            passes: `(m,)`; a label passes where any of its samples does.

        Returns:
            `precision`, the share of the good among labels that pass, and `recall`, the share of those that pass among
            the good; None where there are none to take a share of.
        """
        if not len(self.good):
            return None
        some = np.logical_or.reduceat(passes, self.starts)
        right = int(np.count_nonzero(some & self.good))
        return {"precision": _share(right, some), "recall": _share(right, self.good)}


class Labels:
    """The labels of a build; DuckDB holds them as the table `labels`, as far as the file was read.

    Raises:
        CurateError: their file is damaged.
    """

    def __init__(self, browsed: Browsed, columns: Columns) -> None:
        self._browsed, self._columns = browsed, columns
        self._lock = threading.RLock()
        self._labelled: Labelled | None = None
        self._read = self._lines = 0  # bytes and lines of the file
        with browsed.con.cursor() as cursor:
            cursor.execute('CREATE TABLE labels (id VARCHAR, label VARCHAR, "when" TIMESTAMP)')
        self.follow()

    def told(self) -> dict[str, Any]:
        """How many labels of samples of this build there are, and the label of each row that has one."""
        found = self.labelled()
        good = np.repeat(found.good, np.diff(np.r_[found.starts, len(found.n)]))
        return {
            "good": int(np.count_nonzero(found.good)),
            "bad": int(np.count_nonzero(~found.good)),
            "rows": {n: "good" if well else "bad" for n, well in zip(found.n.tolist(), good.tolist(), strict=True)},
        }

    def mark(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Label a sample, or take its label away.

        Args:
            asked: `n`, the number of its row, and `label`, of LABELS or None.

        Returns:
            As `told`.

        Raises:
            CurateError: there is no such label or sample, or the file cannot be written.
        """
        n, label = check_row(asked.get("n")), asked.get("label")
        if label is not None:
            query.known(label, LABELS, "label")
        row = query.sample(self._browsed, n, ("id", "level"))
        if row["level"] != "sample":
            raise CurateError(f"row {n} is a record that came to no sample: only samples are labelled")
        mark = Mark(id=row["id"], label=label, when=datetime.now(UTC))
        with self._lock:
            self._write(mark)
            return self.told()

    def labelled(self) -> Labelled:
        """Samples of this build that have a label."""
        with self._lock:
            self.follow()
            if self._labelled is None:
                found = self._table(
                    """
                    SELECT n, label = 'good' AS good, n = min(n) OVER (PARTITION BY id) AS first
                    FROM labels JOIN (SELECT id, n FROM rows WHERE level = 'sample') USING (id) ORDER BY id, n
                    """
                )
                n, good, first = (found[name].to_numpy() for name in ("n", "good", "first"))
                starts = np.flatnonzero(first)
                self._labelled = Labelled(n, np.searchsorted(self._columns.rows, n), starts, good[starts])
            return self._labelled

    def exported(self, form: str) -> bytes:
        """A file of all labels, the oldest first, with the columns EXPORTED.

        Args:
            form: of FORMATS.
        """
        self.follow()
        table = self._table(
            """
            SELECT id, min_by(uri, n) AS uri, any_value(label) AS label, any_value("when") AS "when"
            FROM labels LEFT JOIN (SELECT id, n, uri FROM rows WHERE level = 'sample') USING (id)
            GROUP BY id ORDER BY "when", id
            """
        ).cast(EXPORTED)
        out = BytesIO()
        if form == "csv":
            pyarrow.csv.write_csv(table, out)
        else:
            pq.write_table(table, out)
        return out.getvalue()

    def _table(self, sql: str) -> pa.Table:
        with self._browsed.con.cursor() as cursor:
            return cursor.sql(sql).to_arrow_table()

    def follow(self) -> None:
        """Read what was written since the last time; all of it where the file became shorter, or is gone."""
        file = self._browsed.labels
        with self._lock:
            size = file.stat().st_size if file.exists() else 0
            if size == self._read:
                return
            again = size < self._read
            start, lines = (0, 0) if again else (self._read, self._lines)
            new = b""
            if size:
                with file.open("rb") as opened:
                    opened.seek(start)
                    new = opened.read()
            last = {mark.id: mark for mark in self._marks(new, lines)}
            held = pa.Table.from_pylist([mark.model_dump() for mark in last.values()], _HELD)
            with self._browsed.con.cursor() as cursor:
                cursor.register("held", held)
                cursor.execute("BEGIN")
                cursor.execute(
                    "DELETE FROM labels" if again else "DELETE FROM labels WHERE id IN (SELECT id FROM held)"
                )
                cursor.execute("INSERT INTO labels SELECT * FROM held WHERE label IS NOT NULL")
                cursor.execute("COMMIT")
            self._read, self._lines = start + len(new), lines + new.count(b"\n")
            self._labelled = None

    def _marks(self, new: bytes, before: int) -> Iterable[Mark]:
        """Lines that come after `before` others."""
        for number, line in enumerate(new.splitlines(), before + 1):
            try:
                yield Mark.model_validate_json(line)
            except ValidationError as error:
                raise CurateError(
                    f"line {number} of {self._browsed.labels} is no label", "take the line out"
                ) from error

    def _write(self, mark: Mark) -> None:
        file = self._browsed.labels
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("a", encoding="utf-8") as out:
                out.write(mark.model_dump_json() + "\n")
        except OSError as error:
            raise CurateError(f"{file} cannot be written: {error.strerror}") from error


def _share(part: int, of: NDArray[np.bool_]) -> float | None:
    whole = int(np.count_nonzero(of))
    return part / whole if whole else None
