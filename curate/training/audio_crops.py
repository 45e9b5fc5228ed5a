"""What the audio tokenizer's training reads: its configuration, and batches of crops that follow from seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.signal import resample_poly
from torch import Tensor

from curate.tokenizers.codecs.audio_rvq_net import AudioNetConfig
from curate.training.audio_media import MediaSource, Sound
from curate.training.config import read_config
from curate.training.pesq_loss import SHORTEST

SPEEDS = ((1, 1), (1, 1), (9, 8), (8, 9), (16, 15), (15, 16))  # resampling ratios: other voices from the same ones


class AudioTrainConfig(BaseModel):
    """`train.yaml` of an audio tokenizer.

    Attributes:
        steps: optimiser steps; the learning rate falls to zero by a cosine over them.
        warmup: steps without quantiser, after which its codebooks start from k-means of the latents.
        crops, crop_frames: sounds in a batch and token frames of each.
        weighted_share: share of the waveform's error that is measured as it is heard (`loss.weighted_error`).
        masking: its exponent, 0 plain, 1 where each band of each moment weighs alike.
        envelope_weight: of the levels of bands (`loss.envelope_error`).
        spectral_weight: of the log-spectrum term beside the waveform's error.
        disturbance_weight: of what disturbs a listener (`disturbance`), from step `disturbance_from` on. It is slow,
            so only the first `disturbance_crops` of a batch are listened to.
        commitment_weight: of the latents' relative distance to their codes.
        dropout: share of steps that use only the first few levels of the quantiser.
        beam: partial sums that the shipped encoder keeps; training itself is greedy.
        fill: how much of the predicted noise the shipped decoder adds; 1 restores the energy of each band.
        licence: of the weights that come out.
        package_weights: share of crops by package; the packages that are not named divide the rest by duration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    steps: int = Field(default=6000, gt=0)
    warmup: int = Field(default=300, ge=0)
    crops: int = Field(default=24, gt=0)
    crop_frames: int = Field(default=64, gt=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    weight_decay: float = 0.01
    weighted_share: float = Field(default=0.5, ge=0, le=1)
    masking: float = Field(default=0.7, ge=0, le=1)
    envelope_weight: float = Field(default=0.0, ge=0)
    spectral_weight: float = 1.0
    disturbance_weight: float = Field(default=0.5, ge=0)
    disturbance_from: int = Field(default=6500, ge=0)
    disturbance_crops: int = Field(default=12, gt=0)
    commitment_weight: float = 0.1
    dropout: float = Field(default=0.25, ge=0, le=1)
    decay: float = Field(default=0.98, gt=0, lt=1)
    beam: int = Field(default=8, ge=1)
    fill: float = Field(default=0.7, ge=0, le=1)
    licence: str = ""
    package_weights: dict[str, float] = {}
    network: AudioNetConfig = AudioNetConfig()
    media: list[MediaSource] = []

    @model_validator(mode="after")
    def _possible(self) -> Self:
        samples = self.crop_frames * self.network.hop
        if self.disturbance_weight and self.steps > self.disturbance_from and samples < SHORTEST:
            raise ValueError(
                f"the disturbance needs crops of {SHORTEST} samples, and {self.crop_frames} frames have {samples}: "
                "raise crop_frames, or set disturbance_weight to 0"
            )
        return self


def load_config(path: Path) -> AudioTrainConfig:
    """Reads `train.yaml`.

    Raises:
        CurateError: the file does not fit the schema.
    """
    return read_config(AudioTrainConfig, path)


class Crops:
    """Batches of crops `(B, n)` float32; step s of a seed is always the same batch, so a resumed run sees the rest."""

    def __init__(self, sounds: Sequence[Sound], config: AudioTrainConfig) -> None:
        self.config = config
        self.length = config.crop_frames * config.network.hop
        self.sounds = [(s.samples * 32767).astype(np.int16) for s in sounds]
        weights = np.array([len(s) for s in self.sounds], dtype=np.float64)
        packages = np.array([s.package for s in sounds])
        named = {p: w for p, w in config.package_weights.items() if (packages == p).any()}
        for package, weight in named.items():
            chosen = packages == package
            weights[chosen] *= weight / weights[chosen].sum()
        rest = ~np.isin(packages, list(named))
        if rest.any():
            weights[rest] *= max(1.0 - sum(named.values()), 1e-9) / weights[rest].sum()
        self.weights = weights / weights.sum()

    def batch(self, step: int) -> Tensor:
        rng = np.random.default_rng([self.config.seed, step])
        out = np.zeros((self.config.crops, self.length), np.float32)
        for row, which in zip(out, rng.choice(len(self.sounds), self.config.crops, p=self.weights), strict=True):
            row[:] = self._crop(self.sounds[which], rng)
            if rng.random() < 0.1:  # two sounds at once
                row += rng.uniform(0.1, 0.7) * self._crop(
                    self.sounds[rng.choice(len(self.sounds), p=self.weights)], rng
                )
            peak = float(np.abs(row).max())
            # level: as it is, or anything from almost silent to full scale
            gain = 10.0 ** (rng.uniform(-30.0, 0.0) / 20.0) / max(peak, 1e-3) if rng.random() < 0.6 else 1.0
            row *= min(gain, 0.99 / max(peak, 1e-9)) * rng.choice([-1.0, 1.0])
        return torch.from_numpy(out)

    def _crop(self, sound: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.float32]:
        up, down = SPEEDS[rng.integers(len(SPEEDS))]
        need = -(-self.length * down // up)
        # a sound shorter than the crop lies anywhere in it; a longer one may also begin or end in it
        slack = max(need - len(sound), need // 8)
        start = int(rng.integers(-slack, max(len(sound) - need, 0) + slack + 1))
        piece = np.zeros(need, np.float32)
        inside = sound[max(start, 0) : max(start + need, 0)]
        offset = max(-start, 0)
        piece[offset : offset + len(inside)] = inside[: need - offset] / 32767.0
        if up != down:
            piece = resample_poly(piece, up, down).astype(np.float32)
        return piece[: self.length]
