"""A tokenizer: an image as 16 x 16 mean colours of 3 + 3 + 2 bits. What a picture is about, in 256 bytes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.tokenizers import custom_card

BITS, CELL = np.array([3, 3, 2]), 8


class MeanColours:
    """uint8 `(N, 128, 128, 3)` to ids `(N, 16, 16)`: red in the highest bits, blue in the lowest."""

    def __init__(self) -> None:
        self.card = custom_card("colours", modality="image", size=128, vocabulary=256, grid=(16, 16), made_of="332")

    def encode(self, items: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.generic]]:
        return [self._encode(frames) for frames in items]

    def decode(self, ids: Sequence[NDArray[np.uint8]], lengths: Sequence[int] | None = None) -> list[NDArray[np.uint8]]:
        colours = [np.stack([one >> 5, (one >> 2) & 7, one & 3], axis=-1) / (2**BITS - 1) for one in ids]
        return [np.rint(255 * one).astype(np.uint8).repeat(CELL, 1).repeat(CELL, 2) for one in colours]

    def _encode(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        means = frames.reshape(-1, 16, CELL, 16, CELL, 3).mean(axis=(2, 4))
        red, green, blue = np.moveaxis(np.rint(means / 255 * (2**BITS - 1)).astype(np.uint8), -1, 0)
        return red << 5 | green << 2 | blue
