"""What a tokenizer is: media to integer ids and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard


@runtime_checkable
class Tokenizer(Protocol):
    """Media to ids and back. Ids are of the card's dtype and in 0 <= id < card.vocabulary.

    Items by modality:
        image: uint8 `(N, H, W, 3)` sRGB, H = W = the size the card states, to ids `(N, h, w)`. A video is its frames.
        audio: float32 `(samples,)` mono in [-1, 1] at `card.sample_rate`, to ids `(frames, ids_per_frame)`.
        text: `str`, to ids `(n,)` without begin or end marks.
        array: what the card's `input` says, to ids of `card.grid`, or `(n, *card.grid)`; NaN is refused unless `input`
            says what becomes of it.

    `encode` raises ValueError for an item that breaks the input contract. The result for an item does not depend on
    its neighbours in the batch beyond the card's `batch_invariance`.
    """

    card: CodecCard

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]: ...

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Back to media; `lengths` (audio samples) cuts the padding off."""
        ...
