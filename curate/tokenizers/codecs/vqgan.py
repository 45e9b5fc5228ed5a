"""VQGAN (Esser et al. 2021, arXiv 2012.09841): its network, and the pieces that codecs with another layout share.

The network is that of `transformers`' `JanusVQVAE`: residual blocks of GroupNorm (32 groups, eps 1e-6), SiLU and 3x3
convolutions, attention at the lowest resolution, stride 2 between levels. taming-transformers, IBQ and LlamaGen have
the same layers under other names; weights keep the names that their publisher gave them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import infer_depth, moving_averages, rename_state, required, sizes_of
from curate.tokenizers.grid import GridNet, Imported, nearest_code, square_grid

Metric = Literal["euclid", "cosine", "dot"]

_RULES = {
    "euclid": "of the nearest code",
    "cosine": "of the nearest code, latent and codes l2-normalised",
    "dot": "of the code with the greatest dot product",
}


class Chain(nn.Module):
    """Modules that run one after another, each registered under a dotted name."""

    def __init__(self) -> None:
        super().__init__()
        self.order: list[nn.Module] = []

    def step(self, name: str, module: nn.Module) -> None:
        """Appends a module as `name`, e.g. `down.0.block.1`."""
        *folders, last = name.split(".")
        at: nn.Module = self
        for part in folders:
            if part not in at._modules:
                at.add_module(part, nn.Module())
            at = at.get_submodule(part)
        at.add_module(last, module)
        self.order.append(module)

    def end(self, width: int, last: nn.Module) -> None:
        """Appends `norm_out`, SiLU and `conv_out`."""
        self.step("norm_out", norm(width))
        self.order.append(nn.SiLU())
        self.step("conv_out", last)

    def forward(self, x: Tensor) -> Tensor:
        for module in self.order:
            x = module(x)
        return x


class Residual(nn.Module):
    """Pre-activation residual block; a 1x1 convolution on the shortcut where the width changes. No biases."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.norm1 = norm(wide_in)
        self.conv1 = nn.Conv2d(wide_in, wide_out, 3, padding=1, bias=False)
        self.norm2 = norm(wide_out)
        self.conv2 = nn.Conv2d(wide_out, wide_out, 3, padding=1, bias=False)
        if wide_in != wide_out:
            self.nin_shortcut = nn.Conv2d(wide_in, wide_out, 1, bias=False)

    def inner(self, x: Tensor) -> Tensor:
        x = self.conv1(functional.silu(self.norm1(x)))
        done: Tensor = self.conv2(functional.silu(self.norm2(x)))
        return done

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        return shortcut + self.inner(x)


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


class Codebook(nn.Module):
    """A table of vectors `embedding`, and which of them is a latent's.

    `euclid`: the nearest; `cosine`: latents and codes on the unit sphere, the nearest; `dot`: the greatest dot product
    (IBQ, Shi et al. 2024, arXiv 2412.02692, section 3.2: the argmax over the logits z.e).
    """

    def __init__(self, codes: int, width: int, metric: Metric) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codes, width)
        self.metric = metric

    def table(self) -> Tensor:
        weight = self.embedding.weight.float()
        return functional.normalize(weight, dim=1) if self.metric == "cosine" else weight

    def ids(self, z: Tensor) -> Tensor:
        """`(n, d, h, w)` to int64 `(n, h, w)`, in fp32."""
        n, d, h, w = z.shape
        rows = z.float().permute(0, 2, 3, 1).reshape(-1, d)
        if self.metric == "cosine":
            rows = functional.normalize(rows, dim=1)
        return nearest_code(rows, self.table(), "dot" if self.metric == "dot" else "euclid").reshape(n, h, w)

    def vectors(self, ids: Tensor) -> Tensor:
        """int64 `(n, h, w)` to `(n, d, h, w)`."""
        return functional.embedding(ids, self.table()).permute(0, 3, 1, 2)


