"""How the messages of signals name the nearest of some names."""

from __future__ import annotations

from collections.abc import Iterable

from curate.schema.nearest import closest


def nearest(word: str, among: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest of some names, or nothing where none is near."""
    found = closest(word, among)
    return f"; did you mean `{found}`?" if found else ""
