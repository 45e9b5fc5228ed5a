"""Spans, and the cutting of long ones."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curate.media.clips import Span, cut_spans

span = st.builds(lambda a, n: Span(a, a + n), st.integers(0, 10**11), st.integers(1, 10**10))


def test_a_shot_of_25_seconds_becomes_three_equal_parts() -> None:
    assert cut_spans([Span(0, 25_000_000)], 10) == [
        Span(0, 8_333_333),
        Span(8_333_333, 16_666_666),
        Span(16_666_666, 25_000_000),
    ]


def test_short_ones_and_empty_ones_stay() -> None:
    assert cut_spans([Span(5, 10_000_005), Span(0, 0)], 10) == [Span(5, 10_000_005), Span(0, 0)]


@given(span, st.floats(0.5, 600))
def test_parts_cover_the_span_exactly_and_none_is_too_long(whole: Span, limit: float) -> None:
    parts = cut_spans([whole], limit)
    assert (parts[0].start_us, parts[-1].end_us) == (whole.start_us, whole.end_us)
    assert all(a.end_us == b.start_us for a, b in pairwise(parts))
    lengths = [p.end_us - p.start_us for p in parts]
    assert max(lengths) <= limit * 1_000_000
    assert max(lengths) - min(lengths) <= 1
    assert len(parts) == 1 or (whole.end_us - whole.start_us) / (len(parts) - 1) > int(limit * 1_000_000)


def test_what_is_no_span() -> None:
    with pytest.raises(ValueError, match="0 <= start <= end"):
        Span(5, 4)
    with pytest.raises(ValueError, match="0 <= start <= end"):
        Span(-1, 4)
    with pytest.raises(ValueError, match="max_seconds"):
        cut_spans([], 0)
