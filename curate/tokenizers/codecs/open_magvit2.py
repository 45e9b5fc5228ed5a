"""SEED-Voken's tokenizers: Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410) and IBQ (Shi et al. 2024, 2412.02692)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.tokenizers.codecs.taming import (
    VQGAN,
    Chain,
    Names,
    Residual,
    norm,
    preprocessing,
    shape_from,
    vqgan_shape,
)
from curate.tokenizers.image_grids import (
    PictureNet,
    PictureTokenizer,
    averaged,
    count,
    grid_of,
    sides,
    tensor,
)


class IBQ(PictureTokenizer):
    """`TencentARC/IBQ-Tokenizer-*`: a VQGAN with 1024 to 262144 codes of 256, chosen by the greatest dot product.

    The moving averages of the checkpoint are taken, as in its publisher's evaluation.
    """

    architecture = "ibq"
    patterns = ("*.safetensors", "*.ckpt")
    licence = "Apache-2.0 (TencentARC/SEED-Voken)"

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return averaged(state)

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        return vqgan_shape(state, path, Names())

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        return VQGAN(shape_from(shape), Names(), "dot")


@dataclass(frozen=True)
class LFQShape:
    """Sizes of an Open-MAGVIT2: as `taming.Shape`; `bits` is the count of latent channels, 18 or 14."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    bits: int


class AdaptiveNorm(nn.Module):
    """GroupNorm whose scale and bias come from the standard deviation and the mean of each latent channel.

    scale = gamma(sqrt(var(z) + eps)), bias = beta(mean(z)), over all positions, var with Bessel's correction.
    """

    def __init__(self, bits: int, width: int) -> None:
        super().__init__()
        self.gn = nn.GroupNorm(32, width, eps=1e-6, affine=False)
        self.gamma = nn.Linear(bits, width)
        self.beta = nn.Linear(bits, width)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        cells = z.flatten(2)
        scale = self.gamma((cells.var(2) + self.gn.eps).sqrt())[:, :, None, None]
        done: Tensor = scale * self.gn(x) + self.beta(cells.mean(2))[:, :, None, None]
        return done


class DepthToSpace(nn.Module):
    """Doubles the sides: a 3x3 convolution to 4c channels, of which (2i + j) c + k is channel k of pixel (i, j)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, 4 * width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        n, c, h, w = x.shape
        return x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


class StyledChain(Chain):
    """A chain whose adaptive normalisations see the chain's own input too."""

    def forward(self, x: Tensor) -> Tensor:
        z = x
        for module in self.order:
            x = module(x, z) if isinstance(module, AdaptiveNorm) else module(x)
        return x


class OpenMagvit2Net(PictureNet):
    """MAGVIT-v2's picture codec as Open-MAGVIT2 builds it; pictures in [-1, 1], codes -1 or +1 in each channel."""

    def __init__(self, shape: LFQShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = _encoder(shape)
        self.decoder = _decoder(shape)

    def facts(self, size: int | None) -> dict[str, Any]:
        size, stride, bits = 256 if size is None else size, 1 << (len(self.shape.multipliers) - 1), self.shape.bits
        return {
            "quantiser": "lfq",
            "levels": [2] * bits,
            "bit_order": "lsb",
            "index_order": (
                "id = sum over channels i of 2^i where the latent is greater than 0; channel 0 is the least "
                "significant bit; cells in row-major order"
            ),
            "vocabulary": 1 << bits,
            "grid": grid_of("Open-MAGVIT2", size, stride),
            "input_size": size,
            "preprocessing": preprocessing(self.mean, self.std),
        }

    def ids(self, x: Tensor) -> Tensor:
        bits = self.encoder(x).float() > 0
        ids: Tensor = (bits.long() << self._places(x)).sum(1)
        return ids

    def pictures(self, ids: Tensor) -> Tensor:
        codes = ((ids[:, None] >> self._places(ids)) & 1).float() * 2 - 1
        done: Tensor = self.decoder(codes)
        return done

    def _places(self, like: Tensor) -> Tensor:
        return torch.arange(self.shape.bits, device=like.device)[None, :, None, None]


def _encoder(shape: LFQShape) -> Chain:
    chain, wide, last = Chain(), shape.width, len(shape.multipliers) - 1
    chain.step("conv_in", nn.Conv2d(3, wide, 3, padding=1, bias=False))
    for i, multiplier in enumerate(shape.multipliers):
        for j in range(shape.blocks):
            chain.step(f"down.{i}.block.{j}", Residual(wide, shape.width * multiplier, bias=False))
            wide = shape.width * multiplier
        if i != last:
            chain.step(f"down.{i}.downsample", nn.Conv2d(wide, wide, 3, stride=2, padding=1))
    for j in range(shape.blocks):
        chain.step(f"mid_block.{j}", Residual(wide, wide, bias=False))
    chain.step("norm_out", norm(wide))
    chain.order.append(nn.SiLU())
    chain.step("conv_out", nn.Conv2d(wide, shape.bits, 1))
    return chain


def _decoder(shape: LFQShape) -> Chain:
    chain, wide = StyledChain(), shape.width * shape.multipliers[-1]
    chain.step("conv_in", nn.Conv2d(shape.bits, wide, 3, padding=1))
    for j in range(shape.blocks):
        chain.step(f"mid_block.{j}", Residual(wide, wide, bias=False))
    for i in reversed(range(len(shape.multipliers))):
        chain.step(f"adaptive.{i}", AdaptiveNorm(shape.bits, wide))
        for j in range(shape.blocks):
            chain.step(f"up.{i}.block.{j}", Residual(wide, shape.width * shape.multipliers[i], bias=False))
            wide = shape.width * shape.multipliers[i]
        if i:
            chain.step(f"up.{i}.upsample", DepthToSpace(wide))
    chain.step("norm_out", norm(wide))
    chain.order.append(nn.SiLU())
    chain.step("conv_out", nn.Conv2d(wide, 3, 3, padding=1))
    return chain


class OpenMagvit2(PictureTokenizer):
    """`TencentARC/Open-MAGVIT2-Tokenizer-*`: pictures, stride 16, 2^18 or 2^14 ids. The video variant does not fit.

    The moving averages of the checkpoint are taken, as in its publisher's evaluation.
    """

    architecture = "open-magvit2"
    patterns = ("*.safetensors", "*.ckpt")
    licence = "Apache-2.0 (TencentARC/SEED-Voken)"

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return averaged(state)

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        width = sides(state, "encoder.conv_in.weight", 4, path)[0]
        tensor(state, "encoder.down.0.block.0.conv1.weight", path)
        levels = [f"encoder.down.{i}.block" for i in range(count(state, "encoder.down."))]
        shape = LFQShape(
            width=width,
            multipliers=tuple(sides(state, f"{level}.0.conv1.weight", 4, path)[0] // width for level in levels),
            blocks=count(state, f"{levels[0]}."),
            bits=sides(state, "encoder.conv_out.weight", 4, path)[0],
        )
        return asdict(shape)

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        return OpenMagvit2Net(LFQShape(**{**shape, "multipliers": tuple(shape["multipliers"])}))
