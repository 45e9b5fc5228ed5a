"""A trial: a run over a part of the sources, drawn by hashes of ids, into a folder of its own beside the build.

The draw is made where units are listed and where a unit is read, so what is not drawn is neither fetched nor held, and
a task draws from its own unit. It depends on names and ids alone: the same command draws the same records.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from curate.schema.errors import CurateError
from curate.schema.ids import key_of, unit_interval
from curate.sources.base import Source, Unit
from curate.sources.entry import Entry
from curate.storage import Store

FEWEST_UNITS = 16
"""Units that a trial reads of a source that has more, unless its share of them is larger: enough to see how units
differ, and few enough that listing them costs little."""

NOTES = "units/trial"
"""What tasks and driver note of units, so that a trial with a limit knows how large the whole is."""

_SHARE, _MOST = "trial_share", "trial_most"


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

    def of(self, sources: Sequence[Source]) -> list[Drawn]:
        """The sources, each giving only what is drawn of it.

        Raises:
            CurateError: a limit below the number of sources.
        """
        if self.limit is None:
            return [Drawn(source, share=self.share) for source in sources]
        if self.limit < len(sources):
            raise CurateError(
                f"--limit is {self.limit}, and the recipe has {len(sources)} sources", "give at least 1 record of each"
            )
        each, more = divmod(self.limit, len(sources))
        return [Drawn(source, most=each + (i < more)) for i, source in enumerate(sources)]


class Drawn(Source):
    """A source that gives a part of another's records.

    Of many units some are drawn first, by the hashes of their names: `FEWEST_UNITS`, or the share of them where that is
    more. Of these, records by the hashes of their ids. What stands for a unit that cannot be read is always given.

    Args:
        source: the whole.
        share: of its records, in expectation.
        most: of its records, where there is no share; the same number of each drawn unit.
    """

    def __init__(self, source: Source, share: float | None = None, most: int = 0) -> None:
        self._of, self._share, self._most = source, share, most
        self.name, self.licence, self.path, self.kind = source.name, source.licence, source.path, source.kind
        self.address, self.options = source.address, source.options

    @property
    def place(self) -> str:
        return self._of.place

    def check(self) -> None:
        self._of.check()

    def units(self, build: Store) -> Iterator[Unit]:
        listed = list(self._of.units(build))
        drawn = self._drawn(listed)
        if self._share is not None:
            share = min(1.0, self._share * len(listed) / max(1, len(drawn)))
            yield from (replace(unit, detail={**unit.detail, _SHARE: repr(share)}) for unit in drawn)
            return
        notes = {"units": len(listed), "drawn": [_note(unit) for unit in drawn]}
        build.write(f"{NOTES}/{self.name}.json", json.dumps(notes).encode())
        each, more = divmod(self._most, max(1, len(drawn)))
        for i, unit in enumerate(drawn):
            yield replace(unit, detail={**unit.detail, _MOST: each + (i < more)})

    def _drawn(self, listed: Sequence[Unit]) -> list[Unit]:
        """Units of the smallest hashes, in the source's order."""
        share, most = self._share, self._most
        count = min(FEWEST_UNITS, most) if share is None else max(FEWEST_UNITS, round(share * len(listed)))
        keyed = ((unit_interval(0, f"trial/{self.name}/{unit.name}"), i) for i, unit in enumerate(listed))
        return [listed[i] for i in sorted(i for _, i in heapq.nsmallest(count, keyed))]

    def state(self, unit: Unit, build: Store) -> str:
        state = self._of.state(unit, build)
        if not state:
            return ""
        # what is noted of a unit has to be there too, where it is not read again
        if _MOST in unit.detail and build.stat(_note(unit)) is None:
            return ""
        return key_of([state, *(str(unit.detail.get(key)) for key in (_SHARE, _MOST))])

    def read(self, unit: Unit, build: Store) -> Iterator[Entry]:
        entries = self._of.read(unit, build)
        if _SHARE in unit.detail:
            share = float(unit.detail[_SHARE])
            yield from (entry for entry in entries if entry.is_whole or _number(entry) < share)
            return
        most, whole = int(unit.detail[_MOST]), list[tuple[int, Entry]]()
        listed = 0

        def keyed() -> Iterator[tuple[float, int, Entry]]:
            nonlocal listed
            for i, entry in enumerate(entries):
                if entry.is_whole:
                    whole.append((i, entry))
                else:
                    listed += 1
                    yield _number(entry), i, entry

        chosen = [(i, entry) for _, i, entry in heapq.nsmallest(most, keyed(), key=lambda one: one[:2])]
        build.write(_note(unit), json.dumps({"listed": listed}).encode())
        yield from (entry for _, entry in sorted([*chosen, *whole], key=lambda one: one[0]))

    def fingerprint(self) -> Any:
        return self._of.fingerprint()

    def nothing(self, said: Entry | None) -> CurateError:
        wrong = self._of.nothing(said)
        return CurateError(
            f"source {self.name!r}: the trial drew no record of it",
            wrong.hint or "draw more, or look whether it has any",
        )

    def whole(self, build: Store, drawn: int) -> float:
        """How many records the whole source has, as far as the trial tells.

        Args:
            build: the trial's.
            drawn: records that the trial had of it.
        """
        if self._share is not None:
            return drawn / self._share
        notes = json.loads(build.read(f"{NOTES}/{self.name}.json"))
        listed = [json.loads(build.read(path))["listed"] for path in notes["drawn"]]
        return float(sum(listed) * notes["units"] / len(listed))


def _number(entry: Entry) -> float:
    """In [0, 1), uniform over records, and independent of the draw of splits."""
    return unit_interval(0, f"trial/{entry.record_id}")


def _note(unit: Unit) -> str:
    return f"{NOTES}/{unit.source}/{key_of(unit.name)}.json"
