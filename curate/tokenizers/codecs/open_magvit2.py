"""SEED-Voken's Open-MAGVIT2 (Luo et al. 2024, arXiv 2409.04410): MAGVIT-v2's image codec, lookup-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.models.batches import finite
from curate.models.weights import moving_averages
from curate.tokenizers.codecs.vqgan import Chain, Residual, vqgan_shape
from curate.tokenizers.grid import GridNet, Imported, square_grid


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


class OpenMagvit2Net(GridNet):
    """Images in [-1, 1], codes -1 or +1 in each of `bits` latent channels; the other sizes as `VQGAN`'s."""

    def __init__(self, width: int, multipliers: Sequence[int], blocks: int, bits: int) -> None:
        super().__init__()
        self.bits, self.stride = bits, 1 << (len(multipliers) - 1)
        widths = [width * m for m in multipliers]
        self.encoder = _encoder(width, widths, blocks, bits)
        self.decoder = _decoder(widths, blocks, bits)

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size = 256 if size is None else size
        return {
            "quantiser": "lfq",
            "levels": [2] * self.bits,
            "bit_order": "lsb",
            "index_order": (
                "id = sum over channels i of 2^i where the latent is greater than 0; channel 0 is the least "
                "significant bit; cells in row-major order"
            ),
            "vocabulary": 1 << self.bits,
            "grid": square_grid("Open-MAGVIT2", size, self.stride),
            "input_size": size,
        }

    def ids(self, x: Tensor) -> Tensor:
        bits = finite(self.encoder(x)) > 0
        ids: Tensor = (bits.long() << self._places(x)).sum(1)
        return ids

    def images(self, ids: Tensor) -> Tensor:
        codes = ((ids[:, None] >> self._places(ids)) & 1).float() * 2 - 1
        done: Tensor = self.decoder(codes)
        return done

    def _places(self, like: Tensor) -> Tensor:
        return torch.arange(self.bits, device=like.device)[None, :, None, None]


def _encoder(width: int, widths: Sequence[int], blocks: int, bits: int) -> Chain:
    chain, wide = Chain(), width
    chain.step("conv_in", nn.Conv2d(3, wide, 3, padding=1, bias=False))
    for i, level in enumerate(widths):
        for j in range(blocks):
            chain.step(f"down.{i}.block.{j}", Residual(wide, level))
            wide = level
        if i + 1 < len(widths):
            chain.step(f"down.{i}.downsample", nn.Conv2d(wide, wide, 3, stride=2, padding=1))
    for j in range(blocks):
        chain.step(f"mid_block.{j}", Residual(wide, wide))
    chain.end(wide, nn.Conv2d(wide, bits, 1))
    return chain


def _decoder(widths: Sequence[int], blocks: int, bits: int) -> Chain:
    chain, wide = StyledChain(), widths[-1]
    chain.step("conv_in", nn.Conv2d(bits, wide, 3, padding=1))
    for j in range(blocks):
        chain.step(f"mid_block.{j}", Residual(wide, wide))
    for i, level in reversed(list(enumerate(widths))):
        chain.step(f"adaptive.{i}", AdaptiveNorm(bits, wide))
        for j in range(blocks):
            chain.step(f"up.{i}.block.{j}", Residual(wide, level))
            wide = level
        if i:
            chain.step(f"up.{i}.upsample", DepthToSpace(wide))
    chain.end(wide, nn.Conv2d(wide, 3, 3, padding=1))
    return chain


class OpenMagvit2(Imported):
    """`TencentARC/Open-MAGVIT2-Tokenizer-*`: images, stride 16, 2^18 or 2^14 ids. The video variant does not fit.

    The moving averages of the checkpoint are taken, as in its publisher's evaluation.
    """

    architecture = "open-magvit2"
    patterns = ("*.safetensors", "*.ckpt")
    licence = "Apache-2.0 (TencentARC/SEED-Voken)"

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return moving_averages(state)

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        return vqgan_shape(state, path, latent="bits")

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return OpenMagvit2Net(**shape)
