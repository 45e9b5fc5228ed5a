"""One picture or a stack of them, as an encoder's size wants it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def stack_of(item: Any, name: str, size: int) -> NDArray[np.uint8]:
    """`(H, W, 3)` or `(N, H, W, 3)` as a stack; ValueError for what is not uint8 of H = W = `size`."""
    want = (size, size, 3)
    if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or item.shape[-3:] != want or item.ndim > 4:
        got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
        raise ValueError(f"{name} expects uint8 {want} or (N, {size}, {size}, 3), got {got}")
    stack: NDArray[np.uint8] = item.reshape(-1, *want)
    return stack
