"""The nearest of some names, for messages about a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(word: str, among: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of some names, or nothing where none is near."""
    by_lower = {name.lower(): name for name in among}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean `{by_lower[close[0]]}`?" if close else ""
