"""VQGAN's convolutional encoder and decoder (Esser et al. 2021, arXiv 2012.09841), and the codecs made of them.

Residual blocks of GroupNorm (32 groups, eps 1e-6), SiLU and 3x3 convolutions, attention at the lowest resolution,
stride 2 between levels. taming-transformers, IBQ and LlamaGen use the same layers under other names, which is what
`Names` is for: weights keep the names that their publisher gave them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.tokenizers.image_grids import (
    PictureNet,
    PictureTokenizer,
    averaged,
    count,
    grid_of,
    nearest,
    sides,
    tensor,
)

Metric = Literal["euclid", "cosine", "dot"]


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

    def forward(self, x: Tensor) -> Tensor:
        for module in self.order:
            x = module(x)
        return x


class Residual(nn.Module):
    """Pre-activation residual block; a 1x1 convolution on the shortcut where the width changes."""

    def __init__(self, wide_in: int, wide_out: int, bias: bool = True) -> None:
        super().__init__()
        self.norm1 = norm(wide_in)
        self.conv1 = nn.Conv2d(wide_in, wide_out, 3, padding=1, bias=bias)
        self.norm2 = norm(wide_out)
        self.conv2 = nn.Conv2d(wide_out, wide_out, 3, padding=1, bias=bias)
        if wide_in != wide_out:
            self.nin_shortcut = nn.Conv2d(wide_in, wide_out, 1, bias=bias)

    def inner(self, x: Tensor) -> Tensor:
        x = self.conv1(functional.silu(self.norm1(x)))
        done: Tensor = self.conv2(functional.silu(self.norm2(x)))
        return done

    def forward(self, x: Tensor) -> Tensor:
        shortcut: Tensor = self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x
        return shortcut + self.inner(x)


class Attention(nn.Module):
    """One head of attention over all positions, its projections 1x1 convolutions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = norm(width)
        self.q = nn.Conv2d(width, width, 1)
        self.k = nn.Conv2d(width, width, 1)
        self.v = nn.Conv2d(width, width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        q, k, v = (f(h).flatten(2).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(1, 2) * x.shape[1] ** -0.5, dim=2) @ v
        done: Tensor = x + self.proj_out(mixed.transpose(1, 2).reshape(x.shape))
        return done


class Down(nn.Module):
    """Halves the sides: a 3x3 convolution of stride 2, padded by one row below and one column to the right."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        done: Tensor = self.conv(functional.pad(x, (0, 1, 0, 1)))
        return done


class Up(nn.Module):
    """Doubles the sides: nearest neighbour, then a 3x3 convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        done: Tensor = self.conv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return done


def norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, width, eps=1e-6)


@dataclass(frozen=True)
class Names:
    """How a publisher calls the layers.

    Attributes:
        down, up: the levels of encoder and decoder.
        block: the residual blocks of a level.
        mid: residual block, attention, residual block at the lowest resolution.
        deepest_first: whether the decoder's level 0 is the first to run, or the one of full resolution.
    """

    down: str = "down"
    up: str = "up"
    block: str = "block"
    mid: tuple[str, str, str] = ("block_1", "attn_1", "block_2")
    deepest_first: bool = False


@dataclass(frozen=True)
class Shape:
    """Sizes of a VQGAN.

    Attributes:
        width: channels at full resolution.
        multipliers: channels of each level over `width`; each level but the last halves the sides.
        blocks: residual blocks of a level of the encoder; the decoder has one more.
        latent: channels between encoder and quantiser's projection.
        codes, code_width: the codebook.
    """

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    latent: int
    codes: int
    code_width: int


def encoder(shape: Shape, names: Names) -> Chain:
    """`(n, 3, H, W)` to `(n, latent, H / stride, W / stride)`."""
    chain, wide, last = Chain(), shape.width, len(shape.multipliers) - 1
    chain.step("conv_in", nn.Conv2d(3, wide, 3, padding=1))
    for i, multiplier in enumerate(shape.multipliers):
        for j in range(shape.blocks):
            chain.step(f"{names.down}.{i}.{names.block}.{j}", Residual(wide, shape.width * multiplier))
            wide = shape.width * multiplier
            if i == last:
                chain.step(f"{names.down}.{i}.attn.{j}", Attention(wide))
        if i != last:
            chain.step(f"{names.down}.{i}.downsample", Down(wide))
    _middle(chain, wide, names)
    _end(chain, wide, shape.latent)
    return chain


