"""Names come from content, and from nothing else."""

from __future__ import annotations

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from curate.schema import ids


def test_content_id_is_the_first_half_of_blake3() -> None:
    # the empty input's digest is the first test vector of the BLAKE3 specification
    assert ids.digest(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
    assert ids.content_id(b"") == "af1349b9f5f9a1a6a0404dea36dcc949"


def test_an_image_is_its_content_and_a_clip_its_span_too() -> None:
    content = ids.content_id(b"video")
    assert ids.sample_id(content) == content
    clips = {
        ids.sample_id(content, 0, 1_000_000),
        ids.sample_id(content, 0, 1_000_001),
        ids.sample_id(content, 1, 1_000_000),
    }
    assert len(clips) == 3
    assert content not in clips


def test_a_uri_listed_twice_makes_two_records() -> None:
    assert ids.record_id("web", "a.jpg") != ids.record_id("web", "a.jpg", 1)
    assert ids.record_id("web", "a.jpg") != ids.record_id("folder", "a.jpg")


def test_a_uri_in_two_units_makes_two_records() -> None:
    made = {ids.record_id("web", "a.jpg", ordinal, unit) for unit in ("", "t#0", "t#1") for ordinal in (0, 1)}
    assert len(made) == 6


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none(), max_size=5))
def test_key_does_not_depend_on_the_order_of_keys(value: dict[str, object]) -> None:
    assert ids.key_of(value) == ids.key_of(dict(reversed(value.items())))


@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_lists_of_rows_never_collide_by_joining(a: list[str], b: list[str]) -> None:
    assert (ids.digest_of_rows(a) == ids.digest_of_rows(b)) == (a == b)


@given(st.integers(0, 1 << 32), st.text(max_size=20))
def test_unit_interval_is_in_the_unit_interval(seed: int, key: str) -> None:
    assert 0 <= ids.unit_interval(seed, key) < 1


def test_unit_interval_is_uniform() -> None:
    drawn = [ids.unit_interval(0, blake3(str(i).encode()).hexdigest()) for i in range(4000)]
    for edge in (0.1, 0.5, 0.9):
        # five standard deviations of a binomial of 4000
        assert abs(sum(d < edge for d in drawn) / 4000 - edge) < 5 * (edge * (1 - edge) / 4000) ** 0.5
