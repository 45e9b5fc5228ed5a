"""The small network around the residual quantiser: MDCT frames to latents and back."""

from __future__ import annotations

from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

ENERGY_FLOOR = 1e-8  # mean square of a coefficient, -80 dB: below it a frame counts as silence


class AudioNetConfig(BaseModel):
    """Sizes of the network; written into the weights file, so that weights explain themselves.

    Attributes:
        hop: samples per token frame, which is also the number of MDCT coefficients.
        bands: bands of equal width in which energy is described and gain is given.
        noise_bands: bands of equal width in which the level of the noise is given; None: as many as `bands`.
        latent: width of the quantised vector.
        levels, codes: of the residual quantiser.
        kernel: frames that a block's temporal filter sees; odd.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rate: int = 16000
    hop: int = Field(default=320, gt=1, multiple_of=2)
    bands: int = Field(default=20, gt=0)
    noise_bands: int | None = Field(default=None, gt=0)
    encoder_width: int = Field(default=256, gt=0)
    encoder_blocks: int = Field(default=4, ge=0)
    decoder_width: int = Field(default=288, gt=0)
    decoder_blocks: int = Field(default=6, ge=0)
    expansion: int = Field(default=2, gt=0)
    kernel: int = Field(default=7, ge=1)
    latent: int = Field(default=64, gt=0)
    levels: int = Field(default=8, gt=0)
    codes: int = Field(default=1024, gt=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for bands in (self.bands, self.noises):
            if self.hop % bands:
                raise ValueError(f"{bands} bands of equal width do not divide the hop of {self.hop}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {self.kernel}")
        return self

    @property
    def noises(self) -> int:
        """Levels of noise in a frame."""
        return self.noise_bands or self.bands


class Block(nn.Module):
    """A ConvNeXt block over time (Liu et al. 2022): depthwise filter, norm, two linear maps, residual; `(B, T, C)`."""

    def __init__(self, width: int, expansion: int, kernel: int) -> None:
        super().__init__()
        # the depthwise filter as shifted products: three times as fast as a grouped convolution on a CPU
        self.taps = nn.Parameter(torch.randn(kernel, width) / kernel)
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, expansion * width)
        self.down = nn.Linear(expansion * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        kernel, time = self.taps.shape[0], x.shape[1]
        padded = F.pad(x, (0, 0, kernel // 2, kernel // 2))
        mixed = padded[:, :time] * self.taps[0]
        for i in range(1, kernel):
            mixed = mixed + padded[:, i : i + time] * self.taps[i]
        h: Tensor = self.down(F.silu(self.up(self.norm(mixed))))
        return x + h * self.scale


class Encoder(nn.Module):
    """MDCT coefficients `(B, T, hop)` to latents `(B, T, latent)`."""

    def __init__(self, config: AudioNetConfig) -> None:
        super().__init__()
        self.config = config
        self.inside = nn.Linear(config.hop + config.bands + 1, config.encoder_width)
        self.blocks = nn.ModuleList(
            Block(config.encoder_width, config.expansion, config.kernel) for _ in range(config.encoder_blocks)
        )
        self.norm = nn.LayerNorm(config.encoder_width)
        self.out = nn.Linear(config.encoder_width, config.latent)

    @property
    def reach(self) -> int:
        """Frames on either side that a latent depends on."""
        return 2 + (self.config.kernel // 2) * self.config.encoder_blocks

    def forward(self, coefficients: Tensor) -> Tensor:
        batch, time, _ = coefficients.shape
        power = coefficients.square()
        # shape and level apart: the network sees sounds of any gain alike, and the gain as one more input
        level = F.avg_pool1d(power.mean(-1)[:, None], 5, 1, 2, count_include_pad=False)[:, 0, :, None]
        level = 0.5 * torch.log(level + ENERGY_FLOOR)
        banded = 0.5 * torch.log(power.reshape(batch, time, self.config.bands, -1).mean(-1) + ENERGY_FLOOR)
        x = self.inside(torch.cat([coefficients * torch.exp(-level), banded - level, level], dim=-1))
        for block in self.blocks:
            x = block(x)
        latents: Tensor = self.out(self.norm(x))
        return latents


class Decoder(nn.Module):
    """Quantised latents `(B, T, latent)` to MDCT coefficients `(B, T, hop)` and a noise level for each, float32.

    At this rate the codes fix the waveform of the strongest partials only. What is left over has a known energy but no
    known phase; its level comes out beside the coefficients, and noise of that level stands in for it (as in Opus
    and EVS), because leaving it out is the smaller error and the duller sound.
    """

    def __init__(self, config: AudioNetConfig) -> None:
        super().__init__()
        self.config = config
        self.inside = nn.Linear(config.latent, config.decoder_width)
        self.blocks = nn.ModuleList(
            Block(config.decoder_width, config.expansion, config.kernel) for _ in range(config.decoder_blocks)
        )
        self.norm = nn.LayerNorm(config.decoder_width)
        self.shape = nn.Linear(config.decoder_width, config.hop)
        self.gain = nn.Linear(config.decoder_width, config.bands)
        nn.init.constant_(self.gain.bias, -3.5)  # about the level of speech at -25 dBFS
        self.noise = nn.Linear(config.decoder_width, config.noises)
        nn.init.zeros_(self.noise.weight)
        nn.init.constant_(self.noise.bias, -7.0)

    @property
    def reach(self) -> int:
        """Frames on either side that a frame's coefficients depend on."""
        return (self.config.kernel // 2) * self.config.decoder_blocks

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        x = self.inside(latents)
        for block in self.blocks:
            x = block(x)
        x = self.norm(x)
        gain = torch.exp(self.gain(x).float().clamp(-14.0, 4.0))
        shape = self.shape(x).float()
        batch, time, hop = shape.shape
        scaled: Tensor = shape.reshape(batch, time, self.config.bands, -1) * gain[..., None]
        level = torch.exp(self.noise(x).float().clamp(-14.0, 0.0))
        return scaled.reshape(batch, time, hop), level.repeat_interleave(hop // self.config.noises, dim=-1)
