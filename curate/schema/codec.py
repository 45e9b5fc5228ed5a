"""Codec card: everything needed to read a token stream years later, and what its round trip costs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Modality = Literal["image", "audio", "text"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quality(_Strict):
    """A measured round trip. `media` names what was measured and that it was not trained on."""

    media: str
    items: int = Field(gt=0)
    psnr_db: float | None = Field(None, description="mean PSNR over pictures, peak 255, RGB")
    ssim: float | None = Field(None, ge=-1, le=1, description="mean SSIM over pictures")
    si_sdr_db: float | None = Field(None, description="mean SI-SDR over sounds (Le Roux et al. 2019)")
    codebook_usage: float | None = Field(None, ge=0, le=1, description="share of the vocabulary that occurs")
    lossless: bool | None = None


class CodecCard(_Strict):
    """What a tokenizer is. One lies beside its weights in `tokenizers/NAME/card.json` and in each build's manifest.

    Attributes:
        name: folder name in the zoo.
        stream: default stream name, e.g. `tok_rgb@256`.
        quantiser: `fsq`, `rvq`, `bpe`.
        levels: FSQ levels per latent channel, or codebook size per RVQ level; empty for text.
        index_order: how an id is made from digits, in words (law 8).
        vocabulary: ids are 0 <= id < vocabulary (per level for RVQ).
        grid: ids per picture or frame as (h, w); None otherwise.
        rate_hz: token frames per second of audio; None otherwise.
        ids_per_frame: levels of RVQ stored per token frame.
        sample_rate: Hz that audio must have; input_size: height and width in pixels that pictures must have.
        input: the input contract: what is accepted and how it is converted.
        weights_digest: BLAKE3 of the weights file.
        batch_invariance: share of ids that differ between batch 1 and batch 16, measured.
    """

    name: str
    version: int = 1
    modality: Modality
    stream: str
    quantiser: Literal["fsq", "rvq", "bpe"]
    levels: list[int] = []
    index_order: str
    vocabulary: int = Field(gt=0)
    dtype: Literal["uint8", "uint16", "uint32"]
    grid: tuple[int, int] | None = None
    rate_hz: float | None = None
    ids_per_frame: int = 1
    sample_rate: int | None = None
    input_size: int | None = None
    input: str
    padding: str = ""
    special_tokens: dict[str, int] = {}
    weights_digest: str
    parameters: int = 0
    trained_on: str
    licence: str
    batch_invariance: float | None = None
    quality: list[Quality] = []

    @model_validator(mode="after")
    def _smallest_dtype(self) -> CodecCard:
        want = smallest_unsigned(self.vocabulary)
        if self.dtype != want:
            raise ValueError(
                f"dtype {self.dtype} for a vocabulary of {self.vocabulary}: the smallest that holds it is {want}"
            )
        return self

    @property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        return np.dtype(self.dtype)


def smallest_unsigned(vocabulary: int) -> Literal["uint8", "uint16", "uint32"]:
    """The smallest unsigned type that holds ids 0 .. vocabulary - 1 (law 8)."""
    if vocabulary <= 1 << 8:
        return "uint8"
    if vocabulary <= 1 << 16:
        return "uint16"
    if vocabulary <= 1 << 32:
        return "uint32"
    raise ValueError(f"a vocabulary of {vocabulary} does not fit 32 bits")
