"""A trial: a run over a part of the sources, drawn by hashes of ids, into a folder of its own beside the build.

The draw is made where units are listed and where a unit is read, so what is not drawn is neither fetched nor held, and
a task draws from its own unit. It depends on names and ids alone: the same command draws the same records.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curate.pipeline.partitions import Partition, slices
from curate.schema.errors import CurateError
from curate.schema.ids import key_of, unit_interval
from curate.schema.manifest import Trial, TrialSource
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry
from curate.storage import Store

FEWEST_UNITS = 16
"""Units that a trial reads of a source that has more, unless its share of them is larger: enough to see how units
differ, and few enough that listing them costs little."""

NOTES = "units/trial"
"""What tasks and driver note of units, so that a trial knows how large the whole is; of FEWEST_UNITS of a source."""

_SHARE, _MOST, _NOTED = "trial_share", "trial_most", "trial_noted"


@dataclass(frozen=True)
class Draw:
    """What part of the sources is drawn: exactly one of both is given.

    Attributes:
        limit: at most so many records, the same number of each source; at least 1 of each.
        share: about this share of the records of each source, above 0 and below 1.
    """

    limit: int | None = None
    share: float | None = None

    def __post_init__(self) -> None:
        if (self.limit is None) == (self.share is None):
            raise CurateError("give --limit or --sample, not both")
        if self.limit is not None and self.limit < 1:
            raise CurateError(f"--limit is {self.limit}: a trial has at least 1 record")
        if self.share is not None and not 0 < self.share < 1:
            raise CurateError(
                f"--sample is {self.share:g}: a share is above 0 and below 1", "--limit takes a number of records"
            )

    def beside(self, build: str) -> str:
        """Where the trial of a build goes: `OUT-limit-100`, `OUT-sample-0.01`.

        Beside, since a run removes from its folder what its manifest does not name; with the draw in its name, so that
        two trials do not undo each other, and that nobody takes it for the whole.
        """
        return f"{build.rstrip('/')}-" + (f"limit-{self.limit}" if self.limit else f"sample-{self.share!r}")

    def of(self, sources: Sequence[Source], partition: int) -> list[Drawn]:
        """The sources, each giving only what is drawn of it.

        Args:
            partition: the recipe's: most records of a partition.

        Raises:
            CurateError: a limit below the number of sources.
        """
        if self.limit is None:
            return [Drawn(self, source, partition) for source in sources]
        if self.limit < len(sources):
            raise CurateError(
                f"--limit is {self.limit}, and the recipe has {len(sources)} sources", "give at least 1 record of each"
            )
        each, more = divmod(self.limit, len(sources))
        return [Drawn(self, source, partition, each + (i < more)) for i, source in enumerate(sources)]


class Drawn(Source):
    """A source that gives a part of another's records.

    Of many units some are drawn first, by the hashes of their names: `FEWEST_UNITS`, or the share of them where that is
    more. Of these, records by the hashes of their ids. What stands for a unit that cannot be read is always given.

    Args:
        draw: that it is a part of.
        source: the whole.
        partition: most records of a partition.
        most: of its records, where no share is drawn; the same number of each drawn unit.
    """

    def __init__(self, draw: Draw, source: Source, partition: int, most: int = 0) -> None:
        self.draw, self._of, self._partition, self._most = draw, source, partition, most
        self.name, self.licence, self.path, self.kind = source.name, source.licence, source.path, source.kind
        self.address, self.options = source.address, source.options

    @property
    def place(self) -> str:
        return self._of.place

    def check(self) -> None:
        self._of.check()

    def units(self, build: Store) -> Iterator[Unit]:
        drawn, count = self._drawn(self._of.units(build))
        noted = {unit.name for _, unit in heapq.nsmallest(FEWEST_UNITS, drawn, key=lambda one: one[0])}
        notes = {
            "units": len(drawn),
            "of_units": count,
            "noted": [_note(unit) for _, unit in drawn if unit.name in noted],
        }
        build.write(self._notes, json.dumps(notes).encode())
        share = min(1.0, (self.draw.share or 0) * count / max(1, len(drawn)))
        each, more = divmod(self._most, max(1, len(drawn)))
        for i, (_, unit) in enumerate(drawn):
            part: dict[str, int | str] = {_SHARE: repr(share)} if self.draw.share else {_MOST: each + (i < more)}
            yield replace(unit, detail={**unit.detail, **part, _NOTED: int(unit.name in noted)})

    def _drawn(self, units: Iterable[Unit]) -> tuple[list[tuple[float, Unit]], int]:
        """Units of the smallest hashes, in the source's order, with these; and how many there are. Only what may be
        drawn is held."""
        below = self.draw.share or 0
        fewest = FEWEST_UNITS if self.draw.share else min(FEWEST_UNITS, self._most)
        drawn: list[tuple[int, float, Unit]] = []
        others: list[tuple[float, int, Unit]] = []  # those of the smallest hashes, the largest first
        count = 0
        for unit in units:
            number = unit_interval(0, f"trial/{self.name}/{unit.name}")
            if number < below:
                drawn.append((count, number, unit))
            else:
                heapq.heappush(others, (-number, count, unit))
                if len(others) > fewest:
                    heapq.heappop(others)
            count += 1
        more = heapq.nlargest(max(0, fewest - len(drawn)), others)
        in_order = sorted([*drawn, *((at, -number, unit) for number, at, unit in more)], key=lambda one: one[0])
        return [(number, unit) for _, number, unit in in_order], count

    def state(self, unit: Unit, build: Store) -> str:
        state = self._of.state(unit, build)
        # what is noted of a unit has to be there too, where it is not read again
        if not state or (int(unit.detail[_NOTED]) and build.stat(_note(unit)) is None):
            return ""
        return key_of([state, *(str(unit.detail.get(key)) for key in (_SHARE, _MOST))])

    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        entries = self._noted(unit, build)
        if self.draw.share:
            share = float(unit.detail[_SHARE])
            yield from (entry for entry in entries if entry.is_whole or _number(entry) < share)
            return
        whole: list[tuple[int, Entry]] = []

        def keyed() -> Iterator[tuple[float, int, Entry]]:
            for i, entry in enumerate(entries):
                if entry.is_whole:
                    whole.append((i, entry))
                else:
                    yield _number(entry), i, entry

        drawn = heapq.nsmallest(int(unit.detail[_MOST]), keyed(), key=lambda one: one[:2])
        yield from (entry for _, entry in sorted([*((i, e) for _, i, e in drawn), *whole], key=lambda one: one[0]))

    def _noted(self, unit: Unit, build: Store) -> Iterator[Entry]:
        """The records of the whole unit; how many they are, and how many partitions, is noted at the end."""
        records = partitions = 0
        for entries in slices(self._of.read(unit, build), self._partition):
            partitions += 1
            records += sum(not entry.is_whole for entry in entries)
            yield from entries
        if int(unit.detail[_NOTED]):
            build.write(_note(unit), json.dumps({"records": records, "partitions": partitions}).encode())

    def fingerprint(self) -> Any:
        return self._of.fingerprint()

    def nothing(self, said: Entry | None) -> CurateError:
        wrong = self._of.nothing(said)
        return CurateError(
            f"source {self.name!r}: the trial drew no record of it",
            wrong.hint or "draw more, or look whether it has any",
        )

    def told(self, build: Store, records: int, partitions: int) -> TrialSource:
        """What was drawn, and what the whole source has as far as the trial tells.

        Args:
            build: the trial's.
            records, partitions: that it has of the source.
        """
        notes = json.loads(build.read(self._notes))
        noted = [json.loads(build.read(path)) for path in notes["noted"]]
        by_unit = {of: sum(note[of] for note in noted) / len(noted) for of in ("records", "partitions")}
        whole = by_unit["records"] * notes["of_units"]
        if self.draw.share and len(noted) < notes["of_units"]:
            whole = records / self.draw.share
        return TrialSource(
            name=self.name,
            records=records,
            of_records=round(whole),
            units=notes["units"],
            of_units=notes["of_units"],
            partitions=partitions,
            of_partitions=round(by_unit["partitions"] * notes["of_units"]),
        )

    @property
    def _notes(self) -> str:
        return f"{NOTES}/{self.name}.json"


def trial_of(
    build: Store, sources: Sequence[Source], partitions: Iterable[Partition], records: Mapping[str, int]
) -> Trial | None:
    """What the manifest says of a trial; None where the sources are whole.

    Args:
        partitions: of the build.
        records: of it, by source.
    """
    drawn = [source for source in sources if isinstance(source, Drawn)]
    if not drawn:
        return None
    count = Counter(partition.source for partition in partitions)
    told = [source.told(build, records[source.name], count[source.name]) for source in drawn]
    return Trial(limit=drawn[0].draw.limit, sample=drawn[0].draw.share, sources=told)


def _number(entry: Entry) -> float:
    """In [0, 1), uniform over records, and independent of the draw of splits."""
    return unit_interval(0, f"trial/{entry.record_id}")


def _note(unit: Unit) -> str:
    return f"{NOTES}/{unit.source}/{key_of(unit.name)}.json"
