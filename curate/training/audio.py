"""Trains the audio tokenizer and makes its folder with a measured card."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, model_validator
from safetensors.torch import save
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

from curate.models.batches import usable
from curate.schema.codec import CodecCard, Quality
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.audio import audio_card
from curate.tokenizers.codecs.audio_rvq import CHUNK, AudioNetConfig, AudioRVQ, Decoder, Encoder, describe, imdct, mdct
from curate.tokenizers.folders import WEIGHTS, code_version, header, write_folder
from curate.tokenizers.measures.audio import evaluate_audio
from curate.tokenizers.quantisers.difference import batch_difference, rounded_difference
from curate.training.audio_losses import envelope_error, relative_error, spectral_loss, weighted_error
from curate.training.audio_media import AudioSource, Crops, Recording, gather
from curate.training.loop import Run, RunConfig, fit
from curate.training.pesq_loss import SHORTEST, disturbance
from curate.training.session import Session

log = logging.getLogger(__name__)

DISTURBED = 1e-5  # mean square of a sample, -50 dB: a crop below it is not listened to at the level of speech
ENERGY_FLOOR = 3e-7  # mean square of a sample, -65 dB: below it a crop's relative error is not worth bits

TONES = (125, 250, 500, 1000, 2000, 4000)
"""Hz; of the sines on the card."""


class AudioConfig(RunConfig):
    """`train.yaml` of an audio tokenizer."""

    architecture: Literal["audio-rvq"] = "audio-rvq"
    steps: int = Field(6000, gt=0)
    warmup: int = Field(
        300, ge=0, description="steps without quantiser, after which its codebooks start from k-means of the latents"
    )
    crops: int = Field(24, gt=0, description="crops in a batch")
    crop_frames: int = Field(64, gt=0, description="token frames of a crop")
    learning_rate: float = Field(2e-3, gt=0)
    clip: float = Field(1.0, gt=0)
    weight_decay: float = 0.01
    checkpoint_every: int = Field(200, gt=0)
    weighted_share: float = Field(
        0.5, ge=0, le=1, description="share of the waveform's error that is measured as it is heard (`weighted_error`)"
    )
    masking: float = Field(
        0.7, ge=0, le=1, description="its exponent: 0 plain, 1 where each band of each moment weighs alike"
    )
    envelope_weight: float = Field(0.0, ge=0, description="of the levels of bands (`envelope_error`)")
    spectral_weight: float = Field(1.0, description="of the log-spectrum term beside the waveform's error")
    disturbance_weight: float = Field(0.5, ge=0, description="of what disturbs a listener (`disturbance`)")
    disturbance_from: int = Field(6500, ge=0, description="the step from which it counts, because it is slow")
    disturbance_crops: int = Field(12, gt=0, description="the first crops of a batch, which alone are listened to")
    commitment_weight: float = Field(0.1, description="of the latents' relative distance to their codes")
    dropout: float = Field(0.25, ge=0, le=1, description="share of steps that use only the first few levels")
    decay: float = Field(0.98, gt=0, lt=1, description="of the moving average that makes the codebooks")
    beam: int = Field(8, ge=1, description="partial sums that the shipped encoder keeps; training is greedy")
    fill: float = Field(
        0.7, ge=0, le=1, description="how much noise the shipped decoder adds; 1 restores the energy of each band"
    )
    licence: str = Field("", description="of the weights that come out")
    package_weights: dict[str, float] = Field(
        {}, description="share of crops by package; packages that are not named divide the rest by duration"
    )
    network: AudioNetConfig = AudioNetConfig()
    media: tuple[AudioSource, ...] = ()

    @property
    def samples(self) -> int:
        """Of a crop."""
        return self.crop_frames * self.network.hop

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.disturbance_weight and self.steps > self.disturbance_from and self.samples < SHORTEST:
            raise ValueError(
                f"the disturbance needs crops of {SHORTEST} samples, and {self.crop_frames} frames have "
                f"{self.samples}: raise crop_frames, or set disturbance_weight to 0"
            )
        return self

    def rate_at(self, step: int) -> float:
        """A short linear rise, then a cosine to zero."""
        rise = min(1.0, (step + 1) / 100)
        return self.learning_rate * rise * 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.steps)))


class AudioModel(nn.Module):
    """Encoder, residual quantiser (EMA codebooks, van den Oord et al. 2017) and decoder, as they are trained."""

    def __init__(self, config: AudioConfig) -> None:
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

        The gradient is passed straight through by the caller, once, and not in the library's layers, where it would be
        counted once per level.
        """
        self.quantiser.quantize_dropout = dropped
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            codes: Tensor = self.quantiser(latents.detach().float())[0]
        return codes


