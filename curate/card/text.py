"""Text of strangers made safe to show, and numbers as a person reads them.

Captions, uris and error messages come from the open web (law 11). Markup is escaped by jinja2; what escaping does not
touch, characters that hide or reorder the text around them, is made visible here.
"""

from __future__ import annotations

import re
from typing import Any

from markupsafe import Markup

_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, but tab and newline
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides, isolates
    "\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb"  # zero width, separators, interlinear notes
    "\ud800-\udfff\U000e0000-\U000e0fff]"  # lone surrogates, tag characters
)
_MARKDOWN = re.compile(
    r"[&<\"'\\`*{}\[\]#|~@!^$]"
    r"|^>|:(?!\s)|(?<![^\W_])_|_(?![^\W_])"  # harmless elsewhere, and rule and stream names stay readable
    r"|(?<=[wW]{3})\."
)


def visible(text: str) -> str:
    """`text` with each control, bidirectional or zero-width character written as `⟨U+202E⟩`.

    Joiners (U+200C, U+200D) stay: Persian, Indic scripts and emoji need them, and they reorder nothing.
    """
    return _HIDDEN.sub(lambda m: f"⟨U+{ord(m[0]):04X}⟩", text)


def finalize(value: Any) -> Any:
    """What jinja2 does to every expression before it escapes it, so that no template can forget."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return visible(value)


def clip(text: str | None, limit: int) -> str:
    """The first `limit` characters on one line; says how long the text was where it was longer."""
    line = " ".join((text or "").split())
    return line if len(line) <= limit else f"{line[:limit].rstrip()}… ({len(line):,} characters)"


def middle(text: str, limit: int) -> str:
    """A uri or path with its middle left out where it is longer than `limit`: both of its ends tell something."""
    if len(text) <= limit:
        return text
    tail = limit // 2
    return f"{text[: limit - tail - 1]}…{text[-tail:]}"


def markdown(text: Any) -> str:
    """Text for a cell of a Markdown table: on one line, and nothing in it is markup, a link or a cell border."""
    line = clip(visible(str(text)), 300)
    return _MARKDOWN.sub(lambda m: f"&#{ord(m[0])};", line)


def number(value: float | int | None) -> str:
    """`12,345`, `0.0713`, `1.2e-07`: four significant digits for a float, all digits for an integer."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and 1e3 <= abs(value) < 1e15):
        return f"{int(value):,}"
    if abs(value) >= 10_000:
        return f"{value:,.0f}"
    return f"{value:.4g}"


def percent(part: float, whole: float) -> str:
    """`part` of `whole` as `8.2 %`; a dash where there is no whole."""
    if not whole:
        return "–"
    share = 100 * part / whole
    return f"{share:.0f} %" if share >= 99.95 or share == 0 else f"{share:.2g} %" if share < 1 else f"{share:.1f} %"


def size(n: int) -> str:
    """Bytes in decimal units: `512 B`, `1.4 MB`."""
    amount = float(n)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000 or unit == "TB":
            break
        amount /= 1000
    return f"{n} B" if unit == "B" else f"{amount:.1f} {unit}"


def seconds(value: float | None) -> str:
    """A duration: `4.2 s`, `3 min 5 s`, `2 h 10 min`."""
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
