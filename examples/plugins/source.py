"""A source: a SQLite table of paths or urls and captions, as photo managers and crawlers keep them."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from curate.sources import Entry, Options, Source, Unit
from curate.storage import Store


class SqliteOptions(Options):
    table: str = "images"


class Sqlite(Source):
    """One record a row of `table(uri, caption)`; a thousand rowids are a unit, which any worker reads on its own."""

    Options = SqliteOptions

    def units(self, build: Store) -> Iterator[Unit]:
        for (start,) in self._rows(f"SELECT DISTINCT rowid / 1000 * 1000 FROM {self.options.table} ORDER BY 1"):
            yield Unit(self.name, f"rows {start}", self.address, 0, {"start": start})

    def records(self, unit: Unit) -> Iterator[Entry]:
        rows = f"SELECT uri, caption FROM {self.options.table} WHERE rowid / 1000 * 1000 = {unit.detail['start']}"
        return (self.entry(unit, uri, caption) for uri, caption in self._rows(rows))

    def _rows(self, query: str) -> list[tuple]:
        with closing(sqlite3.connect(f"file:{self.address}?mode=ro", uri=True)) as database:
            return database.execute(query).fetchall()
