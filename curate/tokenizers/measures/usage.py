"""How much of a codebook occurs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class CodebookUsage:
    """The share of all ids, in [0, 1], that occur in what was added.

    Args:
        vocabulary: ids of one codebook.
        books: codebooks whose ids take turns in the last axis.
    """

    def __init__(self, vocabulary: int, books: int = 1) -> None:
        self._vocabulary = vocabulary
        self._seen: list[set[int]] = [set() for _ in range(books)]

    def add(self, ids: NDArray[np.generic]) -> None:
        flat = ids.reshape(-1)
        for book, seen in enumerate(self._seen):
            seen.update(np.unique(flat[book :: len(self._seen)]).tolist())

    @property
    def share(self) -> float:
        return sum(map(len, self._seen)) / (len(self._seen) * self._vocabulary)
