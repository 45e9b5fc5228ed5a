"""Emu3's vision tokenizer (Wang et al. 2024, arXiv 2409.18869, section 2.2): 8x8 pixels and 4 frames to one of 32768.

The network is `transformers`' `Emu3VQVAE`. Weights are read under its names (`model.vqmodel.` of whole checkpoints) and
under those of `BAAI/Emu3-VisionTokenizer`, whose attention has 1x1 convolutions in place of linear layers.

A picture is encoded as four equal frames, as the publisher does. All its convolutions in time look back only, so a clip
of 1 + 4k frames is encoded as its first frame four times and then the rest: 1 + k steps, the first of which are the
picture's ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import load_state_strict
from curate.schema.codec import CodecCard, Preprocessing, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.checkpoints import (
    LICENCE,
    TRAINED_ON,
    as_float32,
    normalisation,
    open_weights,
    read_json,
    read_part,
    write_weights,
)
from curate.tokenizers.codecs.chameleon import ANCHOR, NEAREST
from curate.tokenizers.folders import WEIGHTS, code_version, read_folder, write_folder
from curate.tokenizers.grids import Clips, Pictures, batch_difference
from curate.tokenizers.inputs import PICTURES

if TYPE_CHECKING:
    from transformers import Emu3VQVAEConfig

# Names of the publisher's network, and of the same layer in transformers.
RENAMED = (
    (r"\.mid\.attn_1\.norm\.", ".mid.attn_norm."),
    (r"\.attn\.(\d+)\.norm\.", r".attn_norms.\1."),
    (r"\.([qkv])\.(weight|bias)$", r".\1_proj.\2"),
    (r"\.proj_out\.", ".out_proj."),
    (r"\.(down|up)\.(?=\d)", r".\1_block.\1."),
    (r"\.mid\.", ".middle_block."),
)
CONFIG_NAMES = {
    "ch": "base_channels",
    "ch_mult": "channel_multiplier",
    "z_channels": "latent_channels",
    "double_z": "double_latent",
}


class Emu3Picture(Pictures):
    """uint8 sRGB pictures of the card's size to ids and back."""

    def __init__(self, card: CodecCard, net: Any, device: str = "cpu") -> None:
        super().__init__(card, device)
        self.net = net.eval().to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Emu3Picture:
        """Reads `card.json` and `weights.safetensors`; CurateError where they do not belong together."""
        card, raw = read_folder(folder)
        return cls(card, _net(raw, card.name), device)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, size: int = 512) -> CodecCard:
        """Makes published weights into a folder of the zoo.

        Args:
            source: a file, a folder or a hub id: `BAAI/Emu3-VisionTokenizer`, or a whole checkpoint of `transformers`'
                Emu3, of which only the VQ tensors are read. `config.json` and `preprocessor_config.json` are used where
                there are such, the published values otherwise.
            folder: where to; its name becomes the tokenizer's.
            size: side of the pictures in pixels, a multiple of 8.

        Raises:
            CurateError: the weights cannot be had, or do not fit: it names key and shape.
        """
        card, raw, net = _imported(source, folder.name, size, video=False)
        card = card.model_copy(update={"batch_invariance": batch_difference(cls(card, net))})
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    def ids_of(self, pictures: Tensor) -> Tensor:
        frames = pictures[:, None].expand(-1, self.net.config.temporal_downsample_factor, -1, -1, -1)
        return _ids(self.net, frames)[:, 0]

    def pixels_of(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.net.decode(ids))


class Emu3Clip(Clips):
    """uint8 sRGB clips `(1 + 4k, H, W, 3)` to ids `(1 + k, h, w)` and back."""

    def __init__(self, card: CodecCard, net: Any, device: str = "cpu") -> None:
        super().__init__(card, device)
        self.net = net.eval().to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> Emu3Clip:
        """Reads `card.json` and `weights.safetensors`; CurateError where they do not belong together."""
        card, raw = read_folder(folder)
        return cls(card, _net(raw, card.name), device)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, size: int = 256) -> CodecCard:
        """As `Emu3Picture.import_checkpoint`, for clips."""
        card, raw, net = _imported(source, folder.name, size, video=True)
        card = card.model_copy(update={"batch_invariance": batch_difference(cls(card, net))})
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    def ids_of(self, clip: Tensor) -> Tensor:
        first = clip[:1].expand(self.stride, -1, -1, -1)
        return _ids(self.net, torch.cat([first, clip[1:]])[None])[0]

    def pixels_of(self, ids: Tensor) -> Tensor:
        frames = self.net.decode(ids[None])[0]
        return torch.cat([frames[:1], frames[self.stride :]])


