"""Spans on a media's clock, and the cutting of long ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

MICRO = 1_000_000


@dataclass(frozen=True, order=True)
class Span:
    """A half-open stretch of time `[start_us, end_us)` in integer microseconds.

    Time zero of a media is the presentation time of its first video frame, or of its first audio sample where there is
    no video or the audio leads by more than `timeline.TAIL_US`. Images have the empty span [0, 0). Raises ValueError
    unless 0 <= start <= end.

    Attributes:
        missing: True for the rest of a file that breaks off. It is kept in one piece, and fails when it is decoded.
    """

    start_us: int
    end_us: int
    missing: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.start_us <= self.end_us:
            raise ValueError(f"a span needs 0 <= start <= end, got [{self.start_us}, {self.end_us}) us")

    @property
    def seconds(self) -> float:
        return (self.end_us - self.start_us) / MICRO


def cut_spans(spans: Sequence[Span], max_seconds: float) -> list[Span]:
    """Cut spans longer than `max_seconds` into the fewest equal parts that are not; missing ones stay whole.

    Parts differ by at most 1 us and cover each span without gap or overlap; shorter spans come back as they are.
    Raises ValueError when `max_seconds` is below one microsecond.
    """
    longest = int(max_seconds * MICRO)
    if longest < 1:
        raise ValueError(f"max_seconds must be at least 1e-6, got {max_seconds}")
    parts: list[Span] = []
    for span in spans:
        length = span.end_us - span.start_us
        n = 1 if span.missing else max(1, -(-length // longest))
        edges = [span.start_us + length * i // n for i in range(n + 1)]
        parts.extend(Span(a, b, span.missing) for a, b in pairwise(edges))
    return parts
