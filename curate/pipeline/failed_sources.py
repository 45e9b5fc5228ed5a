"""A source that fails whole ends the run before work on the others is paid for: a wrong address, a server that is down.

Two checks, of which neither depends on the order in which tasks end:

* the first partition of a unit that is drawn by the hash of its name, since tables and folders are often sorted, and
  dead addresses stand together: of `FEWEST` records or more, or all that the source has. Where every record of it
  fails, the task that fetches or decodes it ends the run. Nothing of it is committed, so that the same command tries
  again.
* the first verdicts: where every record of a source has failed.

Sources of which an earlier run has read something are past the first check. Of a trial, a source is judged by `FEWEST`
drawn records or more: one that is broken may be all that was drawn. With `max_failed: 1` there is no check.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from curate.pipeline.partitions import MOST_TIMED
from curate.schema.errors import CurateError
from curate.schema.ids import unit_interval
from curate.sources.base import Unit

FEWEST = MOST_TIMED
"""Records that tell of a source that has more: as many as the smallest partitions that are full."""

FIRST, ALL = "first", "all"
"""What a unit or a partition is to its source: the first of several that is read, the only one; None for any other."""


def leading_units(
    units: Sequence[Unit], known: Collection[str], drawn: Collection[str] = ()
) -> list[tuple[Unit, str | None]]:
    """Units with what they are to their sources, those that speak for sources before all others.

    Args:
        units: of all sources, in order.
        known: sources of which something was read before.
        drawn: sources of which a part is drawn, so that none of their units is all.
    """
    counts = Counter(unit.source for unit in units)
    leads: dict[str, Unit] = {}
    for unit in units:
        if unit.source not in known:
            leads[unit.source] = min(leads.get(unit.source, unit), unit, key=_drawn)
    found: list[tuple[Unit, str | None]] = [
        (unit, ALL if counts[name] == 1 and name not in drawn else FIRST) for name, unit in leads.items()
    ]
    return found + [(unit, None) for unit in units if unit is not leads.get(unit.source)]


def _drawn(unit: Unit) -> float:
    return unit_interval(0, f"leading/{unit.source}/{unit.name}")


def leading(unit: str | None, rows: int, is_last: bool) -> str | None:
    """What the first partition of a unit is to the source.

    Args:
        unit: what the unit is.
        rows: records of the partition.
        is_last: True if the unit has no other.
    """
    if unit == ALL and is_last:
        return ALL
    return FIRST if unit is not None and rows >= FEWEST else None


def check_leading(what: str | None, source: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """End the run where a partition that speaks for its source has nothing but failures.

    Args:
        what: the partition is to its source.
        source: its name.
        rows: of FETCHED or RECORDS.

    Raises:
        CurateError: every record failed; it names the commonest cause.
    """
    if what is None or not rows or any(row["error"] is None for row in rows):
        return
    from curate.schema.events import Cause

    kinds = Counter((row["stage"], row["error"]) for row in rows)
    (stage, error), count = kinds.most_common(1)[0]
    alike = [row for row in rows if (row["stage"], row["error"]) == (stage, error)]
    message = Counter(row["message"] for row in alike).most_common(1)[0][0]
    uri = next(row["uri"] for row in alike if row["message"] == message)
    cause = Cause(level="record", stage=stage, error=error, count=count, uri=uri, message=message)
    raise failed_whole(source, len(rows), what, cause, "the same command tries them again")


def failed_whole(source: str, records: int, what: str, cause: Any, again: str) -> CurateError:
    """The error for a source that fails whole.

    Args:
        records: that failed.
        what: FIRST or ALL of it.
        cause: the commonest (`schema.events.Cause`).
        again: how they are tried again.
    """
    from curate.pipeline.causes import cause_lines

    said = f"the {records:,} records of source {source!r} that were read first all failed"
    if what == ALL:
        said = (
            f"all {records:,} records of source {source!r} failed"
            if records > 1
            else f"the only record of source {source!r} failed"
        )
    return CurateError(
        f"{said}: {cause_lines([cause])[0].strip()}",
        f"when that is mended {again}; or take the source out of the recipe; `max_failed: 1` in the recipe "
        "makes the build all the same" + ", as where others of a sorted source may be alive" * (what == FIRST),
    )
