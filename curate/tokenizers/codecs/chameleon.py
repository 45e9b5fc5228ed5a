"""Chameleon's image tokenizer (Chameleon Team 2024, arXiv 2405.09818, section 2.1): 512 px to 32x32 of 8192 ids.

The encoder is `transformers`' `ChameleonVQVAE`. Whole checkpoints on the hub (`facebook/chameleon-7b`) hold it under
`model.vqmodel.` and without a decoder. Meta's own `vqgan.ckpt` (keys without prefix) holds the decoder too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from curate.tokenizers.folders import WEIGHTS, code_version, read_folder, write_folder
from curate.tokenizers.grids import Pictures, batch_difference
from curate.tokenizers.inputs import PICTURES

if TYPE_CHECKING:
    from transformers import ChameleonVQVAEConfig

ANCHOR = "quantize.embedding.weight"
NEAREST = (
    "id = row of the codebook vector nearest to the latent (squared Euclidean distance in fp32, the lowest row of "
    "equals); cells in row-major order"
)
# `rescale_factor` 0.0078 and `image_mean` 1 of the processor of the whole checkpoints, on values in [0, 1]: nearly,
# but not exactly, the [-1, 1] of Meta's own tokenizer.
HUB_SCALE = 1 / (0.0078 * 255)


class VQGANDecoder(nn.Module):
    """The decoder of VQGAN (Esser et al. 2021, arXiv 2012.09841), the encoder's mirror with one block more a level.

    Latents `(n, z, h, w)` to pictures `(n, 3, h 2^(levels - 1), ...)`. Parameters are named as in `vqgan.ckpt`.
    """

    def __init__(self, config: ChameleonVQVAEConfig) -> None:
        super().__init__()
        ensure_torchvision()
        from transformers.models.chameleon import modeling_chameleon

        # The encoder's blocks, which the decoder is made of too.
        residual: Any = modeling_chameleon.ChameleonVQVAEEncoderResnetBlock
        attention: Any = modeling_chameleon.ChameleonVQVAEEncoderAttnBlock
        widths = [config.base_channels * m for m in config.channel_multiplier]
        wide = widths[-1]
        self.conv_in = nn.Conv2d(config.latent_channels, wide, 3, padding=1)
        self.mid = nn.Module()
        self.mid.block_1 = residual(config, wide, wide)
        self.mid.attn_1 = attention(wide) if config.attn_type == "vanilla" else nn.Identity()
        self.mid.block_2 = residual(config, wide, wide)
        self.up = nn.ModuleList()
        attended = config.attn_resolutions or []
        for level, width in enumerate(widths):
            before = widths[min(level + 1, len(widths) - 1)]
            sizes = [(before if i == 0 else width, width) for i in range(config.num_res_blocks + 1)]
            up = nn.Module()
            up.block = nn.ModuleList(residual(config, a, b) for a, b in sizes)
            here = config.resolution // 2**level in attended and config.attn_type == "vanilla"
            up.attn = nn.ModuleList(attention(width) for _ in sizes if here)
            if level:
                up.upsample = nn.Module()
                up.upsample.conv = nn.Conv2d(width, width, 3, padding=1)
            self.up.append(up)
        self.norm_out = nn.GroupNorm(32, widths[0], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[0], getattr(config, "out_channels", 3), 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        h = self.conv_in(latents)
        mid = cast(Any, self.mid)
        h = mid.block_2(mid.attn_1(mid.block_1(h)))
        for level in range(len(self.up) - 1, -1, -1):
            up = cast(Any, self.up[level])
            for i, block in enumerate(up.block):
                h = block(h)
                if len(up.attn):
                    h = up.attn[i](h)
            if level:
                h = up.upsample.conv(functional.interpolate(h, scale_factor=2.0, mode="nearest"))
        return cast(Tensor, self.conv_out(functional.silu(self.norm_out(h))))


class ChameleonVQ(Pictures):
    """uint8 sRGB of the card's size to ids, and back where the weights hold a decoder."""

    def __init__(self, card: CodecCard, net: Any, device: str = "cpu") -> None:
        super().__init__(card, device)
        self.net = net.eval().to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> ChameleonVQ:
        """Reads `card.json` and `weights.safetensors`; CurateError where they do not belong together."""
        card, raw = read_folder(folder)
        return cls(card, _net(raw, card.name), device)

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, size: int | None = None) -> CodecCard:
        """Makes published weights into a folder of the zoo.

        Args:
            source: a file or folder with the VQ part alone, Meta's `vqgan.ckpt`, a whole checkpoint, or a hub id. Of
                a whole checkpoint only the VQ tensors are read. `config.json` (`vq_config` in that of a whole model)
                and `preprocessor_config.json` are used where there are such, the published values otherwise.
            folder: where to; its name becomes the tokenizer's.
            size: side of the pictures; None: the resolution of the configuration (512).

        Raises:
            CurateError: the weights cannot be had, or do not fit: it names key and shape.
        """
        prefixes = ("model.vqmodel.", "vqmodel.", "")
        prefix, tensors = read_part(source, ANCHOR, prefixes, ("*.safetensors", "*.ckpt", "*.bin"))
        told = read_json(source, "config.json")
        config = _config(told.get("vq_config", told if prefix == "" else {}))
        decodes = "decoder.conv_in.weight" in tensors
        size = size or int(config.resolution)
        stride = 2 ** (len(config.channel_multiplier) - 1)
        if size % stride:
            raise CurateError(f"pictures of {size} px do not divide into cells of {stride} px")
        kept = {k: as_float32(v) for k, v in tensors.items() if not k.startswith("loss.")}
        raw = write_weights(kept, {"config": config.to_diff_dict(), "decoder": decodes})
        net = _net(raw, source)
        scale = 0.5 if decodes else HUB_SCALE
        mean, std = normalisation(read_json(source, "preprocessor_config.json"), scale, scale)
        card = CodecCard(
            name=folder.name,
            architecture="chameleon-vq",
            modality="image",
            stream=f"tok_rgb@{size}",
            quantiser="vq",
            index_order=f"{NEAREST}. Not the ids of Chameleon's language model, which are permuted",
            vocabulary=config.num_embeddings,
            dtype=smallest_unsigned(config.num_embeddings),
            grid=(size // stride, size // stride),
            input_size=size,
            channels=3,
            input=f"uint8 sRGB ({size}, {size}, 3) or (N, {size}, {size}, 3){PICTURES}",
            preprocessing=Preprocessing(resize="short_side", resample="lanczos", crop="centre", mean=mean, std=std),
            weights_digest=digest(raw),
            code_version=code_version("torch", "transformers"),
            parameters=sum(p.numel() for p in net.parameters()),
            trained_on=TRAINED_ON,
            licence=LICENCE,
        )
        card = card.model_copy(update={"batch_invariance": batch_difference(cls(card, net))})
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    def ids_of(self, pictures: Tensor) -> Tensor:
        latents = self.net.quant_conv(self.net.encoder(pictures)).float()
        return cast(Tensor, self.net.quantize(latents)[2].view(len(pictures), *self.grid))

    def pixels_of(self, ids: Tensor) -> Tensor:
        """Raises CurateError where the weights came without a decoder."""
        if not hasattr(self.net, "decoder"):
            raise CurateError(
                f"{self.card.name} cannot decode: checkpoints of the whole model leave the decoder out",
                "import Meta's tokenizer/vqgan.ckpt, which holds it",
            )
        codes = self.net.quantize.embedding(ids).permute(0, 3, 1, 2)
        return cast(Tensor, self.net.decoder(self.net.post_quant_conv(codes)))


def _config(told: Mapping[str, Any]) -> ChameleonVQVAEConfig:
    ensure_torchvision()
    from transformers import ChameleonVQVAEConfig

    names = ChameleonVQVAEConfig().to_dict().keys() - {"model_type", "transformers_version", "_name_or_path"}
    return ChameleonVQVAEConfig(**{name: value for name, value in told.items() if name in names})


def _net(raw: bytes, name: str) -> Any:
    ensure_torchvision()
    from transformers import ChameleonVQVAE

    words, tensors = open_weights(raw)
    config = _config(words["config"])
    with torch.random.fork_rng(devices=[]):  # the random start is overwritten, and must not move the caller's state
        net = ChameleonVQVAE(config)
        if words["decoder"]:
            net.decoder = VQGANDecoder(config)
    load_state_strict(net, tensors, name)
    return net
