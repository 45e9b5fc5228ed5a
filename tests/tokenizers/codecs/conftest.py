"""Fixtures of tests of codecs: one thread, for what is compared to the last bit; synthetic images and clips."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from published import SIZE

from curate.tokenizers.grid import probes


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def images() -> list[NDArray[np.uint8]]:
    return [clip[0] for clip in probes(5, SIZE)]


@pytest.fixture(scope="module")
def clips() -> list[NDArray[np.uint8]]:
    return probes(3, SIZE, 9)
