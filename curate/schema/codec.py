"""Codec card: everything needed to read a token stream years later, and what its round trip costs."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

Modality = Literal["image", "video", "audio", "text", "array"]
Quantiser = Literal["fsq", "lfq", "vq", "rvq", "pq", "bpe", "wordpiece", "text", "none"]
Dtype = Literal["uint8", "uint16", "uint32", "float16"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Quality(_Strict):
    """A measured round trip."""

    media: str = Field(description="what was measured, and that it was not trained on")
    items: int = Field(gt=0, description="number of images, clips, recordings or texts measured")
    psnr_db: float | None = Field(None, description="mean PSNR over images or clips, peak 255, RGB")
    ssim: float | None = Field(None, ge=-1, le=1, description="mean SSIM over images or frames")
    temporal_psnr_db: float | None = Field(
        None, description="mean PSNR over clips of the differences of successive frames, peak 255, RGB"
    )
    si_sdr_db: float | None = Field(None, description="mean SI-SDR over recordings (Le Roux et al. 2019)")
    pesq: float | None = Field(None, description="mean wide-band PESQ (ITU-T P.862.2) over speech, 1 to 4.64")
    visqol: float | None = Field(None, description="mean ViSQOL v3 over recordings, 1 to 5")
    cosine: float | None = Field(None, ge=-1, le=1, description="mean cosine of features and their reconstruction")
    iou: float | None = Field(None, ge=0, le=1, description="mean over masks of intersection by union")
    ids_per_item: float | None = Field(None, ge=0, description="mean number of ids of one item")
    codebook_usage: float | None = Field(None, ge=0, le=1, description="share of the vocabulary that occurs")
    lossless: bool | None = Field(None, description="True if every item came back exactly")


class Preprocessing(_Strict):
    """How media become what the encoder takes, exactly."""

    resize: Literal["short_side", "long_side", "exact", "none"] = Field(
        "none",
        description="`short_side` to the size and then `crop`; `long_side`: the whole image, its long side reduced to "
        "the size, never enlarged, the shape kept; `exact`: both sides, the shape is not kept; `none`",
    )
    resample: Literal["area", "lanczos", "bicubic", "bilinear", "nearest"] | None = Field(
        None,
        description="filter of the reduction: `area` (mean of the pixels covered), the others as Pillow defines them, "
        "antialiased",
    )
    crop: Literal["centre"] | None = Field(None, description="which square is kept after `short_side`")
    mean: list[float] = Field(
        [],
        description="per channel, on values in [0, 1], of (value - mean) / std; for audio and arrays on the values as "
        "they are",
    )
    std: list[Annotated[float, Field(gt=0)]] = Field([], description="per channel, as `mean`")


class CodecCard(_Strict):
    """What a tokenizer is. One lies beside its weights in `tokenizers/NAME/card.json` and in each build's manifest."""

    name: str = Field(description="folder name in the zoo")
    version: int = Field(1, description="of the card's format")
    architecture: str = Field(
        "", description="which class reads the weights: a name of the registry of codecs, or `package.module:Class`"
    )
    modality: Modality = Field(description="what is encoded; `array` is anything that lies in `.npy`")
    stream: str = Field(description="default stream name, e.g. `tok_rgb@256`")
    quantiser: Quantiser = Field(
        description="`fsq`, `lfq`, `vq`, `rvq`, `pq` (product quantisation, Memcodes), `bpe`, `wordpiece`, `text` (a "
        "serialisation in words), or `none`: a continuous stream of float16 features, `vocabulary` 0"
    )
    levels: list[int] = Field(
        [],
        description="FSQ levels per latent channel, or codebook size per RVQ or PQ level; 2 per bit for LFQ; empty for "
        "text",
    )
    bit_order: Literal["lsb", "msb"] | None = Field(
        None,
        description="of LFQ: `lsb` if channel 0 is the least significant bit (MAGVIT-v2, Open-MAGVIT2), `msb` if the "
        "most (lucidrains); null for others",
    )
    index_order: str = Field(description="how an id is made from digits, in words")
    vocabulary: int = Field(ge=0, description="ids are 0 <= id < vocabulary (per level for RVQ and PQ)")
    dtype: Dtype = Field(
        description="of the stored values: the smallest unsigned that holds the vocabulary; float16 for a continuous "
        "stream"
    )
    grid: Annotated[tuple[int, ...], Field(min_length=1, max_length=3)] | None = Field(
        None,
        description="ids of one step: (h, w) for an image, a frame or a latent frame, (n,) where ids have no place, "
        "(h, w, k) for the k nearest codes of each place; null otherwise",
    )
    features: int = Field(0, ge=0, description="length of one position's vector in a continuous stream; 0 for ids")
    temporal_stride: int | None = Field(
        None,
        ge=1,
        description="of video: frames of each latent frame after the first, which is of one frame: 1 + stride * k "
        "frames give 1 + k steps",
    )
    fps: float | None = Field(None, gt=0, description="of video: frames per second that it was made for; null: any")
    rate_hz: float | None = Field(None, description="token frames per second of audio; null otherwise")
    ids_per_frame: int = Field(1, description="levels of RVQ stored per token frame")
    sample_rate: int | None = Field(None, description="that audio must have, Hz")
    input_size: int | None = Field(
        None,
        description="height and width that images must have, pixels; their most where `preprocessing` reduces the "
        "`long_side`",
    )
    channels: int = Field(0, ge=0, description="of the input: 3 for images, 1 for mono, N for a raster")
    needs: list[str] = Field(
        [],
        description="field of a signal whose value `encode` is given, a label, in place of media or the caption; at "
        "most one",
    )
    input: str = Field(description="the input contract: what is accepted and how it is converted")
    preprocessing: Preprocessing | None = Field(None, description="the input contract for machines")
    chunking: str = Field("", description="in what parts long media are encoded, and if ids depend on it")
    padding: str = Field("", description="what is put after or around the media")
    valid_length: str = Field("", description="how the true length is found again")
    special_tokens: dict[str, int] = Field({}, description="ids that stand for no media, by name")
    weights_digest: str = Field(description="BLAKE3 of the weights file")
    code_version: str = Field("", description="versions of the code that the figures were measured with")
    parameters: int = Field(0, description="numbers that the network has")
    trained_on: str = Field(description="what data the weights were fitted to")
    licence: str = Field(description="of the weights")
    batch_invariance: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of ids that differ between batch 1 and batch 16, measured; 0 of functions of whole numbers "
        "or text, which take their items one at a time",
    )
    bf16_difference: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of ids that differ when the encoder computes in bfloat16 (the quantiser never does), "
        "measured",
    )
    quality: list[Quality] = Field([], description="measured round trips")

    @model_validator(mode="after")
    def _consistent(self) -> CodecCard:
        continuous = self.quantiser == "none"
        if continuous != (self.vocabulary == 0) or continuous != (self.features > 0):
            raise ValueError("a continuous stream (quantiser none) has features and vocabulary 0; ids have neither")
        want = "float16" if continuous else smallest_unsigned(self.vocabulary)
        if self.dtype != want:
            raise ValueError(
                f"dtype {self.dtype} for a vocabulary of {self.vocabulary}: the smallest that holds it is {want}"
            )
        if (self.quantiser == "lfq") != (self.bit_order is not None):
            raise ValueError("bit_order is to be said for LFQ, and for LFQ only")
        if (self.modality == "video") != (self.temporal_stride is not None):
            raise ValueError("temporal_stride is to be said for video, and for video only")
        return self

    @property
    def n_codebooks(self) -> int:
        """Number of codebooks whose ids take turns: levels of RVQ, groups of product quantisation; else 1."""
        return {"rvq": self.ids_per_frame, "pq": len(self.levels)}.get(self.quantiser, 1)

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
