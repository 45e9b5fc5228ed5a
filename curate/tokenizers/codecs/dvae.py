"""The dVAE of DALL-E (Ramesh et al. 2021, arXiv 2102.12092, section 2.1): 8x8 pixels to one of 8192 ids.

VIOLET, BEiT and FLAVA train on its ids. The encoder is `transformers`' `FlavaImageCodebook` (on the hub:
`facebook/flava-image-codebook`). OpenAI's own `encoder.pkl` and `decoder.pkl` are pickles of whole modules, which are
not opened here; their state dicts saved as safetensors are read under OpenAI's names (`w`, `b`).
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import load_state_strict, locate, read_state
from curate.schema.codec import CodecCard, Preprocessing, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.checkpoints import (
    LICENCE,
    TRAINED_ON,
    as_float32,
    open_weights,
    write_weights,
)
from curate.tokenizers.folders import WEIGHTS, code_version, read_folder, write_folder
from curate.tokenizers.grids import Pictures, batch_difference
from curate.tokenizers.inputs import PICTURES

STRIDE = 8
GROUPS = 4
# Values in [0, 1] are mapped to [0.1, 0.9] (the logit-Laplace distribution, appendix A.3): (v + 0.125) / 1.25.
MEAN, STD = -0.125, 1.25


class _Block(nn.Module):
    """A residual block: 1x1 then three 3x3 convolutions, each after a ReLU, the sum scaled as the paper's."""

    def __init__(self, wide_in: int, wide_out: int, layers: int) -> None:
        super().__init__()
        thin = wide_out // 4
        self.gain = 1 / layers**2
        self.id_path = nn.Conv2d(wide_in, wide_out, 1) if wide_in != wide_out else nn.Identity()
        convolutions = [
            nn.Conv2d(wide_in, thin, 1),
            nn.Conv2d(thin, thin, 3, padding=1),
            nn.Conv2d(thin, thin, 3, padding=1),
            nn.Conv2d(thin, wide_out, 3, padding=1),
        ]
        path: OrderedDict[str, nn.Module] = OrderedDict()
        for i, convolution in enumerate(convolutions, 1):
            path[f"relu_{i}"], path[f"conv_{i}"] = nn.ReLU(), convolution
        self.res_path = nn.Sequential(path)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.id_path(x) + self.gain * self.res_path(x))


class DVAEDecoder(nn.Module):
    """One-hot codes `(n, vocabulary, h, w)` to six channels `(n, 6, 8h, 8w)`: location and scale of a logit-Laplace.

    Args:
        start: channels of the first layer. hidden: channels of the last group; the first has eight times as many.
        blocks: residual blocks of a group.
    """

    def __init__(self, vocabulary: int = 8192, start: int = 128, hidden: int = 256, blocks: int = 2) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict(input=nn.Conv2d(vocabulary, start, 1))
        before = start
        for group in range(GROUPS):
            width = hidden * 2 ** (GROUPS - 1 - group)
            inside: OrderedDict[str, nn.Module] = OrderedDict()
            for i in range(blocks):
                inside[f"block_{i + 1}"] = _Block(before if i == 0 else width, width, GROUPS * blocks)
            if group < GROUPS - 1:
                inside["upsample"] = nn.Upsample(scale_factor=2, mode="nearest")
            layers[f"group_{group + 1}"] = nn.Sequential(inside)
            before = width
        layers["output"] = nn.Sequential(OrderedDict(relu=nn.ReLU(), conv=nn.Conv2d(hidden, 6, 1)))
        self.blocks = nn.Sequential(layers)

    def forward(self, codes: Tensor) -> Tensor:
        return cast(Tensor, self.blocks(codes))