class VQGAN(GridNet):
    """Encoder, codebook and decoder under one publisher's names; images in [-1, 1].

    Args:
        published: names of tensors, from those of `transformers`.
        width: channels at full resolution.
        multipliers: channels of each level over `width`; each level but the last halves the sides.
        blocks: residual blocks of a level of the encoder; the decoder has one more.
        latent: channels between encoder and quantiser's projection.
        codes, code_width: the codebook.
    """

    def __init__(
        self,
        published: Callable[[str], str],
        metric: Metric,
        width: int,
        multipliers: Sequence[int],
        blocks: int,
        latent: int,
        codes: int,
        code_width: int,
    ) -> None:
        super().__init__()
        ensure_torchvision()
        from transformers import JanusVQVAEConfig
        from transformers.models.janus import modeling_janus

        janus: Any = modeling_janus

        config: Any = JanusVQVAEConfig(
            base_channels=width, channel_multiplier=list(multipliers), num_res_blocks=blocks, latent_channels=latent
        )
        self.stride = 1 << (len(multipliers) - 1)
        self.encoder: nn.Module = janus.JanusVQVAEEncoder(config)
        self.decoder: nn.Module = janus.JanusVQVAEDecoder(config)
        self.quantize = Codebook(codes, code_width, metric)
        self.quant_conv = nn.Conv2d(latent, code_width, 1)
        self.post_quant_conv = nn.Conv2d(code_width, latent, 1)
        rename_state(self, published)

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size = 256 if size is None else size
        return {
            "index_order": f"id = row of the codebook {_RULES[self.quantize.metric]}; cells in row-major order",
            "vocabulary": self.quantize.embedding.num_embeddings,
            "grid": square_grid(f"a VQGAN of stride {self.stride}", size, self.stride),
            "input_size": size,
        }

    def ids(self, x: Tensor) -> Tensor:
        return self.quantize.ids(self.quant_conv(self.encoder(x)))

    def images(self, ids: Tensor) -> Tensor:
        done: Tensor = self.decoder(self.post_quant_conv(self.quantize.vectors(ids)))
        return done


def finest_first(levels: int) -> Callable[[str], str]:
    """Names of taming-transformers: level 0 of the decoder is the one of full resolution, not the first to run."""
    return lambda key: re.sub(r"(^|\.)up\.(\d+)\.", lambda m: f"{m[1]}up.{levels - 1 - int(m[2])}.", key)


def vqgan_shape(
    state: Mapping[str, Tensor], path: Path, down: str = "down", block: str = "block", latent: str = "latent"
) -> dict[str, Any]:
    """The sizes of a VQGAN's convolutions from its tensors; `down`, `block` and `latent`: names of them."""
    width = sizes_of(state, "encoder.conv_in.weight", 4, path)[0]
    levels = [f"encoder.{down}.{i}.{block}" for i in range(infer_depth(state, f"encoder.{down}."))]
    required(state, f"encoder.{down}.0.{block}.0.conv1.weight", path)
    return {
        "width": width,
        "multipliers": [sizes_of(state, f"{level}.0.conv1.weight", 4, path)[0] // width for level in levels],
        "blocks": infer_depth(state, f"{levels[0]}."),
        latent: sizes_of(state, "encoder.conv_out.weight", 4, path)[0],
    }


class TamingVQGAN(Imported):
    """VQGAN of taming-transformers, f16 with 1024 or 16384 codes of 256 (`vqgan_imagenet_f16_16384`): `last.ckpt`.

    Its f8 Gumbel variant has another quantiser and does not fit.
    """

    architecture = "taming-vqgan"
    licence = "MIT (CompVis/taming-transformers); trained on ImageNet, whose terms are its own"
    packages = ("torch", "transformers")
    metric: Metric = "euclid"

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return moving_averages(state)

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        codes, code_width = sizes_of(state, "quantize.embedding.weight", 2, path)
        return vqgan_shape(state, path) | {"codes": codes, "code_width": code_width}

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return VQGAN(finest_first(len(shape["multipliers"])), cls.metric, **shape)


class IBQ(TamingVQGAN):
    """`TencentARC/IBQ-Tokenizer-*`: a VQGAN with 1024 to 262144 codes of 256, chosen by the greatest dot product.

    Shi et al. 2024 (arXiv 2412.02692). The moving averages of the checkpoint are taken, as in its publisher's
    evaluation.
    """

    architecture = "ibq"
    patterns = ("*.safetensors", "*.ckpt")
    licence = "Apache-2.0 (TencentARC/SEED-Voken)"
    metric = "dot"
