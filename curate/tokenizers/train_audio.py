"""Training of the audio tokenizer, on a CPU or on CUDA; resumes from its checkpoint at the next step."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy.signal import resample_poly
from torch import Tensor, nn

from vector_quantize_pytorch import ResidualVQ

from curate.schema.errors import CurateError
from curate.tokenizers.audio_media import MediaSource, Sound
from curate.tokenizers.audio_net import AudioNetConfig, Decoder, Encoder
from curate.tokenizers.mdct import imdct, mdct

log = logging.getLogger(__name__)

SPEEDS = ((1, 1), (1, 1), (9, 8), (8, 9), (16, 15), (15, 16))  # resampling ratios: other voices from the same ones
ENERGY_FLOOR = 3e-7  # mean square of a sample, -65 dB: below it a crop's relative error is not worth bits


class AudioTrainConfig(BaseModel):
    """`train.yaml` of an audio tokenizer.

    Attributes:
        steps: optimiser steps; the learning rate falls to zero by a cosine over them.
        warmup: steps without quantiser, after which its codebooks start from k-means of the latents.
        crops, crop_frames: sounds in a batch and token frames of each.
        spectral_weight: of the log-spectrum term beside the relative squared error.
        commitment_weight: of the latents' relative distance to their codes.
        dropout: share of steps that use only the first few levels of the quantiser.
        package_weights: share of crops by package; the packages that are not named divide the rest by duration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = 0
    steps: int = Field(6000, gt=0)
    warmup: int = Field(300, ge=0)
    crops: int = Field(24, gt=0)
    crop_frames: int = Field(64, gt=0)
    learning_rate: float = Field(2e-3, gt=0)
    weight_decay: float = 0.01
    spectral_weight: float = 0.1
    commitment_weight: float = 0.1
    dropout: float = Field(0.25, ge=0, le=1)
    decay: float = Field(0.98, gt=0, lt=1)
    package_weights: dict[str, float] = {}
    network: AudioNetConfig = AudioNetConfig()
    media: list[MediaSource] = []


def load_config(path: Path) -> AudioTrainConfig:
    """Reads `train.yaml`.

    Raises:
        CurateError: the file does not fit the schema.
    """
    try:
        return AudioTrainConfig.model_validate(yaml.safe_load(path.read_text("utf-8")))
    except (ValueError, yaml.YAMLError) as error:
        raise CurateError(f"{path.name} is not a training configuration: {error}") from error


class AudioModel(nn.Module):
    """Encoder, residual quantiser (EMA codebooks, van den Oord et al. 2017) and decoder, as they are trained."""

    def __init__(self, config: AudioTrainConfig) -> None:
        super().__init__()
        net = config.network
        self.encoder = Encoder(net)
        self.decoder = Decoder(net)
        self.quantiser = ResidualVQ(
            dim=net.latent,
            num_quantizers=net.levels,
            codebook_size=net.codes,
            decay=config.decay,
            kmeans_init=True,
            kmeans_iters=8,
            # a code that fewer vectors than this choose per step, on a running mean, is dead and is replaced
            threshold_ema_dead_code=0.1 * config.crops * config.crop_frames / net.codes,
            quantize_dropout=True,
        )

    def quantise(self, latents: Tensor, dropped: bool) -> Tensor:
        """Latents `(B, T, latent)` to their codes' sums in fp32 (law 8); in training mode also moves the codebooks.

        The gradient is passed straight through here, once, and not in the library's layers, where it would be
        counted once per level.
        """
        self.quantiser.quantize_dropout = dropped
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            codes: Tensor = self.quantiser(latents.detach().float())[0]
        return codes


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
                row += rng.uniform(0.1, 0.7) * self._crop(self.sounds[rng.choice(len(self.sounds), p=self.weights)], rng)
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


