"""Links of the pages that lead out of `docs/`, to code: in the site they are plain text, the code is not there."""

from __future__ import annotations

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """`[x](../curate/x.py)` becomes `x`."""
    return re.sub(r"\[([^\]]+)\]\(\.\./[^)]+\)", r"\1", markdown)
