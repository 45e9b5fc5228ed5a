"""Which fragments of tokens serve which verdicts: what has the verdicts that it had is not looked at again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

import pyarrow as pa

from curate.pipeline.paths import Paths
from curate.pipeline.streams import StreamPlan
from curate.pipeline.tokenize import Work
from curate.shards.pack import Tokenized
from curate.storage import Store
from curate.storage.tables import read_table, write_table

TOKEN_LOG = "units/tokenized.parquet"
"""One row a partition of which nothing failed."""

TOKEN_LOG_SCHEMA = pa.schema(
    [
        pa.field("partition", pa.string(), nullable=False),
        pa.field("verdicts", pa.string(), nullable=False),  # named by its bytes, so by the samples that it keeps
        pa.field("fragments", pa.map_(pa.string(), pa.list_(pa.string())), nullable=False),
    ]
)


class TokenLog:
    """What an earlier run tokenized.

    Args:
        there: paths of all fragments of tokens.
    """

    def __init__(self, build: Store, paths: Paths, streams: Sequence[StreamPlan], there: Iterable[str]) -> None:
        self._build, self._paths, self._there = build, paths, set(there)
        self._below: dict[str, list[str]] = {}
        for path in sorted(self._there):
            self._below.setdefault(paths.prefix_of(path), []).append(path)
        self._streams = {s.use.name: s for s in streams}
        self._known: dict[str, Tokenized] = {}
        if build.stat(TOKEN_LOG) is not None:
            with suppress(pa.ArrowException, KeyError):  # of another version of curate: all is looked at again
                for row in read_table(build, TOKEN_LOG, TOKEN_LOG_SCHEMA.names).to_pylist():
                    name = row["partition"]
                    self._known[name] = Tokenized(name, row["verdicts"], dict(row["fragments"]))

    def of(self, work: Work) -> Tokenized | None:
        """The fragments that serve a partition with these verdicts; None where they must be looked for or made."""
        found = self._known.get(work.partition.name)
        if found is None or found.verdicts != work.verdicts or found.fragments.keys() != self._streams.keys():
            return None
        for stream, fragments in found.fragments.items():
            prefix = self._streams[stream].prefix(self._paths, work.partition)
            if not all(path.startswith(prefix) and path in self._there for path in fragments):
                return None
        return found

    def held(self, work: Work) -> dict[str, list[str]] | None:
        """All fragments of a partition, by stream; None where a stream has none."""
        found = {name: self._below.get(s.prefix(self._paths, work.partition), []) for name, s in self._streams.items()}
        return found if all(found.values()) else None

    def write(self, tokenized: Iterable[Tokenized]) -> None:
        """Note what serves which verdicts."""
        rows = []
        for one in tokenized:
            fragments = [(stream, list(paths)) for stream, paths in one.fragments.items()]
            rows.append({"partition": one.name, "verdicts": one.verdicts, "fragments": fragments})
        write_table(self._build, TOKEN_LOG, pa.Table.from_pylist(rows, schema=TOKEN_LOG_SCHEMA))
