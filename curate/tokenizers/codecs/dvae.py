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

from curate.models.batches import finite
from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import infer_depth, locate, read_state, rename_state, required
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.grid import GridNet, Imported, square_grid

STRIDE = 8
GROUPS = 4


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


class DVAENet(GridNet):
    """Images in [0.1, 0.9], as logit-Laplace wants them (appendix A.3): (v + 0.125) / 1.25.

    Args:
        hidden, vocabulary, blocks: of the encoder, as `FlavaImageCodebookConfig` has them.
        decoder_start, decoder_hidden: of `DVAEDecoder`; None: there is no decoder.
    """

    mean = (-0.125, -0.125, -0.125)
    std = (1.25, 1.25, 1.25)

    def __init__(
        self,
        hidden: int,
        vocabulary: int,
        blocks: int,
        decoder_start: int | None = None,
        decoder_hidden: int | None = None,
    ) -> None:
        super().__init__()
        ensure_torchvision()
        from transformers import FlavaImageCodebook, FlavaImageCodebookConfig

        config = FlavaImageCodebookConfig(hidden_size=hidden, vocab_size=vocabulary, num_blocks_per_group=blocks)
        self.encoder: Any = FlavaImageCodebook(config)
        self.vocabulary = vocabulary
        if decoder_start is not None and decoder_hidden is not None:
            self.decoder = DVAEDecoder(vocabulary, decoder_start, decoder_hidden, blocks)
        rename_state(self, openai_name)

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size = 256 if size is None else size
        return {
            "index_order": (
                "id = channel of the encoder's greatest logit in fp32 (the lowest of equals); cells in row-major order"
            ),
            "vocabulary": self.vocabulary,
            "grid": square_grid("the dVAE", size, STRIDE),
            "input_size": size,
        }

    def ids(self, x: Tensor) -> Tensor:
        return finite(self.encoder(x)).argmax(dim=1)

    def images(self, ids: Tensor) -> Tensor:
        """Raises CurateError where only the encoder was imported."""
        if not hasattr(self, "decoder"):
            raise CurateError(
                "these weights cannot decode: only the encoder was imported (FLAVA publishes no decoder)",
                "save the state dict of OpenAI's decoder.pkl as decoder.safetensors where you trust it; import both",
            )
        codes = functional.one_hot(ids, self.vocabulary).permute(0, 3, 1, 2).float()
        return torch.sigmoid(self.decoder(codes).float()[:, :3])


def openai_name(key: str) -> str:
    """A tensor's name as OpenAI's code has it, but for `weight` and `bias`: groups and paths one level flatter."""
    return key.replace(".group.block_", ".block_").replace(".res_path.path.", ".res_path.")


class DVAE(Imported):
    """DALL-E's dVAE: `facebook/flava-image-codebook`, or a folder with OpenAI's `encoder` and `decoder.safetensors`.

    A side is a multiple of 8: 256 in DALL-E, 112 in FLAVA and BEiT.
    """

    architecture = "dvae"
    patterns = ("encoder.safetensors", "model.safetensors", "pytorch_model.bin", "*.safetensors", "*.pkl")
    packages = ("torch", "transformers")

    @classmethod
    def import_checkpoint(
        cls,
        source: str,
        folder: Path,
        size: int | None = None,
        file: str | None = None,
        decoder: str | None = None,
    ) -> CodecCard:
        """As `Imported.import_checkpoint`, of the encoder, and of `decoder.safetensors` where it lies beside.

        Args:
            decoder: a file of the decoder's state dict, where it lies elsewhere.
        """
        path = locate(source, (file,) if file else cls.patterns)[0]
        beside = path.with_name("decoder.safetensors")
        second = Path(decoder) if decoder else beside if path.stem == "encoder" and beside.is_file() else None
        state = {f"encoder.{k}": v for k, v in _state(path).items()}
        if second is not None:
            state |= {f"decoder.{k}": v for k, v in _state(second).items()}
        return cls.write(folder, path, cls.shape_of(state, path), state, size)

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        """Sizes as the tensors have them; a configuration of the hub does not cover the decoder."""
        shape = {
            "hidden": required(state, "encoder.blocks.input.weight", path).shape[0],
            "vocabulary": required(state, "encoder.blocks.output.conv.weight", path).shape[0],
            "blocks": infer_depth(state, "encoder.blocks.group_1.block_"),
        }
        back = state.get("decoder.blocks.input.weight")
        if back is not None:
            last = required(state, "decoder.blocks.output.conv.weight", path)
            shape |= {"decoder_start": back.shape[0], "decoder_hidden": last.shape[1]}
        return shape

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return DVAENet(**shape)

    @classmethod
    def net_with(cls, shape: dict[str, Any], state: Mapping[str, Tensor], name: str) -> GridNet:
        """As its base's; folders of FLAVA's weights were once written under FLAVA's names."""
        return super().net_with(shape, {openai_name(key): value for key, value in state.items()}, name)


def _state(path: Path) -> dict[str, Tensor]:
    """Tensors under OpenAI's names, but `weight` and `bias` for `w` and `b`."""
    if path.suffix == ".pkl":
        raise CurateError(
            f"{path.name} is a pickle of a whole module, and is not opened: that would run what it holds",
            "where you trust it, save its state_dict() with safetensors as "
            f"{path.stem}.safetensors, and give the folder of that",
        )
    out = {}
    for key, value in read_state(path).items():
        key = re.sub(r"\.w$", ".weight", re.sub(r"\.b$", ".bias", key.removeprefix("image_codebook.")))
        out[openai_name(key)] = value
    return out