def _ids(net: Any, frames: Tensor) -> Tensor:
    """`(n, 4 t, 3, H, W)` to ids `(n, t, h, w)`.

    Not by `net.encode`, which cuts the ids of a clip by height and width along its first two axes, time and height.
    """
    latents = net.quant_conv(net.encoder(frames).permute(0, 2, 1, 3, 4)).permute(0, 2, 1, 3, 4).float()
    # One step at a time: the distances of all cells to all codes are 0.5 GB for one of 512 x 512 pixels.
    steps = [net.quantize(latents[:, t : t + 1]) for t in range(latents.shape[1])]
    return torch.cat(steps, dim=1)


def _imported(source: str, name: str, size: int, video: bool) -> tuple[CodecCard, bytes, Any]:
    prefix, tensors = read_part(source, ANCHOR, ("model.vqmodel.", "vqmodel.", ""), ("*.safetensors", "*.bin"))
    told = read_json(source, "config.json")
    config = _config(told.get("vq_config", told if prefix == "" else {}))
    stride = 2 ** (len(config.channel_multiplier) - 1)
    if size % stride:
        raise CurateError(f"pictures of {size} px do not divide into cells of {stride} px")
    raw = write_weights(_renamed(tensors), {"config": config.to_diff_dict()})
    net = _net(raw, source)
    mean, std = normalisation(read_json(source, "preprocessor_config.json"), 0.5, 0.5)
    steps = config.temporal_downsample_factor
    card = CodecCard(
        name=name,
        architecture="emu3-vq-video" if video else "emu3-vq",
        modality="video" if video else "image",
        stream=f"tok_video@{size}" if video else f"tok_rgb@{size}",
        quantiser="vq",
        index_order=NEAREST,
        vocabulary=config.codebook_size,
        dtype=smallest_unsigned(config.codebook_size),
        grid=(size // stride, size // stride),
        temporal_stride=steps if video else None,
        input_size=size,
        channels=3,
        input=(
            f"uint8 sRGB (T, {size}, {size}, 3), T = 1 + {steps} k; the first frame is encoded {steps} times"
            if video
            else f"uint8 sRGB ({size}, {size}, 3) or (N, {size}, {size}, 3), encoded as {steps} equal frames"
        )
        + ". The publisher keeps the shape of a picture and rounds its sides to multiples of 8; here it is cropped"
        + PICTURES,
        preprocessing=Preprocessing(resize="short_side", resample="lanczos", crop="centre", mean=mean, std=std),
        chunking="a clip is encoded whole: ids of its parts would differ at the seams" if video else "",
        weights_digest=digest(raw),
        code_version=code_version("torch", "transformers"),
        parameters=sum(p.numel() for p in net.parameters()),
        trained_on=TRAINED_ON,
        licence=LICENCE,
    )
    return card, raw, net


def _renamed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors under the names of `transformers`, float32; those that have them already stay."""
    out = {}
    theirs = any(".mid." in key for key in tensors)
    for key, value in tensors.items():
        for old, new in RENAMED if theirs else ():
            key = re.sub(old, new, key)
        if re.search(r"(_proj)\.weight$", key) and value.ndim == 4:
            value = value.flatten(1)
        out[key] = as_float32(value)
    return out


def _config(told: Mapping[str, Any]) -> Emu3VQVAEConfig:
    ensure_torchvision()
    from transformers import Emu3VQVAEConfig

    names = Emu3VQVAEConfig().to_dict().keys() - {"model_type", "transformers_version", "_name_or_path"}
    given = {CONFIG_NAMES.get(name, name): value for name, value in told.items()}
    config = Emu3VQVAEConfig(**{name: value for name, value in given.items() if name in names})
    # The publisher's configuration does not say it: attention is as wide as the deepest level.
    config.hidden_size = config.base_channels * config.channel_multiplier[-1]
    return config


def _net(raw: bytes, name: str) -> Any:
    ensure_torchvision()
    from transformers import Emu3VQVAE

    words, tensors = open_weights(raw)
    with torch.random.fork_rng(devices=[]):  # the random start is overwritten, and must not move the caller's state
        net = Emu3VQVAE(_config(words["config"]))
    load_state_strict(net, tensors, name)
    return net
