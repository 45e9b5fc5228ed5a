"""Quantised features of a frozen encoder: dense ones by one codebook, a global one by a product of codebooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from curate.models.encoders import Encoder, encoder_of
from curate.schema.codec import CodecCard, Quality, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.features import FeatureTokenizer, encoder_fields, stated_encoder
from curate.tokenizers.folders import WEIGHTS, header, read_folder, words_of, write_folder
from curate.tokenizers.quantisers.difference import difference_rate
from curate.tokenizers.quantisers.pq import codebooks_from_bytes, fit_product, product_ids, product_vectors
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
    def load(cls, folder: Path, device: str = "cpu") -> QuantisedFeatures:
        """Reads `card.json` and `weights.safetensors` (codebooks, and in its header which encoder).

        Raises:
            CurateError: a file is missing or not the card's, or the encoder's weights are not those it was fitted on.
        """
        return cls.of_bytes(*read_folder(folder), device)

    @classmethod
    def of_bytes(cls, card: CodecCard, raw: bytes, device: str = "cpu") -> QuantisedFeatures:
        """What `load` makes of the bytes of `weights.safetensors`."""
        codebooks = codebooks_from_bytes(raw)
        try:
            words = words_of(raw)
        except (KeyError, ValueError) as error:
            raise CurateError(f"the weights of {card.name} do not say their encoder: {error}") from error
        return cls(card, stated_encoder(words, card.name, device), codebooks)

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
        for item in items:
            parts = unit(self._features(item))
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


def train_features(
    encoder: Mapping[str, Any],
    images: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    folder: Path,
    stream: str,
    codes: int,
    groups: int = 1,
    seed: int = 0,
    trained_on: str = "",
    held_out_name: str = "",
    licence: str = "that of the encoder, as its publisher states",
    device: str = "cpu",
) -> CodecCard:
    """Fits codebooks on features of `images`, measures them on `held_out`, and writes a tokenizer's folder.

    Args:
        encoder: what `encoder_of` takes.
        images, held_out: uint8 `(N, size, size, 3)`; no image is to be in both.
        stream: e.g. `tok_dinov2@224`.
        codes: size of each codebook. groups: 1 for dense features; 4M-21 has 16 for a global one.
        trained_on, held_out_name: what the images are, for the card.

    Raises:
        CurateError: no held-out images, too few features for the codes, or more than one group for dense ones.
    """
    if not len(held_out):
        raise CurateError("no images are kept out", "quality is only worth something on images not trained on")
    net = encoder_of(encoder, device)
    dense = len(net.grid) == 2
    if dense and groups != 1:
        raise CurateError(f"{groups} groups for dense features", "dense features take one id a position: groups 1")
    features = unit(net(images)).reshape(-1, net.width)
    codebooks = fit_product(features, groups, codes, seed)
    if groups == 1:
        # Codes of full length are chosen by angle alone; means of many directions are short, and would take too much.
        codebooks = unit(codebooks)
    words = {"encoder": dict(encoder), "encoder_digest": net.digest}
    raw = save({"codebooks": codebooks}, metadata=header(words))
    each = "cells in row-major order" if dense else "group 0 holds the feature's first values"
    own = {
        "name": folder.name,
        "architecture": "features",
        "stream": stream,
        "quantiser": "vq" if groups == 1 else "pq",
        "levels": [codes] * groups,
        "index_order": f"id = index of the nearest code by squared distance, ties to the lowest; {each}",
        "vocabulary": codes,
        "dtype": smallest_unsigned(codes),
        "grid": net.grid if dense else (groups,),
        "weights_digest": digest(raw),
        "parameters": net.parameters + codebooks.size,
        "trained_on": f"codebooks: {trained_on or f'{len(images)} images'}; encoder: see {net.name}",
        "licence": licence,
    }
    card = CodecCard.model_validate(encoder_fields(net, "is brought to unit length") | own)
    tokenizer = QuantisedFeatures(card, net, codebooks)
    ids = tokenizer.encode(list(held_out))
    truth, back = unit(net(held_out)), np.stack(tokenizer.decode(ids))
    quality = Quality(
        media=f"not trained on: {held_out_name or f'{len(held_out)} images'}",
        items=len(held_out),
        cosine=round(float((truth * unit(back)).sum(-1).mean()), 4),
        ids_per_item=ids[0].size,
        codebook_usage=len(np.unique(np.stack(ids))) / codes,
    )
    sixteen = np.stack([held_out[i % len(held_out)] for i in range(16)])
    alone = np.stack([tokenizer.encode([p])[0] for p in sixteen])
    differing = difference_rate(tokenizer.encode([sixteen])[0], alone)
    card = CodecCard.model_validate(card.model_dump() | {"quality": [quality], "batch_invariance": differing})
    write_folder(folder, card, {WEIGHTS: raw})
    return card