def decoder(shape: Shape, names: Names) -> Chain:
    """`(n, latent, h, w)` to `(n, 3, h * stride, w * stride)`."""
    chain, last = Chain(), len(shape.multipliers) - 1
    wide = shape.width * shape.multipliers[-1]
    chain.step("conv_in", nn.Conv2d(shape.latent, wide, 3, padding=1))
    _middle(chain, wide, names)
    for i in reversed(range(last + 1)):
        level = f"{names.up}.{last - i if names.deepest_first else i}"
        for j in range(shape.blocks + 1):
            chain.step(f"{level}.{names.block}.{j}", Residual(wide, shape.width * shape.multipliers[i]))
            wide = shape.width * shape.multipliers[i]
            if i == last:
                chain.step(f"{level}.attn.{j}", Attention(wide))
        if i:
            chain.step(f"{level}.upsample", Up(wide))
    _end(chain, wide, 3)
    return chain


def _middle(chain: Chain, wide: int, names: Names) -> None:
    for name, module in zip(names.mid, (Residual(wide, wide), Attention(wide), Residual(wide, wide)), strict=True):
        chain.step(f"mid.{name}", module)


def _end(chain: Chain, wide: int, out: int) -> None:
    chain.step("norm_out", norm(wide))
    chain.order.append(nn.SiLU())
    chain.step("conv_out", nn.Conv2d(wide, out, 3, padding=1))


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
        return nearest(rows, self.table(), "dot" if self.metric == "dot" else "euclid").reshape(n, h, w)

    def vectors(self, ids: Tensor) -> Tensor:
        """int64 `(n, h, w)` to `(n, d, h, w)`."""
        return functional.embedding(ids, self.table()).permute(0, 3, 1, 2)


class VQGAN(PictureNet):
    """Encoder, codebook and decoder under one publisher's names; pictures in [-1, 1]."""

    def __init__(self, shape: Shape, names: Names, metric: Metric) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = encoder(shape, names)
        self.decoder = decoder(shape, names)
        self.quantize = Codebook(shape.codes, shape.code_width, metric)
        self.quant_conv = nn.Conv2d(shape.latent, shape.code_width, 1)
        self.post_quant_conv = nn.Conv2d(shape.code_width, shape.latent, 1)

    def facts(self, size: int | None) -> dict[str, Any]:
        size, stride = 256 if size is None else size, 1 << (len(self.shape.multipliers) - 1)
        rule = {
            "euclid": "of the nearest code",
            "cosine": "of the nearest code, latent and codes l2-normalised",
            "dot": "of the code with the greatest dot product",
        }[self.quantize.metric]
        return {
            "quantiser": "vq",
            "index_order": f"id = row of the codebook {rule}; cells in row-major order",
            "vocabulary": self.shape.codes,
            "grid": grid_of(f"a VQGAN of stride {stride}", size, stride),
            "input_size": size,
            "preprocessing": preprocessing(self.mean, self.std),
        }

    def ids(self, x: Tensor) -> Tensor:
        return self.quantize.ids(self.quant_conv(self.encoder(x)))

    def pictures(self, ids: Tensor) -> Tensor:
        done: Tensor = self.decoder(self.post_quant_conv(self.quantize.vectors(ids)))
        return done


def preprocessing(mean: float, std: float) -> dict[str, Any]:
    """Short side to the size and centre crop, as these codecs were evaluated; mean and std for each colour."""
    return {
        "resize": "short_side",
        "resample": "lanczos",
        "crop": "centre",
        "mean": [mean] * 3,
        "std": [std] * 3,
    }


def vqgan_shape(state: Mapping[str, Tensor], path: Path, names: Names) -> dict[str, Any]:
    """The sizes of a VQGAN from the shapes of its tensors."""
    width = sides(state, "encoder.conv_in.weight", 4, path)[0]
    levels = [f"encoder.{names.down}.{i}.{names.block}" for i in range(count(state, f"encoder.{names.down}."))]
    codes, code_width = sides(state, "quantize.embedding.weight", 2, path)
    tensor(state, f"encoder.{names.down}.0.{names.block}.0.conv1.weight", path)
    shape = Shape(
        width=width,
        multipliers=tuple(sides(state, f"{level}.0.conv1.weight", 4, path)[0] // width for level in levels),
        blocks=count(state, f"{levels[0]}."),
        latent=sides(state, "encoder.conv_out.weight", 4, path)[0],
        codes=codes,
        code_width=code_width,
    )
    return asdict(shape)


def shape_from(held: Mapping[str, Any]) -> Shape:
    """A `Shape` as JSON gives it back."""
    return Shape(**{**held, "multipliers": tuple(held["multipliers"])})


class TamingVQGAN(PictureTokenizer):
    """VQGAN of taming-transformers, f16 with 1024 or 16384 codes of 256 (`vqgan_imagenet_f16_16384`): `last.ckpt`.

    Its f8 Gumbel variant has another quantiser and does not fit.
    """

    architecture = "taming-vqgan"
    licence = "MIT (CompVis/taming-transformers); trained on ImageNet, whose terms are its own"

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return averaged(state)

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        return vqgan_shape(state, path, Names())

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        return VQGAN(shape_from(shape), Names(), "euclid")
