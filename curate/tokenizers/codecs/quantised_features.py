"""Quantised features of a frozen encoder: dense ones by one codebook, a global one by a product of codebooks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.encoders import Encoder
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.features import FeatureTokenizer, stated_encoder
from curate.tokenizers.folders import read_folder, words_of
from curate.tokenizers.quantisers.pq import codebooks_from_bytes, product_ids, product_vectors
from curate.tokenizers.quantisers.topk import topk

_SHORTEST = 1e-12


class QuantisedFeatures(FeatureTokenizer):
    """Features as ids, and ids as features.

    A feature is brought to unit length, then quantised by nearest code: its direction is kept, its length is not. Dense
    features of one image give ids `(h, w)`, a global one `(groups,)`; a stack of N puts N before it.
    """

    def __init__(self, card: CodecCard, encoder: Encoder, codebooks: NDArray[np.float32]) -> None:
        groups, codes, part = codebooks.shape
        dense = len(encoder.grid) == 2
        grid = encoder.grid if dense else (groups,)
        if groups * part != encoder.width or card.vocabulary != codes or card.grid != grid or (dense and groups > 1):
            raise CurateError(f"the card of {card.name}, its encoder and its codebooks do not belong together")
        super().__init__(card, encoder)
        self.codebooks, self._dense, self._grid = codebooks, dense, grid

    @classmethod
    def load(
        cls, folder: Path, device: str = "cpu", dtype: str = "float32", batch: int | None = None
    ) -> QuantisedFeatures:
        """Reads `card.json` and `weights.safetensors` (codebooks, and in its header which encoder).

        Raises:
            CurateError: a file is missing or not the card's, or the encoder's weights are not those it was fitted on.
        """
        return cls.of_bytes(*read_folder(folder), device, dtype, batch)

    @classmethod
    def of_bytes(
        cls, card: CodecCard, raw: bytes, device: str = "cpu", dtype: str = "float32", batch: int | None = None
    ) -> QuantisedFeatures:
        """What `load` makes of the bytes of `weights.safetensors`."""
        codebooks = codebooks_from_bytes(raw)
        try:
            words = words_of(raw)
        except (KeyError, ValueError) as error:
            raise CurateError(f"the weights of {card.name} do not say their encoder: {error}") from error
        return cls(card, stated_encoder(words, card.name, device, dtype, batch), codebooks)

    def quantise(self, features: NDArray[np.float32]) -> NDArray[np.generic]:
        """The id of the nearest code of each feature, or of each of its parts."""
        ids = product_ids(unit(features), self.codebooks)
        kept: NDArray[np.generic] = (ids[..., 0] if self._dense else ids).astype(self.card.numpy_dtype)
        return kept

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to float32 features of about unit length: `(h, w, d)` or `(d,)`; a stack puts N before it."""
        for one in ids:
            if one.dtype.kind not in "ui" or one.shape[-len(self._grid) :] != self._grid:
                raise ValueError(f"{self.card.name} expects ids {self._grid}, got {one.dtype} {one.shape}")
            if one.size and not 0 <= int(one.min()) <= int(one.max()) < self.card.vocabulary:
                raise ValueError(f"{self.card.name} has ids 0 <= id < {self.card.vocabulary}")
        return [product_vectors(one[..., None] if self._dense else one, self.codebooks) for one in ids]

    def encode_topk(
        self, items: Sequence[Any], k: int, temperature: float = 1.0
    ) -> list[tuple[NDArray[Any], NDArray[np.float16]]]:
        """The k nearest codes of each position, and softmax(-squared distance / temperature) over all codes.

        Returns:
            per item ids and float16 probabilities `(*ids.shape, k)`; the first of the k is what `encode` gives.
        """
        out = []
        for item, features in zip(items, self._features(items), strict=True):
            parts = unit(features)
            parts = parts.reshape(*parts.shape[:-1], len(self.codebooks), -1)
            near = np.stack([_squared(parts[..., g, :], book) for g, book in enumerate(self.codebooks)], axis=-2)
            ids, odds = topk(-near, k, temperature)
            if self._dense:
                ids, odds = ids[..., 0, :], odds[..., 0, :]
            out.append((ids[0], odds[0]) if item.ndim == 3 else (ids, odds))
        return out


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features `(..., d)` over their lengths; ValueError where one is not finite. A zero vector stays zero."""
    if not np.isfinite(features).all():
        raise ValueError("the encoder gave features that are not finite")
    return np.asarray(features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), _SHORTEST), np.float32)


def _squared(x: NDArray[np.float32], book: NDArray[np.float32]) -> NDArray[np.float64]:
    wide, codes = x.astype(np.float64), book.astype(np.float64)
    distance: NDArray[np.float64] = (wide**2).sum(-1, keepdims=True) - 2 * wide @ codes.T + (codes**2).sum(-1)
    return distance
