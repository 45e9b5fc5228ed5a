"""Audio to residual-quantised ids and back: 16 kHz mono, 50 frames of 8 ids a second, 4 kbps.

A modified discrete cosine transform, a small network from its frames to latents, a residual quantiser, and back.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional as F

from curate.models.batches import exact, finite
from curate.models.passes import fitting
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.tokenizers.audio import AudioTokenizer
from curate.tokenizers.folders import read_folder, words_of
from curate.tokenizers.quantisers.beam import residual_search

CHUNK = 1024  # token frames that pass the network at once; bounds memory for long audio
NOISE_FRAMES = 256  # the fixed noise repeats after this many frames, about five seconds


class AudioRVQ(AudioTokenizer):
    """The audio tokenizer; an item passes the network in chunks whose size depends on that item only."""

    def __init__(
        self,
        card: CodecCard,
        config: AudioNetConfig,
        encoder: Encoder,
        decoder: Decoder,
        codebooks: Tensor,
        beam: int = 1,
        fill: float = 0.0,
        device: str = "cpu",
        dtype: str = "float32",
    ) -> None:
        super().__init__(card)
        self.config = config
        self.beam = beam
        self.fill = fill
        self.device, self.dtype = torch.device(device), dtype
        with fitting(card.name, RunsOn(device, dtype)):
            self._encoder = encoder.float().eval().to(self.device)
            self._decoder = decoder.float().eval().to(self.device)
            self._codebooks = codebooks.float().to(self.device)
        self._noise = fixed_noise(config.hop).to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "float32", fill: float | None = None) -> Self:
        """Reads `card.json` and `weights.safetensors` of a folder of the zoo.

        Args:
            dtype: `float32` or `bfloat16`, that the encoder computes in.
            fill: how much of the predicted noise `decode` adds; None takes what the weights say, 0 gives the least
                waveform error and a duller sound. Ids do not depend on it.

        Raises:
            CurateError: a file is missing or broken, or the weights are not those that the card names.
        """
        card, raw = read_folder(folder)
        try:
            told = words_of(raw)
            config = AudioNetConfig.model_validate(told["network"])
            tensors = load_tensors(raw)
            encoder, decoder = Encoder(config), Decoder(config)
            for module, prefix in ((encoder, "encoder."), (decoder, "decoder.")):
                part = {k[len(prefix) :]: v.float() for k, v in tensors.items() if k.startswith(prefix)}
                nn.Module.load_state_dict(module, part)
            amount = float(told["fill"]) if fill is None else fill
            beam = int(told["beam"])
            return cls(card, config, encoder, decoder, tensors["codebooks"], beam, amount, device, dtype)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CurateError(f"The weights of {card.name} do not fit its network: {error}") from error

    def ids_of(self, audio: NDArray[np.float32], bf16: bool = False) -> NDArray[np.generic]:
        """Ids of one item, as `encode` gives them; `bf16` computes the encoder in bfloat16, to measure what it costs.

        Transform and search are in fp32 whatever the caller's autocast.
        """
        parts = []
        with exact(self.device):
            coefficients = mdct(torch.from_numpy(np.array(audio))[None].to(self.device), self.config.hop)
            for start, stop, low, high in _chunks(coefficients.shape[1], self._encoder.receptive_field):
                with exact(self.device, "bfloat16" if bf16 else self.dtype):
                    latents = finite(self._encoder(coefficients[:, low:high])[0, start - low : stop - low])
                parts.append(residual_search(latents, self._codebooks, self.beam))
        return torch.cat(parts).cpu().numpy().astype(self.card.numpy_dtype)

    def audio_of(self, ids: NDArray[np.generic], length: int) -> NDArray[np.float32]:
        """The first `length` samples that ids decode to, noise of the predicted level and `fill` among them."""
        with exact(self.device):
            index = torch.from_numpy(ids.astype(np.int64)).to(self.device)
            latents = sum(
                (self._codebooks[level][index[:, level]] for level in range(index.shape[1])),
                start=torch.zeros((len(index), self.config.latent), device=self.device),
            )
            parts = []
            for start, stop, low, high in _chunks(len(index), self._decoder.receptive_field):
                coefficients, level = (x[:, start - low : stop - low] for x in self._decoder(latents[None, low:high]))
                frames = torch.arange(start, stop, device=self.device) % NOISE_FRAMES
                parts.append(coefficients + self.fill * level * self._noise[frames])
            samples = imdct(torch.cat(parts, dim=1))[0, :length].clamp(-1.0, 1.0)
            return np.asarray(samples.cpu().numpy(), dtype=np.float32)


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
    def receptive_field(self) -> int:
        """Frames on either side that a latent depends on."""
        return 2 + (self.config.kernel // 2) * self.config.encoder_blocks

    def forward(self, coefficients: Tensor) -> Tensor:
        batch, time, _ = coefficients.shape
        power = coefficients.square()
        # shape and level apart: the network sees audio of any gain alike, and the gain as one more input
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
    def receptive_field(self) -> int:
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


@lru_cache(maxsize=8)
def _tables(hop: int) -> tuple[Tensor, Tensor, Tensor]:
    """DCT-IV matrix `(hop, hop)` and the rotation's cosine and sine `(hop / 2,)`, float64 on the CPU."""
    n = torch.arange(hop, dtype=torch.float64) + 0.5
    dct = math.sqrt(2.0 / hop) * torch.cos(math.pi / hop * torch.outer(n, n))
    # distance from the boundary, 0.5 .. hop/2 - 0.5; the sine window at that distance on either side of it
    distance = torch.arange(hop // 2, dtype=torch.float64) + 0.5
    angle = math.pi / (2 * hop) * (hop / 2 + distance)
    return dct, torch.sin(angle), torch.cos(angle)


def _rotate(blocks: Tensor, hop: int, sign: float) -> Tensor:
    """Rotates the half blocks on both sides of every inner boundary; `sign` -1 undoes it."""
    _, near, far = _tables(hop)
    c, s = near.to(blocks), sign * far.to(blocks)
    half = hop // 2
    left = blocks[:, :-1, half:].flip(-1)  # by distance from the boundary
    right = blocks[:, 1:, :half]
    new_left = (c * left - s * right).flip(-1)
    new_right = c * right + s * left
    first = torch.cat([blocks[:, :1, :half], new_right], dim=1)
    second = torch.cat([new_left, blocks[:, -1:, half:]], dim=1)
    return torch.cat([first, second], dim=-1)


def mdct(samples: Tensor, hop: int) -> Tensor:
    """Samples `(B, n)` to coefficients `(B, ceil(n / hop), hop)`, low frequencies first; the end is zero-padded.

    The modified discrete cosine transform, critically sampled and orthonormal (Princen & Bradley 1986,
    "Analysis/synthesis filter bank design based on time domain aliasing cancellation"), in the lapped-transform form
    (Malvar 1990): rotations across each boundary between two blocks, then a DCT-IV of each block. That equals an MDCT
    with a sine window of twice the block, and because the outer edges of a signal have no neighbour to rotate with, a
    signal of F blocks gives exactly F frames (no extra frame for the lead-in). The whole map is an orthogonal matrix,
    so a squared error of coefficients is the same squared error of the waveform.

    Coefficient k covers the band around `(k + 0.5) * rate / (2 * hop)` Hz. float32 and float64 keep their type.
    """
    if hop < 2 or hop % 2:
        raise ValueError(f"the hop must be even and at least 2, not {hop}")
    frames = -(-samples.shape[-1] // hop)
    padded = F.pad(samples, (0, frames * hop - samples.shape[-1]))
    blocks = _rotate(padded.reshape(samples.shape[0], frames, hop), hop, 1.0)
    return blocks @ _tables(hop)[0].to(blocks)


def imdct(coefficients: Tensor) -> Tensor:
    """Coefficients `(B, F, hop)` back to samples `(B, F * hop)`: the transpose of `mdct`, which is its inverse."""
    batch, frames, hop = coefficients.shape
    blocks = coefficients @ _tables(hop)[0].to(coefficients)  # a DCT-IV is its own inverse
    return _rotate(blocks, hop, -1.0).reshape(batch, frames * hop)


def _chunks(frames: int, around: int) -> Iterator[tuple[int, int, int, int]]:
    """`(start, stop, low, high)`: frames start:stop come out right when low:high goes in."""
    for start in range(0, frames, CHUNK):
        stop = min(start + CHUNK, frames)
        yield start, stop, max(start - around, 0), min(stop + around, frames)


def fixed_noise(hop: int) -> Tensor:
    """Noise `(NOISE_FRAMES, hop)` of unit power, uniform, always the same: decoding is a function of the ids."""
    raw = blake3(b"noise of the audio tokenizer").digest(length=NOISE_FRAMES * hop * 2)
    uniform = (np.frombuffer(raw, "<u2").astype(np.float64) + 0.5) / (1 << 15) - 1.0
    return torch.from_numpy((uniform * np.sqrt(3.0)).astype(np.float32)).reshape(NOISE_FRAMES, hop)


def describe(config: AudioNetConfig, beam: int, fill: float) -> dict[str, Any]:
    """What the weights file says about itself (`folders.header`); `AudioRVQ.load` reads it back."""
    return {"network": config.model_dump(mode="json"), "beam": beam, "fill": fill}
