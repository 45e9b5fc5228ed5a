"""Training of the audio tokenizer, on a CPU or on CUDA; resumes from its checkpoint at the next step."""

from __future__ import annotations

import logging
import math
import pickle
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from vector_quantize_pytorch import ResidualVQ

from curate.models.batches import usable
from curate.schema.errors import CurateError, first_line
from curate.tokenizers.codecs.audio_rvq import AudioRVQ
from curate.tokenizers.codecs.audio_rvq_mdct import imdct, mdct
from curate.tokenizers.codecs.audio_rvq_net import Decoder, Encoder
from curate.training.audio_crops import AudioTrainConfig, Crops, load_config
from curate.training.audio_export import export
from curate.training.audio_loss import envelope_error, relative_error, spectral_loss, weighted_error
from curate.training.audio_media import Sound, decode_audio, gather
from curate.training.pesq_loss import disturbance

log = logging.getLogger(__name__)

DISTURBED = 1e-5  # mean square of a sample, -50 dB: a crop below it is not listened to at the level of speech
ENERGY_FLOOR = 3e-7  # mean square of a sample, -65 dB: below it a crop's relative error is not worth bits


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

    @property
    def codebooks(self) -> Tensor:
        """`(levels, codes, latent)` float32."""
        found: Tensor = self.quantiser.codebooks
        return found

    def quantise(self, latents: Tensor, dropped: bool) -> Tensor:
        """Latents `(B, T, latent)` to their codes' sums in fp32 (law 8); in training mode also moves the codebooks.

        The gradient is passed straight through here, once, and not in the library's layers, where it would be
        counted once per level.
        """
        self.quantiser.quantize_dropout = dropped
        with torch.no_grad(), torch.autocast(latents.device.type, enabled=False):
            codes: Tensor = self.quantiser(latents.detach().float())[0]
        return codes


