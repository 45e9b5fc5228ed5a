"""What a process does once, however much it is given: starting helpers, loading models. Counted in seconds, so that
what grows with the data can be told from it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_seconds = 0.0
_depth = 0


@contextmanager
def once() -> Iterator[None]:
    """Count the block; one inside another counts once."""
    global _seconds, _depth
    begun = time.monotonic()
    _depth += 1
    try:
        yield
    finally:
        _depth -= 1
        if not _depth:
            _seconds += time.monotonic() - begun


def seconds() -> float:
    """Of this process up to now."""
    return _seconds
