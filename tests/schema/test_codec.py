"""Ids are stored in the smallest unsigned type that holds the vocabulary (law 8)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from curate.schema.codec import CodecCard, smallest_unsigned

CARD = {
    "name": "t",
    "modality": "text",
    "stream": "caption",
    "quantiser": "bpe",
    "index_order": "as listed",
    "vocabulary": 40001,
    "dtype": "uint16",
    "input": "text",
    "weights_digest": "0" * 64,
    "trained_on": "nothing",
    "licence": "none",
}


@given(st.integers(1, 1 << 32))
def test_the_largest_id_fits_and_no_smaller_type_holds_it(vocabulary: int) -> None:
    largest = vocabulary - 1
    dtype = np.dtype(smallest_unsigned(vocabulary))
    assert int(np.array(largest).astype(dtype)) == largest
    if dtype.itemsize > 1:
        smaller = np.dtype(f"uint{dtype.itemsize * 4}")
        assert largest > np.iinfo(smaller).max


def test_int16_is_what_others_wrap() -> None:
    # id 40000 becomes -25536 in the int16 that ml-4m writes
    assert int(np.array(40000).astype(np.int16)) == -25536
    assert CodecCard.model_validate(CARD).numpy_dtype == np.uint16


@pytest.mark.parametrize("dtype", ["uint8", "uint32"])
def test_a_card_with_another_type_is_refused(dtype: str) -> None:
    with pytest.raises(ValidationError, match="smallest that holds it is uint16"):
        CodecCard.model_validate({**CARD, "dtype": dtype})
