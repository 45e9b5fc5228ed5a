"""Causes of failure as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence

from curate.schema.events import Cause
from curate.schema.text import escape_controls

MOST = 5
"""Causes that a person is told."""

URI_CHARS, MESSAGE_CHARS = 120, 200


def cause_lines(found: Sequence[Cause]) -> list[str]:
    """The first `MOST` causes, a line each, and a line for the rest of them.

    Uris and messages come from outside: what a terminal would obey is escaped, and each is cut to its limit.
    """
    lines = []
    for cause in found[:MOST]:
        what = f"{cause.count:>7,} {cause.level}{'s' if cause.count > 1 else ' '}"
        uri, message = _shown(cause.uri, URI_CHARS), _shown(cause.message, MESSAGE_CHARS)
        said = message if message.startswith(uri) else f"{uri}: {message}"
        lines.append(f"{what}  {cause.stage} {cause.error}  {said}")
    rest = found[MOST:]
    if rest:
        lines.append(f"{sum(c.count for c in rest):>7,} of {len(rest)} other {'kind' if len(rest) == 1 else 'kinds'}")
    return lines


def _shown(text: str, limit: int) -> str:
    safe = escape_controls(text)
    if len(safe) <= limit:
        return safe
    return f"{safe[: limit // 2]}…{safe[-(limit // 2) :]}"
