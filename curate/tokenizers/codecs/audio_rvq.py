"""Sound to residual-quantised ids and back: 16 kHz mono, 50 frames of 8 ids a second, 4 kbps."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from blake3 import blake3
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from curate.models.batches import exact
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.audio_contract import check_ids, check_sound, wanted_lengths
from curate.tokenizers.codecs.audio_rvq_mdct import imdct, mdct
from curate.tokenizers.codecs.audio_rvq_net import AudioNetConfig, Decoder, Encoder
from curate.tokenizers.folders import read_folder, words_of
from curate.tokenizers.quantisers.beam import residual_search

CHUNK = 1024  # token frames that pass the network at once; bounds memory for long sounds
NOISE_FRAMES = 256  # the fixed noise repeats after this many frames, about five seconds


class AudioRVQ:
    """The audio tokenizer (a `Tokenizer`).

    Each sound passes the network alone, in chunks whose size depends on that sound only, so its ids cannot depend on
    what else is in the batch.
    """

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
    ) -> None:
        self.card = card
        self.config = config
        self.beam = beam
        self.fill = fill
        self.device = torch.device(device)
        self._encoder = encoder.float().eval().to(self.device)
        self._decoder = decoder.float().eval().to(self.device)
        self._codebooks = codebooks.float().to(self.device)
        self._noise = fixed_noise(config.hop).to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", fill: float | None = None) -> AudioRVQ:
        """Reads `card.json` and `weights.safetensors` of a folder of the zoo.

        Args:
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
            return cls(card, config, encoder, decoder, tensors["codebooks"], int(told["beam"]), amount, device)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise CurateError(f"The weights of {card.name} do not fit its network: {error}") from error

    def encode(self, items: Sequence[NDArray[np.float32]]) -> list[NDArray[np.generic]]:
        """Sounds `(n,)` float32 in [-1, 1] at 16 kHz to ids `(ceil(n / 320), 8)` uint16.

        Raises:
            ValueError: an item is not float32, not one-dimensional, empty, not finite, or not scaled to [-1, 1].
        """
        for item in items:
            check_sound(item)
        return [self.ids_of(item) for item in items]

    def decode(
        self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None
    ) -> list[NDArray[np.float32]]:
        """Ids `(frames, k)` to sounds `(n,)` float32 in [-1, 1]; the first `k` of the 8 levels suffice.

        Args:
            lengths: samples of each sound; without it the zero padding of the last frame stays.

        Raises:
            ValueError: ids of a wrong shape, type or range, or a length that does not fit the number of frames.
        """
        for item in ids:
            check_ids(item, self.config.levels, self.config.codes)
        wanted = wanted_lengths(ids, lengths, self.config.hop)
        with exact(self.device):
            return [self._decoded(item, length) for item, length in zip(ids, wanted, strict=True)]

    def ids_of(self, item: NDArray[np.float32], bf16: bool = False) -> NDArray[np.generic]:
        """Ids of one sound, as `encode` gives them; `bf16` computes the encoder in bfloat16, to measure what it costs.

        Transform and search are in fp32 whatever the caller's autocast.
        """
        parts = []
        with exact(self.device):
            coefficients = mdct(torch.from_numpy(np.ascontiguousarray(item))[None].to(self.device), self.config.hop)
            for start, stop, low, high in _chunks(coefficients.shape[1], self._encoder.reach):
                with torch.autocast(self.device.type, torch.bfloat16) if bf16 else nullcontext():
                    latents = self._encoder(coefficients[:, low:high])[0, start - low : stop - low]
                parts.append(residual_search(latents.float(), self._codebooks, self.beam))
        return torch.cat(parts).cpu().numpy().astype(self.card.numpy_dtype)

    def _decoded(self, item: NDArray[np.generic], length: int) -> NDArray[np.float32]:
        index = torch.from_numpy(item.astype(np.int64)).to(self.device)
        latents = sum(
            (self._codebooks[level][index[:, level]] for level in range(index.shape[1])),
            start=torch.zeros((len(index), self.config.latent), device=self.device),
        )
        parts = []
        for start, stop, low, high in _chunks(len(index), self._decoder.reach):
            coefficients, level = (x[:, start - low : stop - low] for x in self._decoder(latents[None, low:high]))
            frames = torch.arange(start, stop, device=self.device) % NOISE_FRAMES
            parts.append(coefficients + self.fill * level * self._noise[frames])
        samples = imdct(torch.cat(parts, dim=1))[0, :length].clamp(-1.0, 1.0)
        return np.asarray(samples.cpu().numpy(), dtype=np.float32)


def _chunks(frames: int, reach: int) -> list[tuple[int, int, int, int]]:
    """`(start, stop, low, high)`: frames start:stop come out right when low:high goes in."""
    return [
        (s, min(s + CHUNK, frames), max(s - reach, 0), min(s + CHUNK + reach, frames)) for s in range(0, frames, CHUNK)
    ]


def fixed_noise(hop: int) -> Tensor:
    """Noise `(NOISE_FRAMES, hop)` of unit power, uniform, always the same: decoding is a function of the ids."""
    raw = blake3(b"noise of the audio tokenizer").digest(length=NOISE_FRAMES * hop * 2)
    uniform = (np.frombuffer(raw, "<u2").astype(np.float64) + 0.5) / (1 << 15) - 1.0
    return torch.from_numpy((uniform * np.sqrt(3.0)).astype(np.float32)).reshape(NOISE_FRAMES, hop)


def describe(config: AudioNetConfig, beam: int, fill: float) -> dict[str, Any]:
    """What the weights file says about itself (`folders.header`); `AudioRVQ.load` reads it back."""
    return {"network": config.model_dump(mode="json"), "beam": beam, "fill": fill}
