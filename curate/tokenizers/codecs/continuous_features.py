"""Continuous streams: features of a frozen encoder as float16, not quantised (VL-GPT, BLIP3-o)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.models.encoders import Encoder, encoder_of
from curate.models.weights import read_config
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.features import FeatureTokenizer, encoder_fields
from curate.tokenizers.folders import read_card, write_folder


class ContinuousFeatures(FeatureTokenizer):
    """Features as float16 `(h, w, d)`, or `(1, d)` for a global one; a stack puts N before it.

    `decode` widens them to float32, exactly.
    """

    def __init__(self, card: CodecCard, encoder: Encoder) -> None:
        if card.features != encoder.width or card.grid != encoder.grid or card.weights_digest != encoder.digest:
            raise CurateError(f"the card of {card.name} is not of {encoder.name} with these weights")
        super().__init__(card, encoder)

    @classmethod
    def load(
        cls, folder: Path, device: str = "cpu", dtype: str = "float32", batch: int | None = None
    ) -> ContinuousFeatures:
        """Reads `card.json` and `encoder.json`, what `encoder_of` takes; the card's digest is the encoder's."""
        return cls(read_card(folder), encoder_of(read_config(folder / "encoder.json"), device, dtype, batch))

    @classmethod
    def make(
        cls,
        encoder: Mapping[str, Any],
        folder: Path,
        stream: str,
        trained_on: str = "as its publisher states",
        licence: str = "as its publisher states",
        device: str = "cpu",
    ) -> CodecCard:
        """Writes such a folder; `stream` is e.g. `emb_clip@224`."""
        net = encoder_of(encoder, device)
        own = {
            "name": folder.name,
            "architecture": "continuous",
            "stream": stream,
            "quantiser": "none",
            "index_order": "rows are cells in row-major order",
            "vocabulary": 0,
            "dtype": "float16",
            "grid": net.grid,
            "features": net.width,
            "valid_length": "all rows are valid",
            "weights_digest": net.digest,
            "parameters": net.parameters,
            "trained_on": trained_on,
            "licence": licence,
        }
        card = CodecCard.model_validate(encoder_fields(net, "as it is") | own)
        said = json.dumps(dict(encoder), indent=2, sort_keys=True) + "\n"
        write_folder(folder, card, {"encoder.json": said.encode()})
        return card

    def quantise(self, features: NDArray[np.float32]) -> NDArray[np.generic]:
        """As float16; ValueError for features that it cannot hold."""
        return to_float16(features.reshape(len(features), *self.encoder.grid, self.encoder.width))

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """The same as float32."""
        return [widen(one, self.card.features) for one in ids]


def to_float16(features: NDArray[np.float32]) -> NDArray[np.float16]:
    """Rounded to float16; ValueError for NaN, infinity, and what rounds past 65504, its largest value."""
    with np.errstate(over="ignore"):
        narrow = features.astype(np.float16)
    if not np.isfinite(narrow).all():
        bad = int((~np.isfinite(narrow)).sum())
        raise ValueError(
            f"{bad} of {features.size} values of the feature are not finite in float16, beyond 65504 or NaN"
        )
    return narrow


def widen(rows: NDArray[np.generic], width: int) -> NDArray[np.float32]:
    """float16 `(..., width)` as float32; ValueError for another dtype or width."""
    if rows.dtype != np.float16 or rows.ndim < 2 or rows.shape[-1] != width:
        raise ValueError(f"expected float16 (..., {width}), got {rows.dtype} {rows.shape}")
    return rows.astype(np.float32)
