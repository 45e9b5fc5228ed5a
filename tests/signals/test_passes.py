"""How items share a batch, and what becomes of those that do not fit a GPU's memory: by a network that counts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from curate.models.batches import DTYPES, exact, finite, in_fp32
from curate.models.passes import (
    DeviceMemoryError,
    NotFiniteError,
    Passes,
    finite_rows,
    fitting,
    is_device_full,
)
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn

GPU = RunsOn("cuda", "float32", 4)


class Net:
    """The sum of each item, and the number of items of each pass; it holds at most `most` items."""

    def __init__(self, most: int = 1 << 20) -> None:
        self.most = most
        self.passes: list[int] = []

    def __call__(self, items: list[NDArray[Any]]) -> list[float]:
        self.passes.append(len(items))
        if len(items) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return [float(row.sum()) for row in np.stack(items)]


def items(*values: int, side: int = 2) -> list[NDArray[Any]]:
    return [np.full(side, value, np.float32) for value in values]


def test_on_a_gpu_all_batches_are_of_one_size_and_results_are_in_order() -> None:
    net = Net()
    assert Passes("net", GPU)(items(*range(10)), net) == [2.0 * i for i in range(10)]
    assert net.passes == [4, 4, 4]


def test_on_a_cpu_items_pass_one_by_one_whatever_the_batch_is() -> None:
    net = Net()
    assert Passes("net", RunsOn("cpu", "float32", 4))(items(1, 2, 3), net) == [2.0, 4.0, 6.0]
    assert net.passes == [1, 1, 1]


def test_items_of_different_shapes_share_no_batch() -> None:
    net, mixed = Net(), [*items(1, 2), *items(3, side=5), *items(4, 5, 6)]
    assert Passes("net", GPU)(mixed, net) == [2.0, 4.0, 15.0, 8.0, 10.0, 12.0]
    assert net.passes == [4, 4, 4]  # five of one shape, one of another
    snug = Net()
    Passes("net", GPU, snug=True)(mixed, snug)
    assert snug.passes == [4, 1, 1]


def test_a_batch_that_does_not_fit_is_halved_and_that_is_remembered(caplog: pytest.LogCaptureFixture) -> None:
    net, passes = Net(most=1), Passes("net", GPU)
    with caplog.at_level(logging.WARNING):
        assert passes(items(*range(6)), net) == [2.0 * i for i in range(6)]
    assert net.passes == [4, 2, *[1] * 6]
    assert passes.halved == 2
    assert "net: a batch of 2 does not fit the GPU's memory and is halved, as were 1 before" in caplog.text
    net.passes.clear()
    assert passes(items(*range(3)), net) == [0.0, 2.0, 4.0]
    assert net.passes == [1] * 3  # of this shape; another is tried whole
    passes(items(1, side=3), net)
    assert net.passes == [1] * 3 + [4, 2, 1]


def test_what_a_batch_is_cut_into_is_the_same_whether_it_was_tried_whole_or_not() -> None:
    """So a partition that is done again in a new process has the same bytes."""
    fresh, known, seen = Passes("net", GPU), Passes("net", GPU), Net(most=2)
    known(items(1), Net(most=2))
    for passes in (fresh, known):
        passes(items(1, 2, 3), seen)
    assert seen.passes == [4, 2, 2, 2, 2]


def test_one_item_that_does_not_fit_alone_fails_alone_and_says_the_way_out() -> None:
    def net(some: list[NDArray[Any]]) -> list[float]:
        if any(one[0] == 3 for one in some):
            raise RuntimeError("CUDA failed with error out of memory")
        return [float(one.sum()) for one in some]

    passes = Passes("net", GPU)
    found = passes(items(1, 2, 3, 4), net)
    assert found[:2] + found[3:] == [2.0, 4.0, 8.0]
    assert isinstance(found[2], DeviceMemoryError)
    assert found[2].attempts == 3
    assert "device: cpu" in str(found[2])


def test_an_item_that_the_network_fails_on_takes_no_other_along() -> None:
    net = Net()

    def odd(some: list[NDArray[Any]]) -> list[float]:
        if any(one[0] == 3 for one in some):
            raise ValueError("three")
        return net(some)

    found = Passes("net", GPU)(items(1, 2, 3, 4, 5), odd)
    assert [one for i, one in enumerate(found) if i != 2] == [2.0, 4.0, 8.0, 10.0]
    assert str(found[2]) == "three"
    assert set(net.passes) == {4}, "those that are tried again keep the shape of their batch"


def test_what_ends_a_run_is_no_failure_of_an_item() -> None:
    def net(some: list[NDArray[Any]]) -> list[float]:
        raise CurateError("nobody will have a result")

    with pytest.raises(CurateError, match="nobody"):
        Passes("net", GPU)(items(1, 2), net)


@pytest.mark.parametrize(
    "said",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError("CUDA failed with error out of memory"),  # CTranslate2
        lambda: RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"),  # ONNX
        lambda: RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
def test_each_library_says_in_its_own_words_that_memory_ended(said: Callable[[], Exception]) -> None:
    assert is_device_full(said())
    assert not is_device_full(RuntimeError("expected a tensor of 4 dimensions"))
    with (
        pytest.raises(CurateError, match="clip does not fit the memory of the GPU in float32") as found,
        fitting("clip", GPU),
    ):
        raise said()
    assert "smaller `dtype`" in found.value.hint


def test_a_gpu_that_is_not_there_is_one_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(CurateError, match="clip cannot be loaded onto the GPU"), fitting("clip", GPU):
        torch.nn.Linear(2, 2).to("cuda")


def test_what_is_not_finite_names_the_numbers_it_was_computed_in() -> None:
    rows = np.array([[1, 2], [np.nan, 0], [np.inf, 1]], np.float32)
    fine, *bad = finite_rows(rows, "float16")
    assert np.array_equal(np.asarray(fine), rows[0])
    assert [type(one) for one in bad] == [NotFiniteError] * 2
    assert str(bad[0]) == (
        "the network gave NaN or infinity in float16; it may give numbers with `dtype: float32` under `compute`"
    )
    with exact(torch.device("cpu"), "bfloat16"), pytest.raises(NotFiniteError, match="in bfloat16"):
        finite(torch.tensor([np.inf]))
    with pytest.raises(NotFiniteError, match=r"infinity in float32$"):
        finite(torch.tensor([np.nan]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_networks_compute_in_the_numbers_that_are_asked_for_and_quantisers_in_fp32(dtype: str) -> None:
    x = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16), exact(torch.device("cpu"), dtype):
        assert (x @ x).dtype == DTYPES[dtype]
        with in_fp32(x):
            assert torch.equal(x @ x, x.clone() @ x)
            assert (x @ x).dtype == torch.float32
