"""Ids as 16 bytes."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curate.decide.keys import keys_of, name_of, names_of, twice
from curate.schema.errors import CurateError

IDS = st.lists(st.binary(min_size=16, max_size=16).map(bytes.hex))


@settings(deadline=None)
@given(IDS, IDS)
def test_keys_are_the_bytes_that_ids_stand_for(one, other):
    column = pa.chunked_array([pa.array([*other, *one], pa.string()).slice(len(other)), pa.array(other, pa.string())])
    keys = keys_of(column)
    assert [name_of(k) for k in keys] == [*one, *other]
    assert names_of(keys).to_pylist() == [*one, *other]
    assert [name_of(k) for k in np.sort(keys)] == sorted([*one, *other])


@pytest.mark.parametrize(
    "ids",
    [["A" * 32], ["g" * 32], ["0" * 31, "0" * 33], ["0" * 30], ["0" * 32, None], ["0 " * 16], ["\u00e9" * 16], [""]],
)
def test_what_is_no_id_is_refused(ids):
    with pytest.raises(CurateError, match="32 hex digits"):
        keys_of(pa.array(ids, pa.string()))


@settings(deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, 1 << 64, 1 << 127, (1 << 64) + 1])))
def test_keys_that_are_there_more_than_once(numbers):
    """Also such whose halves have the same bits that differ."""
    keys = np.array([n.to_bytes(16, "big") for n in numbers], "S16")
    want = sorted({n for n in numbers if numbers.count(n) > 1})
    assert [int(name_of(k), 16) for k in twice(keys)] == want