class AudioRun(Run[AudioConfig]):
    """Training of an `AudioModel`.

    `relative` and `weighted` are errors of the waveform without noise, and so is the `disturbance`, which counts from
    `disturbance_from` on; `spectral` hears the noise too.
    """

    figures = ("loss", "relative", "weighted", "envelope", "spectral", "commitment", "disturbance")

    def __init__(self, config: AudioConfig, recordings: Sequence[Recording], device: str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.model = AudioModel(config).to(usable(device)).train()
        every = list(self.model.parameters())
        decayed, plain = [p for p in every if p.ndim > 1], [p for p in every if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
            lr=config.learning_rate,
            betas=(0.9, 0.99),
            fused=True,
        )
        super().__init__(config, self.model, optimizer, torch.device(device))
        self.recordings = recordings

    @cached_property
    def crops(self) -> Crops:
        """What batches are drawn from."""
        config = self.config
        return Crops(self.recordings, config.crops, config.samples, config.seed, config.package_weights)

    def batch(self, step: int) -> Tensor:
        return self.crops.batch(step)

    def advance(self, batch: Tensor) -> Tensor:
        """One step over samples `(B, n)`."""
        config = self.config
        # k-means and the replacement of dead codes draw by chance
        torch.manual_seed(config.seed * 1_000_003 + self.step)
        if self.step == config.warmup:
            self._start_codebooks()
        dropped = bool(torch.rand(()) < config.dropout)
        parts = self.losses(batch, dropped)
        self.start_step()
        parts["loss"].backward()  # type: ignore[no-untyped-call]
        self.end_step()
        return torch.stack([parts[name].detach().float() for name in self.figures]).cpu()

    def losses(self, samples: Tensor, dropped: bool) -> dict[str, Tensor]:
        """The `figures` of samples `(B, n)` at this step; of `dropped`, few levels of the quantiser count."""
        config = self.config
        coefficients = mdct(samples, config.network.hop)
        # bf16 products where the hardware has them; the quantiser and the losses stay in fp32
        with torch.autocast(samples.device.type, dtype=torch.bfloat16):
            latents = self.model.encoder(coefficients).float()
            sent = latents
            commitment = latents.new_zeros(())
            if self.step >= config.warmup:
                codes = self.model.quantise(latents, dropped)
                commitment = (latents - codes).square().mean() / latents.detach().var().clamp_min(1e-6)
                sent = latents + (codes - latents).detach()
            estimate, level = self.model.decoder(sent)
        parts = {
            "relative": relative_error(estimate, coefficients, ENERGY_FLOOR),
            "weighted": weighted_error(estimate, coefficients, ENERGY_FLOOR, config.masking, config.network.rate),
            "envelope": envelope_error(estimate, level, coefficients, ENERGY_FLOOR, config.network.rate),
            "spectral": spectral_loss(imdct(estimate + level * torch.randn_like(level)), samples),
            "commitment": commitment,
            "disturbance": latents.new_zeros(()),
        }
        few = slice(config.disturbance_crops)
        loud = samples[few].square().mean(1) > DISTURBED
        if self.step >= config.disturbance_from and loud.any():
            found = disturbance(imdct(estimate[few])[loud], samples[few][loud], config.network.rate)
            parts["disturbance"] = found.sum() / config.disturbance_crops
        total = (
            (1 - config.weighted_share) * parts["relative"]
            + config.weighted_share * parts["weighted"]
            + config.envelope_weight * parts["envelope"]
            + config.spectral_weight * parts["spectral"]
            + config.commitment_weight * commitment
            + config.disturbance_weight * parts["disturbance"]
        )
        return {"loss": total} | parts

    @torch.no_grad()
    def _start_codebooks(self) -> None:
        """k-means of the latents of many batches, level after level: the library does it at its first call."""
        latents: list[Tensor] = []
        while sum(len(x) for x in latents) < 12 * self.config.network.codes:
            batch = mdct(self.batch(-1 - len(latents) & 0x7FFFFFFF).to(self.device), self.config.network.hop)
            latents.append(self.model.encoder(batch).flatten(0, 1))
        self.model.quantise(torch.cat(latents)[None], dropped=False)


def train_audio(config: AudioConfig, out: Path, session: Session) -> CodecCard:
    """Trains, or carries on, and writes weights and card to `out`; see `curate.training.train`."""
    recordings, held = gather(config.media, config.network.rate, session.debian)
    run = AudioRun(config, recordings, session.device)
    fit(run, out, session)
    model = run.model.eval()
    tensors = {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    tensors |= {f"decoder.{k}": v for k, v in model.decoder.state_dict().items()}
    return write_audio_card(out, tensors | {"codebooks": model.quantiser.codebooks}, config, recordings, held)


def write_audio_card(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: AudioConfig,
    trained_on: Sequence[Recording],
    held_out: Sequence[Recording],
) -> CodecCard:
    """Writes `weights.safetensors` (float16) and `card.json`, measured on `held_out`, to `folder`.

    The codes are rounded to float16 before anything is measured, so the ids are those of the shipped codebooks.
    """
    halves = {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in tensors.items()}
    if broken := [k for k, v in halves.items() if not v.isfinite().all()]:
        raise CurateError(f"weights that are not finite: {broken[0]}", "train again with a lower learning_rate")
    raw = save(halves, metadata=header(describe(config.network, config.beam, config.fill)))
    net = config.network
    around = Encoder(net).receptive_field
    card = audio_card(
        name=folder.name,
        architecture="audio-rvq",
        rate=net.rate,
        hop=net.hop,
        levels=net.levels,
        codes=net.codes,
        index_order="column l is the code of level l, coarse to fine; a latent is the sum of its levels' codes, "
        "and the first columns alone decode too",
        chunking=f"whole, in steps of {CHUNK} frames that overlap and leave no seam; an id depends on {around} frames "
        "on either side, so parts of a sound that are encoded by themselves differ near their ends",
        weights_digest=digest(raw),
        code_version=code_version("torch"),
        parameters=sum(v.numel() for v in halves.values()),
        trained_on=_sources(config.media, trained_on, net.rate),
        licence=config.licence,
    )
    write_folder(folder, card, {WEIGHTS: raw})
    tokenizer = AudioRVQ.load(folder)
    audio = [s.samples for s in held_out]
    measured = {
        "quality": [*measure(tokenizer, held_out), *measure_tones(tokenizer)],
        "batch_invariance": batch_difference(tokenizer, audio) if audio else None,
        "bf16_difference": rounded_difference(tokenizer.ids_of, audio) if audio else None,
    }
    card = card.model_copy(update=measured)
    write_folder(folder, card, {})
    return card


def measure(tokenizer: AudioRVQ, held_out: Sequence[Recording]) -> list[Quality]:
    """One entry for each held-out recording, and one for each package that gave more than three."""
    groups: dict[str, list[Recording]] = {}
    for one in held_out:
        many = sum(s.package == one.package for s in held_out) > 3
        named = f"{one.package} {one.name}".strip()
        groups.setdefault(f"{one.package}, {{}} sounds" if many else named, []).append(one)
    quality = []
    for media, group in groups.items():
        items = [s.samples for s in group]
        found = evaluate_audio(tokenizer, items, f"{media.format(len(items))}, held out", group[0].speech)
        log.info("%s: %s dB", found.media, found.si_sdr_db)
        quality.append(found)
    return quality


def measure_tones(tokenizer: AudioRVQ) -> list[Quality]:
    """One entry for each of `TONES`: up to which pitch the codec keeps a waveform at all, which media hide."""
    return [
        evaluate_audio(tokenizer, [sine(hz, tokenizer.config.rate)], f"a sine of {hz} Hz, amplitude 0.3, 1 s, computed")
        for hz in TONES
    ]


def sine(hz: float, rate: int) -> NDArray[np.float32]:
    """One second of a sine of amplitude 0.3, float32 `(rate,)`."""
    wave: NDArray[np.float64] = 0.3 * np.sin(2 * np.pi * hz * np.arange(rate) / rate)
    return wave.astype(np.float32)


def _sources(media: Sequence[AudioSource], recordings: Sequence[Recording], rate: int) -> str:
    told = []
    for package in dict.fromkeys(s.package for s in recordings):
        mine = [s for s in recordings if s.package == package]
        licences = (m.licence for m in media if m.package == package and m.licence)
        licence = next(licences, "licence as the package states")
        told.append(f"{package}: {len(mine)} sounds, {sum(len(s.samples) for s in mine) / rate:.0f} s ({licence})")
    return "; ".join(told)
