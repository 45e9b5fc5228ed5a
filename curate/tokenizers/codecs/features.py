"""What tokenizers of a frozen encoder's features share: images in, `decode` gives features and no image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.encoders import Encoder, encoder_of
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.folders import code_version
from curate.tokenizers.grid import preprocessing
from curate.tokenizers.inputs import IMAGE_INPUT


class FeatureTokenizer(ABC):
    """Images through a frozen encoder (a `Tokenizer`): uint8 sRGB of its size, `(H, W, 3)` or a stack of them."""

    def __init__(self, card: CodecCard, encoder: Encoder) -> None:
        self.card, self.encoder = card, encoder

    @abstractmethod
    def quantise(self, features: NDArray[np.float32]) -> NDArray[np.generic]:
        """Features `(N, h, w, d)` or `(N, d)` to ids of the card's dtype, one row an image."""

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Images or stacks to ids of the card's dtype; ValueError for a wrong item."""
        found = [self.quantise(features) for features in self._features(items)]
        return [ids[0] if item.ndim == 3 else ids for ids, item in zip(found, items, strict=True)]

    def _features(self, items: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Of each image or stack, a stack; ValueError for what is not uint8 of the encoder's size."""
        stacks = [self._stack(item) for item in items]
        if not stacks:
            return []
        ends = np.cumsum([len(stack) for stack in stacks])
        return np.split(self.encoder(np.concatenate(stacks)), ends[:-1])

    def _stack(self, item: Any) -> NDArray[np.uint8]:
        size, want = self.encoder.size, (self.encoder.size, self.encoder.size, 3)
        if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or item.shape[-3:] != want or item.ndim > 4:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise ValueError(f"{self.card.name} expects uint8 {want} or (N, {size}, {size}, 3), got {got}")
        stack: NDArray[np.uint8] = item.reshape(-1, *want)
        return stack


def encoder_fields(encoder: Encoder, then: str) -> dict[str, Any]:
    """Fields of a card that follow from the encoder; `then`: what becomes of its feature, in words."""
    size = encoder.size
    return {
        "modality": "image",
        "input_size": size,
        "channels": 3,
        "input": f"uint8 sRGB ({size}, {size}, 3) or a stack of them, to {encoder.name}; its feature {then}"
        f"{IMAGE_INPUT}",
        "preprocessing": preprocessing(encoder.mean, encoder.std),
        "chunking": "each image alone",
        "padding": "none",
        "valid_length": "all ids are valid",
        "code_version": code_version("torch", "timm", "open_clip_torch"),
    }


def stated_encoder(
    words: Mapping[str, Any], name: str, device: str, dtype: str = "float32", batch: int | None = None
) -> Encoder:
    """The encoder that the header of a weights file names.

    Raises:
        CurateError: it names none, or the encoder's weights are not those that the tokenizer was made with.
    """
    if "encoder" not in words or "encoder_digest" not in words:
        raise CurateError(f"the weights of {name} do not say their encoder")
    encoder, wanted = encoder_of(words["encoder"], device, dtype, batch), words["encoder_digest"]
    if encoder.digest != wanted:
        raise CurateError(
            f"{encoder.name} has other weights than those that {name} was made with",
            f"it was made with BLAKE3 {wanted}, these have {encoder.digest}",
        )
    return encoder
