"""The nearest of some names, for messages about a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def closest(word: str, among: Iterable[str]) -> str | None:
    """The name that `word` was probably meant to be, whatever its case; None where none is near."""
    by_lower = {name.lower(): name for name in among}
    close = get_close_matches(word.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[close[0]] if close else None


def nearest(word: str, among: Iterable[str]) -> str:
    """`did you mean 'X'? ` to begin a hint with, or nothing."""
    found = closest(word, among)
    return f"did you mean {found!r}? " if found else ""


def meant(word: str, among: Iterable[str]) -> str:
    """`; did you mean `X`?` to end a message with, or nothing."""
    found = closest(word, among)
    return f"; did you mean `{found}`?" if found else ""
