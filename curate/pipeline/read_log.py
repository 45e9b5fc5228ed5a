"""Which units earlier runs have read, and into which partitions: what is as it was is not read again (law 13)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa

from curate.pipeline.partitions import Partition
from curate.pipeline.rows import FILES
from curate.schema.ids import key_of
from curate.schema.manifest import File
from curate.sources.base import Source, Unit
from curate.storage import Store
from curate.storage.tables import read_table, write_table

READ_LOG = "units/read.parquet"
"""One row a partition, of units whose source can tell a changed one."""

READ_LOG_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),  # with the options that it was read by
        pa.field("partition", pa.string(), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("whole", pa.int64(), nullable=False),
        pa.field("samples", pa.int64(), nullable=False),
        pa.field("files", FILES, nullable=False),
    ]
)


@dataclass(frozen=True)
class Read:
    """A partition of a unit that was read.

    Attributes:
        whole: records that stand for a unit that cannot be read.
        samples: rows of its table of samples.
        files: those of its files whose digests are known; the others were committed by a run that did not end.
    """

    partition: Partition
    unit: str
    whole: int
    samples: int
    files: tuple[File, ...]


class ReadLog:
    """What is known of units.

    Args:
        sources: by name.
        size: the recipe's `partition`.
    """

    def __init__(self, build: Store, sources: Mapping[str, Source], size: int) -> None:
        self._build, self._sources, self._size = build, sources, size
        self._states: dict[tuple[str, str], str] = {}
        self._known: dict[tuple[str, str], tuple[str, list[Read]]] = {}
        if build.stat(READ_LOG) is not None:
            with suppress(pa.ArrowException, KeyError):  # of another version of curate: all is read again
                for row in read_table(build, READ_LOG, READ_LOG_SCHEMA.names).to_pylist():
                    of = self._known.setdefault((row["source"], row["unit"]), (row["state"], []))
                    partition = Partition(row["partition"], row["source"], row["rows"])
                    files = tuple(File(**file) for file in row["files"])
                    of[1].append(Read(partition, row["unit"], row["whole"], row["samples"], files))

    def unchanged(self, unit: Unit, is_whole: Callable[[Partition], bool]) -> Sequence[Read]:
        """Partitions of a unit that is as it was when they were made; none where it must be read.

        Args:
            is_whole: whether all fragments of a partition are there.
        """
        state = self._state(unit)
        before, found = self._known.get((unit.source, unit.name), ("", []))
        if not state or state != before or not all(is_whole(one.partition) for one in found):
            return []
        return found

    def write(self, found: Iterable[Read]) -> None:
        """Note what has been read."""
        rows = [
            {
                "source": one.partition.source,
                "unit": one.unit,
                "state": state,
                "partition": one.partition.name,
                "rows": one.partition.rows,
                "whole": one.whole,
                "samples": one.samples,
                "files": [file.model_dump() for file in one.files],
            }
            for one in found
            if (state := self._states.get((one.partition.source, one.unit)))
        ]
        table = pa.Table.from_pylist(rows, schema=READ_LOG_SCHEMA)
        write_table(self._build, READ_LOG, table.sort_by([("source", "ascending"), ("partition", "ascending")]))

    def _state(self, unit: Unit) -> str:
        """The unit's state before it is read, with what it is read by."""
        source = self._sources[unit.source]
        with suppress(OSError):  # reading it says what is wrong
            state = source.state(unit, self._build)
            if state:
                self._states[unit.source, unit.name] = key_of([state, source.fingerprint(), source.licence, self._size])
        return self._states.get((unit.source, unit.name), "")