def spectral_loss(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of log band spectra at two resolutions, in natural log units.

    Waveform error alone gives muffled sound: what cannot be matched in phase is better absent. This asks for the
    right amount of energy in each band instead.
    """
    total = reference.new_zeros(())
    for size, bands in ((1024, 64), (256, 32)):
        window = torch.hann_window(size, device=reference.device)
        matrix = _mel_matrix(size, bands).to(reference.device)
        spectra = []
        for x in (estimate, reference):
            spectrum = torch.stft(x, size, size // 2, window=window, return_complex=True)
            power = spectrum.real.square() + spectrum.imag.square()
            spectra.append(torch.log(torch.matmul(matrix, power) / size + 1e-5) * 0.5)
        total = total + (spectra[0] - spectra[1]).abs().mean()
    return total / 2


def _mel_matrix(size: int, bands: int, rate: int = 16000) -> Tensor:
    """Triangular filters `(bands, size / 2 + 1)` on the mel scale of O'Shaughnessy 1987 (2595 log10(1 + f / 700))."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    # a filter narrower than two bins would see nothing
    low, mid, high = (e[:, None] for e in (edges[:-2], edges[1:-1], edges[2:]))
    step = rate / size
    low, high = torch.minimum(low, mid - step), torch.maximum(high, mid + step)
    hz = torch.arange(size // 2 + 1)[None] * step
    return torch.minimum((hz - low) / (mid - low), (high - hz) / (high - mid)).clamp_min(0)


def loss_of(model: AudioModel, samples: Tensor, config: AudioTrainConfig, quantised: bool, dropped: bool) -> dict[str, Tensor]:
    """`total` and its parts for samples `(B, n)`; `relative` is the mean over crops of ln(error / energy)."""
    coefficients = mdct(samples, config.network.hop)
    # bf16 products where the hardware has them; the quantiser and the losses stay in fp32
    with torch.autocast(samples.device.type, dtype=torch.bfloat16):
        latents = model.encoder(coefficients).float()
        sent = latents
        commitment = latents.new_zeros(())
        if quantised:
            codes = model.quantise(latents, dropped)
            commitment = (latents - codes).square().mean() / latents.detach().var().clamp_min(1e-6)
            sent = latents + (codes - latents).detach()
        estimate = model.decoder(sent)
    floor = ENERGY_FLOOR * samples.shape[-1]
    error = (estimate - coefficients).square().sum((1, 2))
    relative = torch.log((error + floor) / (samples.square().sum(1) + floor)).mean()
    spectral = spectral_loss(imdct(estimate), samples) if config.spectral_weight else relative.new_zeros(())
    total = relative + config.spectral_weight * spectral + config.commitment_weight * commitment
    return {"total": total, "relative": relative, "spectral": spectral, "commitment": commitment}


def rate_at(step: int, config: AudioTrainConfig) -> float:
    """Learning rate: a short linear rise, then a cosine to zero."""
    rise = min(1.0, (step + 1) / 100)
    return config.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / config.steps)))


def train(
    config: AudioTrainConfig,
    sounds: Sequence[Sound],
    checkpoint: Path,
    device: str = "cpu",
    stop_after: int | None = None,
    save_every_s: float = 60.0,
) -> tuple[AudioModel, list[float]]:
    """Trains until `config.steps`, or for `stop_after` steps of this call, and writes `checkpoint` now and then.

    Args:
        sounds: what to train on, at the network's rate.
        checkpoint: continued from when it exists.

    Returns:
        The model in evaluation mode, and the total loss of each step of this call.
    """
    torch.manual_seed(config.seed)
    model = AudioModel(config).to(device)
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimiser = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        fused=True,
    )
    crops = Crops(sounds, config)
    step = _restore(checkpoint, model, optimiser) if checkpoint.exists() else 0
    last = config.steps if stop_after is None else min(config.steps, step + stop_after)
    losses: list[float] = []
    saved = started = time.monotonic()
    model.train()
    while step < last:
        if step == config.warmup:
            _start_codebooks(model, crops, config, device)
        torch.manual_seed(config.seed * 1_000_003 + step)  # the quantiser replaces dead codes by chance
        dropped = bool(torch.rand(()) < config.dropout)
        parts = loss_of(model, crops.batch(step).to(device), config, step >= config.warmup, dropped)
        optimiser.zero_grad(set_to_none=True)
        parts["total"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, config)
        optimiser.step()
        losses.append(float(parts["total"].detach()))
        step += 1
        if step % 50 == 0:
            told = " ".join(f"{k} {float(v.detach()):.3f}" for k, v in parts.items())
            log.info("step %d/%d %s, %.2f s a step", step, config.steps, told, (time.monotonic() - started) / len(losses))
        if time.monotonic() - saved > save_every_s:
            _save(checkpoint, model, optimiser, step)
            saved = time.monotonic()
    _save(checkpoint, model, optimiser, step)
    return model.eval(), losses


@torch.no_grad()
def _start_codebooks(model: AudioModel, crops: Crops, config: AudioTrainConfig, device: str) -> None:
    """k-means of the latents of many batches, level after level: the library does it at its first call."""
    latents: list[Tensor] = []
    while sum(len(x) for x in latents) < 12 * config.network.codes:
        batch = mdct(crops.batch(-1 - len(latents) & 0x7FFFFFFF).to(device), config.network.hop)
        latents.append(model.encoder(batch).flatten(0, 1))
    model.quantise(torch.cat(latents)[None], dropped=False)


def _save(checkpoint: Path, model: AudioModel, optimiser: torch.optim.Optimizer, step: int) -> None:
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    beside = checkpoint.with_suffix(".partial")
    torch.save({"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}, beside)
    beside.replace(checkpoint)  # law 7: in place whole, or not at all


def _restore(checkpoint: Path, model: AudioModel, optimiser: torch.optim.Optimizer) -> int:
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimiser.load_state_dict(state["optimiser"])
    log.info("continuing %s from step %d", checkpoint.name, state["step"])
    return int(state["step"])



