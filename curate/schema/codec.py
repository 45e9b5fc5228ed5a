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
    """A measured round trip. `media` names what was measured and that it was not trained on."""

    media: str
    items: int = Field(gt=0)
    psnr_db: float | None = Field(None, description="mean PSNR over images or clips, peak 255, RGB")
    ssim: float | None = Field(None, ge=-1, le=1, description="mean SSIM over images or frames")
    temporal_psnr_db: float | None = Field(
        None, description="mean PSNR over clips of the differences of successive frames, peak 255, RGB"
    )
    si_sdr_db: float | None = Field(None, description="mean SI-SDR over audio (Le Roux et al. 2019)")
    pesq: float | None = Field(None, description="mean wide-band PESQ (ITU-T P.862.2) over speech, 1 to 4.64")
    visqol: float | None = Field(None, description="mean ViSQOL v3 over audio, 1 to 5")
    cosine: float | None = Field(None, ge=-1, le=1, description="mean cosine of features and their reconstruction")
    iou: float | None = Field(None, ge=0, le=1, description="mean over masks of intersection by union")
    ids_per_item: float | None = Field(None, ge=0, description="mean count of ids of one item")
    codebook_usage: float | None = Field(None, ge=0, le=1, description="share of the vocabulary that occurs")
    lossless: bool | None = None


class Preprocessing(_Strict):
    """How media become what the encoder takes, exactly.

    Attributes:
        resize: `short_side` to the size and then `crop`; `long_side`: the whole image, its long side reduced to the
            size, never enlarged, the shape kept; `exact`: both sides, the shape is not kept; `none`.
        resample: filter of the reduction: `area` (mean of the pixels covered), the others as Pillow defines them,
            antialiased.
        mean, std: per channel, on values in [0, 1]: (value - mean) / std. For audio and arrays: on the values as they
            are.
    """

    resize: Literal["short_side", "long_side", "exact", "none"] = "none"
    resample: Literal["area", "lanczos", "bicubic", "bilinear", "nearest"] | None = None
    crop: Literal["centre"] | None = None
    mean: list[float] = []
    std: list[Annotated[float, Field(gt=0)]] = []


class CodecCard(_Strict):
    """What a tokenizer is. One lies beside its weights in `tokenizers/NAME/card.json` and in each build's manifest.

    Attributes:
        name: folder name in the zoo.
        architecture: which class reads the weights: a name of `curate.tokenizers.zoo`, or `package.module:Class`.
        stream: default stream name, e.g. `tok_rgb@256`.
        quantiser: `fsq`, `lfq`, `vq`, `rvq`, `pq` (product quantisation, Memcodes), `bpe`, `wordpiece`, `text` (a
            serialisation in words), or `none`: a continuous stream of float16 features, `vocabulary` 0.
        levels: FSQ levels per latent channel, or codebook size per RVQ or PQ level; 2 per bit for LFQ; empty for text.
        bit_order: LFQ: whether channel 0 is the least (`lsb`: MAGVIT-v2, Open-MAGVIT2) or the most significant bit
            (`msb`: lucidrains). None for the others.
        index_order: how an id is made from digits, in words (law 8).
        vocabulary: ids are 0 <= id < vocabulary (per level for RVQ and PQ).
        dtype: of the stored values: the smallest unsigned that holds the vocabulary; float16 for a continuous
            stream.
        grid: ids of one step: (h, w) for an image, a frame or a latent frame, (n,) where ids have no place, (h, w, k)
            for the k nearest codes of each place; None otherwise.
        features: length of one position's vector in a continuous stream; 0 for ids.
        temporal_stride: video: frames of each latent frame after the first, which is of one frame: 1 + stride * k
            frames give 1 + k steps.
        fps: video: frames per second that it was made for; None: any.
        rate_hz: token frames per second of audio; None otherwise.
        ids_per_frame: levels of RVQ stored per token frame.
        sample_rate: Hz that audio must have; input_size: height and width in pixels that images must have, their
            most where `preprocessing` reduces the `long_side`.
        channels: of the input: 3 for images, 1 for mono, N for a raster.
        needs: the field of a signal whose value `encode` is given, a label, in place of media or the caption; at most
            one.
        input: the input contract: what is accepted and how it is converted.
        preprocessing: the same for machines.
        chunking: in what parts long media are encoded, and whether ids depend on it; padding: what is put after or
            around the media; valid_length: how the true length is found again.
        weights_digest: BLAKE3 of the weights file.
        code_version: versions of the code that the figures were measured with.
        batch_invariance: share of ids that differ between batch 1 and batch 16, measured; 0 of functions of whole
            numbers or text, which take their items one at a time.
        bf16_difference: share of ids that differ when the encoder computes in bfloat16 (the quantiser never does),
            measured.
    """

    name: str
    version: int = 1
    architecture: str = ""
    modality: Modality
    stream: str
    quantiser: Quantiser
    levels: list[int] = []
    bit_order: Literal["lsb", "msb"] | None = None
    index_order: str
    vocabulary: int = Field(ge=0)
    dtype: Dtype
    grid: Annotated[tuple[int, ...], Field(min_length=1, max_length=3)] | None = None
    features: int = Field(0, ge=0)
    temporal_stride: int | None = Field(None, ge=1)
    fps: float | None = Field(None, gt=0)
    rate_hz: float | None = None
    ids_per_frame: int = 1
    sample_rate: int | None = None
    input_size: int | None = None
    channels: int = Field(0, ge=0)
    needs: list[str] = []
    input: str
    preprocessing: Preprocessing | None = None
    chunking: str = ""
    padding: str = ""
    valid_length: str = ""
    special_tokens: dict[str, int] = {}
    weights_digest: str
    code_version: str = ""
    parameters: int = 0
    trained_on: str
    licence: str
    batch_invariance: float | None = Field(None, ge=0, le=1)
    bf16_difference: float | None = Field(None, ge=0, le=1)
    quality: list[Quality] = []

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
        """Codebooks whose ids take turns: levels of RVQ, groups of product quantisation; else 1."""
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
