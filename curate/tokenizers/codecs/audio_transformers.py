"""EnCodec, DAC and Mimi through `transformers`, from a local folder or a hub id.

EnCodec: Défossez et al. 2022, arXiv 2210.13438. DAC: Kumar et al. 2023, arXiv 2306.06546. Mimi: Défossez et al. 2024,
arXiv 2410.00037. What is common to them: mono audio is padded with zeros to whole token frames, passes the network
alone and whole, in float32, and comes out as residual ids, coarse to fine.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor

from curate.models.batches import exact
from curate.models.passes import fitting
from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import load_state_strict, locate, read_config
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError, first_line
from curate.schema.fields import RunsOn
from curate.schema.ids import digest
from curate.tokenizers.audio import AudioTokenizer, audio_card, chunk_difference, probe_audio
from curate.tokenizers.folders import (
    LICENCE,
    TRAINED_ON,
    WEIGHTS,
    code_version,
    open_weights,
    read_folder,
    write_folder,
    write_weights,
)
from curate.tokenizers.quantisers.difference import batch_difference

ensure_torchvision()
from transformers import (  # noqa: E402
    DacConfig,
    DacModel,
    EncodecConfig,
    EncodecModel,
    MimiConfig,
    MimiModel,
)

KBPS_TOLERANCE = 0.02  # papers round their rates: 7.75 kbps for DAC's 7.752


class TransformersCodec(AudioTokenizer):
    """What EnCodec, DAC and Mimi have in common.

    An item passes the network whole, which takes tens of MB of memory a second; longer ones are to be cut first.
    """

    longest = 120

    architecture: ClassVar[str]
    model_type: ClassVar[str]
    config_class: ClassVar[Any]
    model_class: ClassVar[Any]
    index_order: ClassVar[str] = "column l is the code of level l, coarse to fine; the first columns alone decode too"

    def __init__(self, card: CodecCard, net: Any, device: str = "cpu") -> None:
        super().__init__(card)
        self.device = torch.device(device)
        with fitting(card.name, RunsOn(device)):
            self.net = net.float().eval().to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Self:
        """Reads `card.json` and `weights.safetensors`; CurateError where they do not belong together."""
        card, raw = read_folder(folder)
        words, tensors = open_weights(raw)
        net = cls._fresh(words["config"])
        load_state_strict(net, tensors, card.name)
        return cls(card, net, device)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, *, kbps: float | None = None) -> CodecCard:
        """Makes `weights.safetensors` and a card of what `save_pretrained` wrote, or of a hub repository.

        Only safetensors are read. Invariance is measured on made-up audio.

        Args:
            kbps: how many levels are stored: EnCodec one of the rates of its configuration (6 where it is not said),
                DAC any number of levels (all), Mimi any (8 levels, 1.1 kbps).

        Raises:
            CurateError: it is of another architecture, stereo or normalised, has no such rate, or its weights cannot
                be had or do not fit.
        """
        config = cls._config_of(source)
        if getattr(config, "audio_channels", 1) != 1 or getattr(config, "normalize", False):
            raise CurateError(
                f"{source} is stereo, or scales each second of sound by a number that lies beside its ids",
                "a stream of ids cannot hold that number; take a mono model, of EnCodec the 24 kHz one",
            )
        if getattr(config, "chunk_length_s", None) is not None:
            raise CurateError(f"{source} encodes in overlapping chunks, which repeat ids", "take a model without")
        levels = cls._levels(config, kbps)
        whole = cls._pretrained(source, config)
        raw = write_weights(whole.state_dict(), {"config": config.to_dict()})
        _, tensors = open_weights(raw)
        net = cls._fresh(config.to_dict())
        load_state_strict(net, tensors, source)
        rate, hop, codes = config.sampling_rate, cls._hop(config), config.codebook_size
        card = audio_card(
            name=folder.name,
            architecture=cls.architecture,
            rate=rate,
            hop=hop,
            levels=levels,
            codes=codes,
            index_order=cls.index_order,
            takes=f", at most {cls.longest} s; not normalised in level",
            weights_digest=digest(raw),
            code_version=code_version("torch", "transformers"),
            parameters=sum(p.numel() for p in net.parameters()),
            trained_on=TRAINED_ON,
            licence=LICENCE,
        )
        codec = cls(card, net)
        probes = probe_audio(rate)
        second = max(1, round(rate / hop)) * hop
        share = chunk_difference(codec, probes[0], second)
        card = card.model_copy(
            update={
                "batch_invariance": batch_difference(codec, probes),
                "chunking": f"whole; encoded in parts of {second} samples, {share:.1%} of the ids differ (a made-up "
                f"sound); sounds beyond {cls.longest} s are refused",
                "padding": card.padding + codec._shortfall(),
            }
        )
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    def ids_of(self, audio: NDArray[np.float32]) -> NDArray[np.generic]:
        """Ids `(ceil(n / hop), levels)` of one item, zeros behind it up to whole frames."""
        frames = -(-len(audio) // self.hop)
        padded = torch.zeros((1, 1, frames * self.hop))
        padded[0, 0, : len(audio)] = torch.from_numpy(np.array(audio))
        with exact(self.device):
            ids = self._ids(padded.to(self.device), self.card.ids_per_frame).T.cpu().numpy()
        if ids.shape != (frames, self.card.ids_per_frame):
            raise ValueError(f"{self.card.name} gave ids {ids.shape} for {frames} frames of audio")
        return ids.astype(self.card.numpy_dtype)

    def audio_of(self, ids: NDArray[np.generic], length: int) -> NDArray[np.float32]:
        """The first `length` samples that ids `(frames, k)` decode to; zeros where the decoder gives fewer."""
        out = np.zeros(length, np.float32)
        decoded = self._decoded(ids)[:length]
        out[: len(decoded)] = decoded
        return out

    def _decoded(self, ids: NDArray[np.generic]) -> NDArray[np.float32]:
        index = torch.from_numpy(ids.astype(np.int64).T.copy())[None].to(self.device)
        with exact(self.device):
            return np.asarray(self._audio(index).reshape(-1).clamp(-1.0, 1.0).cpu().numpy(), np.float32)

    def _shortfall(self) -> str:
        """What the decoder lacks at the end, in words; "" where it gives whole frames."""
        frames = 10
        lacking = frames * self.hop - len(self._decoded(np.zeros((frames, 1), self.card.numpy_dtype)))
        return (
            f"; the decoder gives {lacking} samples less than its frames have, which are zeros" if lacking > 0 else ""
        )

    @classmethod
    def _config_of(cls, source: str) -> Any:
        told = read_config(locate(source, ["config.json"])[0])
        if told.get("model_type") != cls.model_type:
            raise CurateError(f"{source} is a {told.get('model_type')} model, not {cls.model_type}")
        return cls.config_class.from_dict(told)

    @classmethod
    def _pretrained(cls, source: str, config: Any) -> Any:
        """The published model, every key of it: the library renames the keys of older files."""
        where = locate(source, ["*.safetensors"])[0].parent
        try:
            net, found = cls.model_class.from_pretrained(
                where,
                config=config,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # to say which, below
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise CurateError(f"{source} cannot be read: {first_line(error)}") from error
        wrong = [f"{key} is missing" for key in sorted(found["missing_keys"])]
        wrong += [f"{key} is not known" for key in sorted(found["unexpected_keys"])]
        wrong += [
            f"{key} has shape {list(has)}, not {list(wanted)}" for key, has, wanted in sorted(found["mismatched_keys"])
        ]
        if wrong:
            more = f", and {len(wrong) - 5} more" if len(wrong) > 5 else ""
            raise CurateError(f"the weights {source} do not fit their config.json: {'; '.join(wrong[:5])}{more}")
        return net

    @classmethod
    def _fresh(cls, config: dict[str, Any]) -> Any:
        with torch.random.fork_rng(devices=[]):  # the random start is overwritten, and must not move the caller's state
            return cls.model_class(cls.config_class.from_dict(config)).float()

    @classmethod
    def _levels(cls, config: Any, kbps: float | None) -> int:
        """Levels that give `kbps`."""
        known = {levels: levels * cls._level_kbps(config) for levels in cls._choices(config)}
        if kbps is None:
            return cls._usual(config)
        nearest = min(known, key=lambda levels: abs(known[levels] - kbps))
        if not math.isclose(known[nearest], kbps, rel_tol=KBPS_TOLERANCE):
            told = ", ".join(f"{rate:.3g} ({levels})" for levels, rate in known.items())
            raise CurateError(f"no {kbps:g} kbps", f"there are, with their levels: {told}")
        return nearest

    @classmethod
    def _level_kbps(cls, config: Any) -> float:
        return float(config.sampling_rate / cls._hop(config) * math.log2(config.codebook_size) / 1000)

    @classmethod
    def _hop(cls, config: Any) -> int:
        """Samples of a token frame."""
        return int(config.hop_length)

    @classmethod
    def _choices(cls, config: Any) -> list[int]:
        """Numbers of levels that can be stored."""
        raise NotImplementedError

    @classmethod
    def _usual(cls, config: Any) -> int:
        """Levels where no rate is asked for."""
        raise NotImplementedError

    def _ids(self, audio: Tensor, levels: int) -> Tensor:
        """Padded audio `(1, 1, n)` to ids `(levels, n / hop)`."""
        raise NotImplementedError

    def _audio(self, ids: Tensor) -> Tensor:
        """Ids int64 `(1, k, frames)` to audio of about frames x hop samples."""
        raise NotImplementedError


class Encodec(TransformersCodec):
    """EnCodec, mono: 24 kHz, 75 frames a second of 2, 4, 8, 16 or 32 levels (1.5 to 24 kbps) of 1024 codes."""

    architecture = "encodec"
    model_type = "encodec"
    config_class = EncodecConfig
    model_class = EncodecModel

    @classmethod
    def _rates(cls, config: Any) -> dict[int, float]:
        """Levels to the bandwidth by which the library knows them."""
        levels = [
            int(1000 * b // (config.frame_rate * math.log2(config.codebook_size))) for b in config.target_bandwidths
        ]
        return {max(1, n): b for n, b in zip(levels, config.target_bandwidths, strict=True)}

    @classmethod
    def _choices(cls, config: Any) -> list[int]:
        return list(cls._rates(config))

    @classmethod
    def _usual(cls, config: Any) -> int:
        rates = cls._rates(config)
        return next((n for n, bandwidth in rates.items() if bandwidth == 6.0), max(rates))

    def _ids(self, audio: Tensor, levels: int) -> Tensor:
        found = self.net.encode(audio, bandwidth=self._rates(self.net.config)[levels])
        codes: Tensor = found.audio_codes[0, 0]
        return codes

    def _audio(self, ids: Tensor) -> Tensor:
        audio: Tensor = self.net.decode(ids[None], [None]).audio_values
        return audio


class Dac(TransformersCodec):
    """DAC, mono: 16, 24 or 44.1 kHz, 50 to 86 frames a second of up to 12, 32 or 9 levels of 1024 codes."""

    architecture = "dac"
    model_type = "dac"
    config_class = DacConfig
    model_class = DacModel

    @classmethod
    def _choices(cls, config: Any) -> list[int]:
        return list(range(1, config.n_codebooks + 1))

    @classmethod
    def _usual(cls, config: Any) -> int:
        return int(config.n_codebooks)

    def _ids(self, audio: Tensor, levels: int) -> Tensor:
        codes: Tensor = self.net.encode(audio, n_quantizers=levels).audio_codes[0]
        return codes

    def _audio(self, ids: Tensor) -> Tensor:
        audio: Tensor = self.net.decode(audio_codes=ids).audio_values
        return audio


class Mimi(TransformersCodec):
    """Mimi: 24 kHz mono, 12.5 frames a second of 8 (1.1 kbps) to 32 levels of 2048 codes, the first semantic."""

    architecture = "mimi"
    model_type = "mimi"
    config_class = MimiConfig
    model_class = MimiModel
    index_order = (
        "column 0 is the semantic code, from a quantiser of its own; columns 1 on are the acoustic levels, coarse to "
        "fine; the first columns alone decode too"
    )

    @classmethod
    def _hop(cls, config: Any) -> int:
        hop: int = round(config.sampling_rate / config.frame_rate)
        return hop

    @classmethod
    def _choices(cls, config: Any) -> list[int]:
        return list(range(config.num_semantic_quantizers, config.num_quantizers + 1))

    @classmethod
    def _usual(cls, config: Any) -> int:
        return min(8, int(config.num_quantizers))

    def _ids(self, audio: Tensor, levels: int) -> Tensor:
        codes: Tensor = self.net.encode(audio, num_quantizers=levels).audio_codes[0]
        return codes

    def _audio(self, ids: Tensor) -> Tensor:
        audio: Tensor = self.net.decode(ids).audio_values
        return audio
