"""Numbers as words: 4M writes 1000 bins on each of four axes as `v0=0` .. `v3=999`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from operator import index

BINS = 1000
AXES = 4
CODES = 1024
"""Entries of the codebooks whose ids are written as words (human poses, SAM instances)."""

_WORD = re.compile(r"v([0-3])=(0|[1-9][0-9]{0,2})")
_HALF = CODES // 2


def bin_word(axis: int, number: int) -> str:
    """The word of a bin, `v<axis>=<number>`.

    Raises:
        ValueError: not 0 <= axis < 4 and 0 <= number < 1000.
        TypeError: the number is no integer.
    """
    if not (0 <= axis < AXES and 0 <= number < BINS):
        raise ValueError(f"no bin {number} on axis {axis}: bins are 0 to {BINS - 1}, axes 0 to {AXES - 1}")
    return f"v{axis}={index(number)}"


def code_word(code: int) -> str:
    """The word of a codebook id 0 .. 1023: `v0=i` below 512, `v1=i-512` from there on."""
    if not 0 <= code < CODES:
        raise ValueError(f"no code {code}: codes are 0 to {CODES - 1}")
    return bin_word(0, code) if code < _HALF else bin_word(1, code - _HALF)


def to_bin(value: float, scale: float, shift: float) -> int:
    """`round(scale * value + shift)`, half to even, clipped to 0 .. 999; ValueError for a value that is not finite."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return min(max(round(scale * value + shift), 0), BINS - 1)


class Reader:
    """Takes words from the left of a list; ValueError, with the place, for one that is not what the format says."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._words)

    def is_next(self, word: str) -> bool:
        return not self.done and self._words[self._at] == word

    def word(self, what: str) -> str:
        """The next word, whatever it is; `what` is for the message when there is none."""
        if self.done:
            raise ValueError(f"the words end where {what} should be")
        self._at += 1
        return self._words[self._at - 1]

    def keyword(self, word: str) -> None:
        """The next word, which must be this one."""
        found = self.word(repr(word))
        if found != word:
            raise self._wrong(repr(word), found)

    def bin(self, axis: int) -> int:
        """The number of the next word, which must be a bin of this axis."""
        found = self.word(f"v{axis}=")
        at = _parsed(found)
        if at is None or at[0] != axis:
            raise self._wrong(f"v{axis}=0 to v{axis}={BINS - 1}", found)
        return at[1]

    def code(self) -> int:
        """The codebook id of the next word."""
        found = self.word("a code")
        at = _parsed(found)
        if at is None or at[0] > 1 or at[1] >= _HALF:
            raise self._wrong(f"a code, v0=0 to v1={_HALF - 1}", found)
        return at[0] * _HALF + at[1]

    def _wrong(self, wanted: str, found: str) -> ValueError:
        return ValueError(f"word {self._at - 1} is {found!r}, not {wanted}")


def _parsed(word: str) -> tuple[int, int] | None:
    found = _WORD.fullmatch(word)
    return (int(found[1]), int(found[2])) if found else None
