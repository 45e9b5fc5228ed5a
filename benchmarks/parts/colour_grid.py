"""A grid stream that costs next to nothing: 8 x 8 mean colours of a 64 px picture, of 8 levels a channel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard

SIDE, CELLS = 64, 8
_BASES = np.array([1, 8, 64], np.uint16)


class ColourGrid:
    """A `Tokenizer` of pictures; an id is the little-endian number of three digits, red first. In whole numbers, so
    that an id depends on nothing but its cell."""

    card = CodecCard(
        name="colour-grid",
        modality="image",
        stream=f"tok_colours@{SIDE}",
        quantiser="fsq",
        levels=[8, 8, 8],
        index_order="little-endian mixed radix, red first",
        vocabulary=512,
        dtype="uint16",
        grid=(CELLS, CELLS),
        input_size=SIDE,
        channels=3,
        input=f"uint8 sRGB (N, {SIDE}, {SIDE}, 3)",
        weights_digest="none",
        trained_on="nothing",
        licence="Apache-2.0",
        batch_invariance=0.0,
    )

    def encode(self, items: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.generic]]:
        out: list[NDArray[np.generic]] = []
        for item in items:
            if item.dtype != np.uint8 or item.shape[1:] != (SIDE, SIDE, 3):
                raise ValueError(f"expected uint8 (N, {SIDE}, {SIDE}, 3), got {item.dtype} {item.shape}")
            step = SIDE // CELLS
            sums = item.reshape(len(item), CELLS, step, CELLS, step, 3).sum(axis=(2, 4), dtype=np.uint32)
            out.append((sums // (32 * step * step)).astype(np.uint16) @ _BASES)
        return out

    def decode(
        self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None
    ) -> list[NDArray[np.uint8]]:
        out = []
        for item in ids:
            digits = np.stack([item.astype(np.int64) // int(base) % 8 for base in _BASES], axis=-1)
            colour = (digits * 32 + 16).astype(np.uint8)
            out.append(colour.repeat(SIDE // CELLS, axis=1).repeat(SIDE // CELLS, axis=2))
        return out
