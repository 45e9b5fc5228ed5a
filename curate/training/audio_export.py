"""From a trained audio model to a folder of the zoo: weights, and a card whose figures were measured on them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn

from curate.schema.codec import CodecCard, Preprocessing, Quality, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.audio_invariance import batch_invariance
from curate.tokenizers.codecs.audio_rvq import CHUNK, AudioRVQ, describe
from curate.tokenizers.codecs.audio_rvq_net import Encoder
from curate.tokenizers.folders import WEIGHTS, code_version, header, write_folder
from curate.tokenizers.inputs import SOUNDS
from curate.tokenizers.measures.audio import evaluate_audio
from curate.tokenizers.quantisers.difference import rounded_difference
from curate.training.audio_crops import AudioTrainConfig
from curate.training.audio_media import MediaSource, Sound

log = logging.getLogger(__name__)

TONES = (125, 250, 500, 1000, 2000, 4000)
"""Hz; of the sines on the card."""


class Trained(Protocol):
    """The parts of a trained model that are shipped."""

    @property
    def encoder(self) -> nn.Module: ...

    @property
    def decoder(self) -> nn.Module: ...

    @property
    def codebooks(self) -> Tensor: ...


def export(
    model: Trained,
    config: AudioTrainConfig,
    trained_on: Sequence[Sound],
    held_out: Sequence[Sound],
    out: Path,
    name: str,
) -> AudioRVQ:
    """Writes `weights.safetensors` (float16) and `card.json`, measured on `held_out`, and returns what they load to.

    The codes are rounded to float16 before anything is measured, so the ids are those of the shipped codebooks.
    """
    tensors = {f"encoder.{k}": v for k, v in model.encoder.state_dict().items()}
    tensors |= {f"decoder.{k}": v for k, v in model.decoder.state_dict().items()}
    tensors["codebooks"] = model.codebooks
    halves = {k: v.detach().cpu().to(torch.float16).contiguous() for k, v in tensors.items()}
    if broken := [k for k, v in halves.items() if not v.isfinite().all()]:
        raise CurateError(f"weights that are not finite: {broken[0]}", "train again with a lower learning_rate")
    raw = save(halves, metadata=header(describe(config.network, config.beam, config.fill)))
    net = config.network
    reach = Encoder(net).reach
    card = CodecCard(
        name=name,
        architecture="audio-rvq",
        modality="audio",
        stream=f"tok_audio@{net.rate // 1000}k",
        quantiser="rvq",
        levels=[net.codes] * net.levels,
        index_order="column l is the code of level l, coarse to fine; a latent is the sum of its levels' codes, "
        "and the first columns alone decode too",
        vocabulary=net.codes,
        dtype=smallest_unsigned(net.codes),
        rate_hz=net.rate / net.hop,
        ids_per_frame=net.levels,
        sample_rate=net.rate,
        channels=1,
        input=(
            f"float32 mono (samples,) in [-1, 1] at {net.rate} Hz, finite, at least one sample; not normalised in "
            f"level{SOUNDS}"
        ),
        preprocessing=Preprocessing(),
        chunking=f"whole, in steps of {CHUNK} frames that overlap and leave no seam; an id depends on {reach} frames "
        "on either side, so parts of a sound that are encoded by themselves differ near their ends",
        padding=f"zeros fill the last frame: ceil(samples / {net.hop}) frames",
        valid_length="the number of samples, which is kept beside the ids; `decode` cuts by it",
        weights_digest=digest(raw),
        code_version=code_version("torch"),
        parameters=sum(v.numel() for v in halves.values()),
        trained_on=_sources(config.media, trained_on, net.rate),
        licence=config.licence,
    )
    write_folder(out, card, {WEIGHTS: raw})
    tokenizer = AudioRVQ.load(out)
    card = card.model_copy(
        update={
            "quality": [*measure(tokenizer, held_out), *measure_tones(tokenizer)],
            "batch_invariance": batch_invariance(tokenizer, [s.samples for s in held_out]) if held_out else None,
            "bf16_difference": rounded_difference(tokenizer.ids_of, [s.samples for s in held_out])
            if held_out
            else None,
        }
    )
    write_folder(out, card, {})
    return AudioRVQ.load(out)


def measure(tokenizer: AudioRVQ, held_out: Sequence[Sound]) -> list[Quality]:
    """One entry for each held-out sound, and one for each package that gave more than three."""
    groups: dict[str, list[Sound]] = {}
    for sound in held_out:
        many = sum(s.package == sound.package for s in held_out) > 3
        named = f"{sound.package} {sound.name}".strip()
        groups.setdefault(f"{sound.package}, {{}} sounds" if many else named, []).append(sound)
    quality = []
    for media, sounds in groups.items():
        items = [s.samples for s in sounds]
        found = evaluate_audio(tokenizer, items, f"{media.format(len(items))}, held out", sounds[0].speech)
        log.info("%s: %s dB", found.media, found.si_sdr_db)
        quality.append(found)
    return quality


def measure_tones(tokenizer: AudioRVQ) -> list[Quality]:
    """One entry for each of `TONES`: up to which pitch the codec keeps a waveform at all, which media hide."""
    found = []
    for hz in TONES:
        media = f"a sine of {hz} Hz, amplitude 0.3, 1 s, computed"
        found.append(evaluate_audio(tokenizer, [sine(hz, tokenizer.config.rate)], media))
    return found


def sine(hz: float, rate: int) -> NDArray[np.float32]:
    """One second of a sine of amplitude 0.3, float32 `(rate,)`."""
    wave: NDArray[np.float64] = 0.3 * np.sin(2 * np.pi * hz * np.arange(rate) / rate)
    return wave.astype(np.float32)


def _sources(media: Sequence[MediaSource], sounds: Sequence[Sound], rate: int) -> str:
    told = []
    for package in dict.fromkeys(s.package for s in sounds):
        mine = [s for s in sounds if s.package == package]
        licence = next(
            (m.licence for m in media if m.package == package and m.licence), "licence as the package states"
        )
        told.append(f"{package}: {len(mine)} sounds, {sum(len(s.samples) for s in mine) / rate:.0f} s ({licence})")
    return "; ".join(told)
