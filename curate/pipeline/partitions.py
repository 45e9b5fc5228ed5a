"""Partitions: fixed slices of a source's units, named by their own content. A partition is the unit of every stage."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from curate.schema.ids import digest_of_rows, key_of
from curate.sources.entry import Entry, File, TarMember
from curate.sources.media_types import is_timed

MOST_TIMED = 32
"""Most records that look like video or audio in one partition, whatever the recipe's `partition`. Each costs as much as
tens of images: so a few of them make work for several CPUs, and what a crash undoes stays small."""

MOST_BYTES = 128 << 20
"""Most bytes of records in one partition, as far as listing tells them: its media become one tar."""

KEY_HEX = 16
"""Hex digits of a key in file names: 64 bits, and the source's name stands beside a partition's."""


@dataclass(frozen=True)
class Partition:
    """A slice of a unit.

    Attributes:
        name: names all its fragments, e.g. `web-3f0c9a6be1d27750`.
        source: name of its source.
        rows: records in it.
    """

    name: str
    source: str
    rows: int


def slices(entries: Iterable[Entry], size: int) -> Iterator[list[Entry]]:
    """Cut the records of a unit into partitions, in order: of at most `size` records, `MOST_TIMED` timed ones and
    `MOST_BYTES`; one record alone may have more.

    Where a slice ends follows from the records up to there, so appending to a unit changes its last partition only.
    """
    held: list[Entry] = []
    timed = held_bytes = 0
    for entry in entries:
        at = entry.location
        more = at.bytes if isinstance(at, File | TarMember) else 0
        is_long = is_timed(entry.uri)
        full = len(held) == size or timed + is_long > MOST_TIMED or held_bytes + more > MOST_BYTES
        if held and full:
            yield held
            held, timed, held_bytes = [], 0, 0
        held.append(entry)
        timed += is_long
        held_bytes += more
    if held:
        yield held


def partition_name(source: str, read_as: Any, unit: str, identities: Sequence[str]) -> str:
    """The name of a slice: it changes with what its source's options or its own records say, and with nothing else.

    Args:
        source: name of the source.
        read_as: JSON value of the source's options that change what is read.
        unit: name of the unit in its source.
        identities: of the records (`sources.entry.identities`), in order.
    """
    return f"{source}-{key_of([read_as, unit, digest_of_rows(identities)])[:KEY_HEX]}"


def fragment(folder: str, partition: str, made_by: Any, suffix: str = "parquet") -> str:
    """Path of the file that a stage commits for a partition, relative to the build.

    Args:
        folder: the stage's, e.g. `signals/light`.
        made_by: JSON value of all that the result depends on beside the partition: code version, options, models.
    """
    return f"{folder}/{partition}-{key_of(made_by)[:KEY_HEX]}.{suffix}"
