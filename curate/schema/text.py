"""Text from outside made safe to print."""

from __future__ import annotations


def escape_controls(text: str) -> str:
    r"""`text` with each character that is not printable as `\uXXXX`: nothing that a terminal would obey is left.

    Line breaks are escaped too, and so are marks of direction and surrogates.
    """
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)
