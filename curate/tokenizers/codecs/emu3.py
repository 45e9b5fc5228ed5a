"""Emu3's vision tokenizer (Wang et al. 2024, arXiv 2409.18869, section 2.2): 8x8 pixels and 4 frames to one of 32768.

The network is `transformers`' `Emu3VQVAE`. Weights are read under its names (`model.vqmodel.` of whole checkpoints) and
under those of `BAAI/Emu3-VisionTokenizer`, whose attention has 1x1 convolutions in place of linear layers.

An image is encoded as four equal frames, as the publisher does. All its convolutions in time look back only, so a clip
of 1 + 4k frames is encoded as its first frame four times and then the rest: 1 + k steps, the first of which are the
image's ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from curate.models.batches import finite, in_fp32
from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import read_beside, read_part
from curate.tokenizers.codecs.chameleon import ANCHOR, NEAREST, config_of, normalisation
from curate.tokenizers.grid import ClipTokenizer, GridNet, Imported, square_grid
from curate.tokenizers.inputs import IMAGE_INPUT

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


class Emu3Net(GridNet):
    """Args: config: fields of `Emu3VQVAEConfig`; mean, std: see `GridNet`; default: side where none is asked for."""

    def __init__(self, config: Mapping[str, Any], mean: Any = (), std: Any = (), default: int = 512) -> None:
        super().__init__()
        ensure_torchvision()
        from transformers import Emu3VQVAE

        self.config, self.default = _config(config), default
        self.mean, self.std = mean, std
        net: Any = Emu3VQVAE(self.config)
        for name, module in net.named_children():
            self.add_module(name, module)
        self._decode = net.decode

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size, stride = self.default if size is None else size, 2 ** (len(self.config.channel_multiplier) - 1)
        steps = self.config.temporal_downsample_factor
        return {
            "index_order": NEAREST,
            "vocabulary": self.config.codebook_size,
            "grid": square_grid("Emu3's tokenizer", size, stride),
            "input_size": size,
            "input": f"uint8 sRGB {self.form(size, steps)}. The publisher keeps the shape of an image and rounds its "
            f"sides to multiples of 8; here it is cropped{IMAGE_INPUT}",
        }

    def form(self, size: int, steps: int) -> str:
        """An item's shape, and how it becomes frames, in words."""
        return f"({size}, {size}, 3) or (N, {size}, {size}, 3), encoded as {steps} equal frames"

    def ids(self, x: Tensor) -> Tensor:
        return self.ids_of_frames(x[:, None].expand(-1, self.config.temporal_downsample_factor, -1, -1, -1))[:, 0]

    def images(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self._decode(ids))

    def ids_of_frames(self, frames: Tensor) -> Tensor:
        """`(n, 4 t, 3, H, W)` to ids `(n, t, h, w)`.

        Not by `net.encode`, which cuts the ids of a clip by height and width along its first two axes, time and height.
        """
        net = cast(Any, self)
        latents = finite(net.quant_conv(net.encoder(frames).permute(0, 2, 1, 3, 4)).permute(0, 2, 1, 3, 4))
        with in_fp32(latents):
            # One step at a time: the distances of all cells to all codes are 0.5 GB for one of 512 x 512 pixels.
            return torch.cat([net.quantize(latents[:, t : t + 1]) for t in range(latents.shape[1])], dim=1)


class Emu3ClipNet(Emu3Net):
    """The same over frames of a clip."""

    def card_fields(self, size: int | None) -> dict[str, Any]:
        return super().card_fields(size) | {"temporal_stride": self.config.temporal_downsample_factor}

    def form(self, size: int, steps: int) -> str:
        return f"(T, {size}, {size}, 3), T = 1 + {steps} k; the first frame is encoded {steps} times"

    def ids(self, x: Tensor) -> Tensor:
        first = x[:1].expand(self.config.temporal_downsample_factor, -1, -1, -1)
        return self.ids_of_frames(torch.cat([first, x[1:]])[None])[0]

    def images(self, ids: Tensor) -> Tensor:
        frames = cast(Tensor, self._decode(ids[None]))[0]
        return torch.cat([frames[:1], frames[self.config.temporal_downsample_factor :]])


class Emu3Image(Imported):
    """Emu3's VQ of images: `BAAI/Emu3-VisionTokenizer`, or that part of a whole checkpoint of `transformers`' Emu3.

    `config.json` and `preprocessor_config.json` beside the weights are used where there are such, the published values
    otherwise. A side is a multiple of 8, 512 where none is given.
    """

    architecture = "emu3-vq"
    patterns = ("*.safetensors", "*.bin")
    packages = ("torch", "transformers")

    @classmethod
    def read(cls, source: str, file: str | None) -> tuple[Path, dict[str, Tensor]]:
        return read_part(source, ANCHOR, ("model.vqmodel.", "vqmodel.", ""), (file,) if file else cls.patterns)

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tensors under the names of `transformers`; those that have them already stay."""
        out = {}
        theirs = any(".mid." in key for key in state)
        for key, value in state.items():
            for old, new in RENAMED if theirs else ():
                key = re.sub(old, new, key)
            out[key] = value.flatten(1) if key.endswith("_proj.weight") and value.ndim == 4 else value
        return out

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        told = read_beside(path)
        return {"config": _config(told.get("vq_config", told)).to_diff_dict()} | normalisation(path, 0.5)

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return Emu3Net(**shape)


class Emu3Clip(ClipTokenizer, Emu3Image):
    """Emu3's VQ of clips `(1 + 4k, H, W, 3)`; a side is 256 where none is given."""

    architecture = "emu3-vq-video"

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return Emu3ClipNet(**shape, default=256)


def _config(told: Mapping[str, Any]) -> Any:
    ensure_torchvision()
    from transformers import Emu3VQVAEConfig

    config = config_of(Emu3VQVAEConfig, {CONFIG_NAMES.get(name, name): value for name, value in told.items()})
    # The publisher's configuration does not say it: attention is as wide as the deepest level.
    config.hidden_size = config.base_channels * config.channel_multiplier[-1]
    return config