class DVAE(Pictures):
    """uint8 sRGB pictures of the card's size to ids, and back where the decoder was imported too."""

    def __init__(self, card: CodecCard, encoder: Any, decoder: DVAEDecoder | None, device: str = "cpu") -> None:
        super().__init__(card, device)
        self.encoder = encoder.eval().to(self.device)
        self.decoder = decoder.eval().to(self.device) if decoder is not None else None

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> DVAE:
        """Reads `card.json` and `weights.safetensors`; CurateError where they do not belong together."""
        card, raw = read_folder(folder)
        return cls(card, *_nets(raw, card.name), device)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, size: int = 256, decoder: str | None = None) -> CodecCard:
        """Makes published weights into a folder of the zoo.

        Args:
            source: the encoder: a file, a folder, or a hub id (`facebook/flava-image-codebook`). Of a folder with
                `encoder.safetensors` and `decoder.safetensors` both are taken.
            folder: where to; its name becomes the tokenizer's.
            size: side of the pictures in pixels, a multiple of 8: 256 in DALL-E, 112 in FLAVA and BEiT.
            decoder: a file of the decoder's state dict, where it lies elsewhere.

        Raises:
            CurateError: the weights cannot be had, are a pickled module, or do not fit: it names key and shape.
        """
        if size % STRIDE:
            raise CurateError(f"pictures of {size} px do not divide into cells of {STRIDE} px")
        patterns = ("encoder.safetensors", "decoder.safetensors", "model.safetensors", "pytorch_model.bin")
        found = {path.stem: path for path in reversed(locate(source, (*patterns, "*.safetensors", "*.pkl")))}
        first = found.get("encoder") or found.get("model") or found.get("pytorch_model") or next(iter(found.values()))
        second = Path(decoder) if decoder is not None else found.get("decoder") if first.stem == "encoder" else None
        tensors = {f"encoder.{k}": v for k, v in _state(first).items()}
        if second is not None:
            tensors |= {f"decoder.{k}": v for k, v in _state(second).items()}
        raw = write_weights(tensors, {"shape": _shape(tensors, source)})
        encoder, back = _nets(raw, source)
        vocabulary = encoder.config.vocab_size
        card = CodecCard(
            name=folder.name,
            architecture="dvae",
            modality="image",
            stream=f"tok_rgb@{size}",
            quantiser="vq",
            index_order=(
                "id = channel of the encoder's greatest logit in fp32 (the lowest of equals); cells in row-major order"
            ),
            vocabulary=vocabulary,
            dtype=smallest_unsigned(vocabulary),
            grid=(size // STRIDE, size // STRIDE),
            input_size=size,
            channels=3,
            input=f"uint8 sRGB ({size}, {size}, 3) or (N, {size}, {size}, 3){PICTURES}",
            preprocessing=Preprocessing(
                resize="short_side", resample="lanczos", crop="centre", mean=[MEAN] * 3, std=[STD] * 3
            ),
            weights_digest=digest(raw),
            code_version=code_version("torch", "transformers"),
            parameters=sum(p.numel() for net in (encoder, back) if net is not None for p in net.parameters()),
            trained_on=TRAINED_ON,
            licence=LICENCE,
        )
        card = card.model_copy(update={"batch_invariance": batch_difference(cls(card, encoder, back))})
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    def ids_of(self, pictures: Tensor) -> Tensor:
        return cast(Tensor, self.encoder(pictures).float().argmax(dim=1))

    def pixels_of(self, ids: Tensor) -> Tensor:
        """Raises CurateError where only the encoder was imported."""
        if self.decoder is None:
            raise CurateError(
                f"{self.card.name} cannot decode: only the encoder was imported (FLAVA publishes no decoder)",
                "save the state dict of OpenAI's decoder.pkl as decoder.safetensors where you trust it; import both",
            )
        codes = functional.one_hot(ids, self.card.vocabulary).permute(0, 3, 1, 2).float()
        return torch.sigmoid(self.decoder(codes).float()[:, :3])


def _state(path: Path) -> dict[str, Tensor]:
    """Tensors under the names of `transformers`, float32."""
    if path.suffix == ".pkl":
        raise CurateError(
            f"{path.name} is a pickle of a whole module, and is not opened: that would run what it holds",
            "where you trust it, save its state_dict() with safetensors as "
            f"{path.stem}.safetensors, and give the folder of that",
        )
    out = {}
    for key, value in read_state(path).items():
        key = re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key.removeprefix("image_codebook.")))
        out[key] = as_float32(value)
    return out


def _shape(tensors: Mapping[str, Tensor], source: str) -> dict[str, int]:
    """Sizes as the tensors have them; a configuration of the hub does not cover the decoder."""
    first, last = tensors.get("encoder.blocks.input.weight"), tensors.get("encoder.blocks.output.conv.weight")
    if first is None or last is None:
        raise CurateError(
            f"{source} is no dVAE encoder: it lacks blocks.input.weight or blocks.output.conv.weight",
            "is it this architecture?",
        )
    blocks = len(
        {k for k in tensors if re.match(r"encoder\.blocks\.group_1\.(group\.)?block_\d+\..*conv_1\.weight$", k)}
    )
    shape = {"hidden": first.shape[0], "vocabulary": last.shape[0], "blocks": blocks}
    back = tensors.get("decoder.blocks.input.weight")
    if back is not None:
        shape |= {
            "decoder_start": back.shape[0],
            "decoder_hidden": tensors["decoder.blocks.output.conv.weight"].shape[1],
        }
    return shape


def _nets(raw: bytes, name: str) -> tuple[Any, DVAEDecoder | None]:
    ensure_torchvision()
    from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

    words, tensors = open_weights(raw)
    shape = words["shape"]
    config = FlavaImageCodebookConfig(
        hidden_size=shape["hidden"], vocab_size=shape["vocabulary"], num_blocks_per_group=shape["blocks"]
    )
    with torch.random.fork_rng(devices=[]):  # the random start is overwritten, and must not move the caller's state
        encoder = FlavaImageCodebook(config)
        decoder = None
        if "decoder_start" in shape:
            sizes = (shape["vocabulary"], shape["decoder_start"], shape["decoder_hidden"], shape["blocks"])
            decoder = DVAEDecoder(*sizes)
    # OpenAI's groups and paths are one level flatter than FLAVA's.
    state = {}
    for key, value in tensors.items():
        if key.startswith("encoder."):
            key = re.sub(r"\.(group_\d)\.block_", r".\1.group.block_", key.removeprefix("encoder."))
            state[re.sub(r"\.res_path\.conv_", ".res_path.path.conv_", key)] = value
    load_state_strict(encoder, state, name)
    if decoder is not None:
        back = {k.removeprefix("decoder."): v for k, v in tensors.items() if k.startswith("decoder.")}
        load_state_strict(decoder, back, f"{name} (decoder)")
    return encoder, decoder
