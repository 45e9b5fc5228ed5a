"""DuckDB over Parquet files: a stated memory, literal paths, nothing of the calling code."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.schema.errors import CurateError
from curate.storage.sql import connect, quoted, scan, text


def test_too_little_memory_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CURATE_SQL_MEMORY", "4MiB")
    with pytest.raises(CurateError, match="needs more than the 4MiB") as raised, connect() as con:
        con.execute("SELECT list(range) FROM range(10000000)")
    assert "CURATE_SQL_MEMORY" in raised.value.hint
    monkeypatch.setenv("CURATE_SQL_MEMORY", "much")
    with pytest.raises(CurateError, match="CURATE_SQL_MEMORY is much, which is no size"), connect():
        pass


def test_names_of_files_and_columns_are_taken_literally(tmp_path: Path) -> None:
    folder = tmp_path / "kind=video" / "it's [a] *"
    folder.mkdir(parents=True)
    pq.write_table(pa.table({'a "b"': [1, 2]}), folder / "part?.parquet")
    pq.write_table(pa.table({'a "b"': [3]}), folder / "part1.parquet")
    with connect() as con:
        found = con.execute(f"SELECT * FROM {scan([str(folder / 'part?.parquet')])}")
        assert [column[0] for column in found.description] == ['a "b"']
        assert found.fetchall() == [(1,), (2,)]
        name, value = quoted('x" y'), text("it's")
        assert con.execute(f"SELECT {value} AS {name}").fetchall() == [("it's",)]


def test_a_variable_is_no_table() -> None:
    rows = pa.table({"a": [1]})
    with connect() as con, pytest.raises(duckdb.CatalogException):
        con.execute("SELECT * FROM rows")
    assert len(rows) == 1
