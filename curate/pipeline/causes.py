"""Causes of failure, out of the ledger: which stage, which class of error, how often."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.schema.events import Cause
from curate.schema.verdict import Outcome

COLUMNS = ("level", "id", "uri", "outcome", "stage", "error", "message")
"""What is read of the ledger."""

MOST = 5
"""Causes that a person is told."""

URI_CHARS, MESSAGE_CHARS = 120, 200

_BY = ["level", "stage", "error"]


def causes(parts: Iterable[pa.Table]) -> list[Cause]:
    """Failures by level, stage and class of error, the most frequent first.

    Args:
        parts: the ledger, or tables that it is made of; of LEDGER, or with `COLUMNS` of it. They are read one by one.

    Returns:
        Every cause, with the failure of the smallest id as its example. Ties go by level, stage and error.
    """
    counts: dict[tuple[str, str, str], int] = {}
    examples: dict[tuple[str, str, str], dict[str, Any]] = {}
    for part in parts:
        failed = part.select(COLUMNS).filter(pc.equal(part["outcome"], str(Outcome.FAILED)))
        found = failed.group_by(_BY).aggregate([("id", "count"), ("id", "min")])
        first = failed.join(found, [*_BY, "id"], [*_BY, "id_min"], join_type="inner")
        for row in first.to_pylist():
            key = (row["level"], row["stage"], row["error"])
            counts[key] = counts.get(key, 0) + row["id_count"]
            if key not in examples or row["id"] < examples[key]["id"]:
                examples[key] = row
    return [
        Cause(**dict(zip(_BY, key, strict=True)), count=counts[key], uri=row["uri"], message=row["message"])
        for key, row in sorted(examples.items(), key=lambda item: (-counts[item[0]], item[0]))
    ]


def cause_lines(found: Sequence[Cause], most: int = MOST) -> list[str]:
    """The first `most` causes, a line each, and a line for the rest of them.

    Uris and messages come from outside: what a terminal would obey is escaped, and each is cut to its limit.
    """
    lines = []
    for cause in found[:most]:
        what = f"{cause.count:>7,} {cause.level}{'s' if cause.count > 1 else ' '}"
        uri, message = _shown(cause.uri, URI_CHARS), _shown(cause.message, MESSAGE_CHARS)
        said = message if message.startswith(uri) else f"{uri}: {message}"
        lines.append(f"{what}  {cause.stage} {cause.error}  {said}")
    rest = found[most:]
    if rest:
        lines.append(f"{sum(c.count for c in rest):>7,} of {len(rest)} other {'kind' if len(rest) == 1 else 'kinds'}")
    return lines


def _shown(text: str, limit: int) -> str:
    safe = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
    if len(safe) <= limit:
        return safe
    return f"{safe[: limit // 2]}…{safe[-(limit // 2) :]}"
