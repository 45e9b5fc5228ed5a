"""Memcodes: the ids and values that the specification gives, by hand, by property, and against the torch module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from curate.tokenizers.codecs.fourm_memcodes import Memcodes
from curate.tokenizers.quantisers.memcodes import memcodes_ids, memcodes_vectors


def module(codes: NDArray[np.float32], to_k: NDArray[np.float32], to_v: NDArray[np.float32]) -> Memcodes:
    made = Memcodes(*codes.shape)
    made.load_state_dict(
        {name: torch.from_numpy(value) for name, value in (("codes", codes), ("to_k.weight", to_k))}
        | {"to_v.weight": torch.from_numpy(to_v)}
    )
    return made.requires_grad_(False)


def test_a_small_case_by_hand() -> None:
    codes = np.array([[[1, 0], [0, 1], [1, 1]], [[1, 0], [0, 1], [-1, -1]]], np.float32)
    swap, turn = np.array([[0, 1], [1, 0]], np.float32), np.array([[0, 1], [-1, 0]], np.float32)
    # A row times its matrix: head 0 has the keys (0, 1), (1, 0), (1, 1), head 1 (0, 1), (-1, 0), (1, -1).
    to_k = np.stack([swap, turn])
    z = np.array([[3, -1, 1, -2], [1, 0, -1, 5], [0, 0, 0, 0]], np.float32)
    ids = memcodes_ids(z, codes, to_k)
    # (1, 0) meets the second key and the third equally: the lower one.
    assert ids.tolist() == [[1, 2], [1, 0], [0, 0]]
    assert ids.dtype == np.uint8
    assert memcodes_vectors(ids[:1], codes, np.stack([turn, swap])).tolist() == [[-1, 0, -1, -1]]


@st.composite
def exact_cases(draw: st.DrawFn) -> tuple[NDArray[np.float32], ...]:
    """Small whole numbers, and widths whose root is a power of two: every sum is exact, so ties are true ones."""
    heads, count, width = draw(st.integers(1, 4)), draw(st.integers(1, 40)), draw(st.sampled_from([1, 4, 16]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    spread = draw(st.integers(1, 9))

    def whole(*shape: int) -> NDArray[np.float32]:
        return rng.integers(-spread, spread, shape, endpoint=True).astype(np.float32)

    z = whole(draw(st.integers(1, 6)), heads * width)
    return z, whole(heads, count, width), whole(heads, width, width), whole(heads, width, width)


@settings(deadline=None)
@given(exact_cases())
def test_the_torch_module_gives_the_ids_and_values_of_the_specification(case: tuple[NDArray[np.float32], ...]) -> None:
    z, codes, to_k, to_v = case
    made, ids = module(codes, to_k, to_v), memcodes_ids(z, codes, to_k)
    np.testing.assert_array_equal(made.ids(torch.from_numpy(z)).numpy(), ids)
    vectors = made.vectors(torch.from_numpy(ids.astype(np.int64))).numpy()
    np.testing.assert_array_equal(vectors, memcodes_vectors(ids, codes, to_v))


def test_so_it_does_for_values_that_are_not_whole() -> None:
    """At the sizes of 4M's pose tokenizer, with a width whose root is not a power of two."""
    rng = np.random.default_rng(0)
    codes, to_k, to_v = (rng.standard_normal(s, np.float32) for s in ((8, 1024, 128), (8, 128, 128), (8, 128, 128)))
    z = rng.standard_normal((20, 1024), np.float32)
    ids = memcodes_ids(z, codes, to_k)
    assert ids.dtype == np.uint16
    made = module(codes, to_k, to_v)
    np.testing.assert_array_equal(made.ids(torch.from_numpy(z)).numpy(), ids)
    vectors = made.vectors(torch.from_numpy(ids.astype(np.int64))).numpy()
    np.testing.assert_allclose(vectors, memcodes_vectors(ids, codes, to_v), atol=1e-4)


@settings(deadline=None)
@given(exact_cases())
def test_no_other_key_is_nearer_in_direction_and_heads_are_apart(case: tuple[NDArray[np.float32], ...]) -> None:
    z, codes, to_k, _ = case
    heads, count, width = codes.shape
    ids = memcodes_ids(z, codes, to_k)
    for row, found in zip(z.astype(np.float64), ids, strict=True):
        for head in range(heads):
            part = row[head * width : (head + 1) * width]
            products = [float(part @ (codes[head, code].astype(np.float64) @ to_k[head])) for code in range(count)]
            assert products[found[head]] == max(products)
            assert products.index(max(products)) == found[head]
    # Other values in one part leave the other heads' ids as they are.
    other = z.copy()
    other[:, :width] = 0
    np.testing.assert_array_equal(memcodes_ids(other, codes, to_k)[:, 1:], ids[:, 1:])


def test_what_does_not_fit_is_refused() -> None:
    codes, matrix = np.ones((2, 3, 4), np.float32), np.ones((2, 4, 4), np.float32)
    z = np.ones((1, 8), np.float32)
    for wrong in (z[:, :7], z.astype(np.float64), np.full((1, 8), np.nan, np.float32)):
        with pytest.raises(ValueError, match="expected finite float32"):
            memcodes_ids(wrong, codes, matrix)
    with pytest.raises(ValueError, match="heads, width, width"):
        memcodes_ids(z, codes, matrix[:1])
    with pytest.raises(ValueError, match=r"expected ids \(..., 2\)"):
        memcodes_vectors(np.zeros((1, 3), np.uint8), codes, matrix)
    with pytest.raises(ValueError, match="0 <= id < 3, got 3"):
        memcodes_vectors(np.full((1, 2), 3, np.uint8), codes, matrix)