def loss_of(
    model: AudioModel,
    samples: Tensor,
    config: AudioTrainConfig,
    quantised: bool = True,
    dropped: bool = False,
    heard: bool = False,
) -> dict[str, Tensor]:
    """`total` and its parts for samples `(B, n)`.

    `relative` and `weighted` are errors of the waveform without noise, and so is the `disturbance`, which counts when
    `heard`; `spectral` hears the noise too.
    """
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
        estimate, level = model.decoder(sent)
    parts = {
        "relative": relative_error(estimate, coefficients, ENERGY_FLOOR),
        "weighted": weighted_error(estimate, coefficients, ENERGY_FLOOR, config.masking, config.network.rate),
        "envelope": envelope_error(estimate, level, coefficients, ENERGY_FLOOR, config.network.rate),
        "spectral": spectral_loss(imdct(estimate + level * torch.randn_like(level)), samples),
        "commitment": commitment,
    }
    if heard:
        few = slice(config.disturbance_crops)
        loud = samples[few].square().mean(1) > DISTURBED
        if loud.any():
            found = disturbance(imdct(estimate[few])[loud], samples[few][loud], config.network.rate)
            parts["disturbance"] = found.sum() / config.disturbance_crops
    total = (
        (1 - config.weighted_share) * parts["relative"]
        + config.weighted_share * parts["weighted"]
        + config.envelope_weight * parts["envelope"]
        + config.spectral_weight * parts["spectral"]
        + config.commitment_weight * commitment
        + config.disturbance_weight * parts.get("disturbance", 0.0)
    )
    return {"total": total} | parts


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

    Raises:
        CurateError: the checkpoint is of another configuration, or not one of ours; no such device; the loss is not
            finite.

    Returns:
        The model in evaluation mode, and the total loss of each step of this call.
    """
    usable(device)
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
    step = _restore(checkpoint, model, optimiser, config) if checkpoint.exists() else 0
    last = config.steps if stop_after is None else min(config.steps, step + stop_after)
    losses: list[float] = []
    saved = started = time.monotonic()
    model.train()
    while step < last:
        torch.manual_seed(config.seed * 1_000_003 + step)  # k-means and the replacement of dead codes draw by chance
        if step == config.warmup:
            _start_codebooks(model, crops, config, device)
        dropped = bool(torch.rand(()) < config.dropout)
        heard = step >= config.disturbance_from
        parts = loss_of(model, crops.batch(step).to(device), config, step >= config.warmup, dropped, heard)
        losses.append(float(parts["total"].detach()))
        if not math.isfinite(losses[-1]):
            raise CurateError(
                f"the loss of step {step} is not finite; the checkpoint is from before",
                "lower learning_rate and begin in a fresh folder",
            )
        optimiser.zero_grad(set_to_none=True)
        parts["total"].backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(step, config)
        optimiser.step()
        step += 1
        if step % 50 == 0:
            told = " ".join(f"{k} {float(v.detach()):.3f}" for k, v in parts.items())
            log.info(
                "step %d/%d %s, %.2f s a step", step, config.steps, told, (time.monotonic() - started) / len(losses)
            )
        if time.monotonic() - saved > save_every_s:
            _save(checkpoint, model, optimiser, config, step)
            saved = time.monotonic()
    _save(checkpoint, model, optimiser, config, step)
    return model.eval(), losses


@torch.no_grad()
def _start_codebooks(model: AudioModel, crops: Crops, config: AudioTrainConfig, device: str) -> None:
    """k-means of the latents of many batches, level after level: the library does it at its first call."""
    latents: list[Tensor] = []
    while sum(len(x) for x in latents) < 12 * config.network.codes:
        batch = mdct(crops.batch(-1 - len(latents) & 0x7FFFFFFF).to(device), config.network.hop)
        latents.append(model.encoder(batch).flatten(0, 1))
    model.quantise(torch.cat(latents)[None], dropped=False)


def _compared(config: AudioTrainConfig) -> str:
    """Of a config what makes the weights; the rest may differ between the sessions of one run."""
    return config.model_dump_json(exclude={"media", "licence", "beam", "fill"})


def _save(
    checkpoint: Path, model: AudioModel, optimiser: torch.optim.Optimizer, config: AudioTrainConfig, step: int
) -> None:
    state = {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step}
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    beside = checkpoint.with_suffix(".partial")
    torch.save(state | {"config": _compared(config)}, beside)
    beside.replace(checkpoint)  # law 7: in place whole, or not at all


def _restore(checkpoint: Path, model: AudioModel, optimiser: torch.optim.Optimizer, config: AudioTrainConfig) -> int:
    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        if state["config"] != _compared(config):
            raise ValueError("it was made with another configuration")
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
    except (pickle.UnpicklingError, RuntimeError, KeyError, TypeError, ValueError, EOFError) as error:
        raise CurateError(
            f"The checkpoint {checkpoint.name} does not fit this training: {first_line(error)}",
            "Remove it to start anew, or give the configuration that it was made with.",
        ) from error
    log.info("continuing %s from step %d", checkpoint.name, state["step"])
    return int(state["step"])


def train_audio(
    folder: Path,
    out: Path,
    debian_root: Path = Path("/"),
    device: str = "cpu",
    extra_held_out: Mapping[str, Path] | None = None,
) -> AudioRVQ:
    """`curate tokenizers train audio`: from `folder/train.yaml` to weights and a card with measured figures in `out`.

    Args:
        debian_root: where the Debian packages that `train.yaml` names are unpacked.
        extra_held_out: more speech to measure on, by the name that the card gives them.
    """
    config = load_config(folder / "train.yaml")
    sounds, held = gather(config.media, config.network.rate, debian_root)
    for name, path in (extra_held_out or {}).items():
        held.append(Sound(name, "", decode_audio(path, config.network.rate), True, speech=True))
    model, _ = train(config, sounds, out / "checkpoint.pt", device)
    return export(model, config, sounds, held, out, out.name)
