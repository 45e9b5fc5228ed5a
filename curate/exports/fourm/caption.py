r"""The stream `caption`: free text, made safe for a reader that finds special words in text.

The tokenizers here (`TextBPE`, `WordPiece4M`) know no special words in text at all. ml-4m's own reader does: to it a
caption that spells `[EOS]` or `v0=12` is a special id. What goes there is written with `write`: one backslash more
inside each such word, `[\EOS]`, `v0\=12`, `[\S_3]`; one that has backslashes there already gets one more. `parse`
takes one away again. So any text comes back exactly, and no written text holds a special word.

Object names (`dog`) stay as they are: 4M means captions and boxes to share them. Its own decoder drops them with the
special ids; ours does not.
"""

from __future__ import annotations

import re

_SPECIAL = r"(?P<{0}>\[)(?P<{1}>{2})(?P<{3}>(?:PAD|UNK|SOS|EOS|S_[0-9]+)\])"
_BIN = r"(?P<{0}>v[0-3])(?P<{1}>{2})(?P<{3}>=[0-9]+)"


def _pattern(slashes: str) -> re.Pattern[str]:
    return re.compile(_SPECIAL.format("a", "b", slashes, "c") + "|" + _BIN.format("d", "e", slashes, "f"))


_WRITE, _PARSE = _pattern(r"\\*"), _pattern(r"\\+")


def write(text: str) -> str:
    """The text with one backslash more in each word that is special, or is so but for backslashes."""
    return _WRITE.sub(lambda m: f"{m['a'] or m['d']}\\{m['b'] or m['e'] or ''}{m['c'] or m['f']}", text)


def parse(written: str) -> str:
    """The text of which `write` made this."""
    return _PARSE.sub(lambda m: f"{m['a'] or m['d']}{(m['b'] or m['e'])[1:]}{m['c'] or m['f']}", written)
