"""The decoder of 4M's DiVAEs: a diffusion UNet over patches, told the codes (ml-4m, `unet_patched`).

The UNet is that of Dhariwal and Nichol 2021 (arXiv 2105.05233) without scale-shift norms; patches before and after it
as in arXiv 2207.04316; the codes, enlarged to the grid of patches, are more channels of its input (Shi et al. 2022,
arXiv 2206.00386). Names of modules are those of the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.schema.errors import CurateError
from curate.tokenizers.codecs.taming import Up
from curate.tokenizers.image_grids import count, sides

GROUPS = 32


@dataclass(frozen=True)
class UNetShape:
    """Sizes of the UNet.

    Attributes:
        width: of the sinusoids of time; four times that, of their embedding.
        levels: channels at each level, the finest first; each level but the last halves the grid.
        blocks: residual blocks of a level on the way down; one more on the way up.
        attends: whether a level's blocks are followed by attention.
        patch: pixels of a patch's side; channels: of the items; code_width: of the codes.
    """

    width: int
    levels: tuple[int, ...]
    blocks: int
    attends: tuple[bool, ...]
    patch: int
    channels: int
    code_width: int

    @property
    def multiple(self) -> int:
        """What an item's side is a multiple of."""
        return int(self.patch * 2 ** (len(self.levels) - 1))

    @classmethod
    def of_state(
        cls, state: Mapping[str, Tensor], prefix: str, channels: int, code_width: int, path: Path
    ) -> UNetShape:
        """Found from the names and shapes of tensors.

        Raises:
            CurateError: a tensor that every such file has is missing; it says which.
        """
        levels: list[int] = []
        attends: list[bool] = []
        down = f"{prefix}input_blocks."
        blocks = 0
        for i in range(1, count(state, down)):
            if f"{down}{i}.0.op.weight" in state:
                blocks = 0
                continue
            if blocks == 0:
                levels.append(sides(state, f"{down}{i}.0.in_layers.2.weight", 4, path)[0])
                attends.append(f"{down}{i}.1.qkv.weight" in state)
            blocks += 1
        taken = sides(state, f"{down}0.0.weight", 4, path)[1] - code_width
        return cls(
            width=sides(state, f"{prefix}time_embed.0.weight", 2, path)[1],
            levels=tuple(levels),
            blocks=blocks,
            attends=tuple(attends),
            patch=math.isqrt(max(1, taken // channels)),
            channels=channels,
            code_width=code_width,
        )


class Residual(nn.Module):
    """GroupNorm, SiLU, 3 x 3 twice, the embedded time added in the middle."""

    def __init__(self, into: int, out: int, time: int) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(nn.GroupNorm(GROUPS, into), nn.SiLU(), nn.Conv2d(into, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, out))
        self.out_layers = nn.Sequential(
            nn.GroupNorm(GROUPS, out), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if into == out else nn.Conv2d(into, out, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        inner = self.in_layers(x) + self.emb_layers(time)[:, :, None, None]
        done: Tensor = self.skip_connection(x) + self.out_layers(inner)
        return done


class Attention(nn.Module):
    """One head over all cells."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(GROUPS, width)
        self.qkv = nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        cells = x.flatten(2)
        q, k, v = self.qkv(self.norm(cells)).chunk(3, dim=1)
        weights = torch.softmax(q.transpose(1, 2) @ k * x.shape[1] ** -0.5, dim=2)
        mixed: Tensor = cells + self.proj_out(v @ weights.transpose(1, 2))
        return mixed.reshape(x.shape)


class Down(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        done: Tensor = self.op(x)
        return done


class Steps(nn.ModuleList):
    """Modules in a row, of which residual blocks are told the time."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__(modules)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        for module in self:
            x = module(x, time) if isinstance(module, Residual) else module(x)
        return x


class PatchedUNet(nn.Module):
    """Noisy items, their time and their codes to a prediction."""

    def __init__(self, shape: UNetShape) -> None:
        super().__init__()
        self.shape = shape
        time, width = 4 * shape.width, shape.levels[0]
        pixels = shape.channels * shape.patch**2
        self.time_embed = nn.Sequential(nn.Linear(shape.width, time), nn.SiLU(), nn.Linear(time, time))

        def block(into: int, level: int, more: tuple[nn.Module, ...] = ()) -> Steps:
            out = shape.levels[level]
            attention = (Attention(out),) if shape.attends[level] else ()
            return Steps(Residual(into, out, time), *attention, *more)

        down = [Steps(nn.Conv2d(pixels + shape.code_width, width, 3, padding=1))]
        widths = [width]
        for level, out in enumerate(shape.levels):
            for _ in range(shape.blocks):
                down.append(block(widths[-1], level))
                widths.append(out)
            if level + 1 < len(shape.levels):
                down.append(Steps(Down(out)))
                widths.append(out)
        self.input_blocks = nn.ModuleList(down)
        last = widths[-1]
        self.middle_block = Steps(Residual(last, last, time), Attention(last), Residual(last, last, time))
        up = []
        for level in reversed(range(len(shape.levels))):
            for i in range(shape.blocks + 1):
                finer = (Up(shape.levels[level]),) if level and i == shape.blocks else ()
                up.append(block(last + widths.pop(), level, finer))
                last = shape.levels[level]
        self.output_blocks = nn.ModuleList(up)
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, last), nn.SiLU(), nn.Conv2d(last, pixels, 3, padding=1))

    def forward(self, x: Tensor, time: Tensor, codes: Tensor) -> Tensor:
        """fp32 `(n, channels, H, W)`, int64 `(n,)` and fp32 `(n, code_width, h, w)` to fp32 `(n, channels, H, W)`.

        Raises:
            CurateError: H or W is not a multiple of `shape.multiple`.
        """
        if any(side % self.shape.multiple for side in x.shape[2:]):
            raise CurateError(
                f"this decoder gives pictures whose sides are multiples of {self.shape.multiple}, "
                f"not {x.shape[2]} x {x.shape[3]}",
                "import the tokenizer with such a `size`",
            )
        patches = functional.pixel_unshuffle(x, self.shape.patch)
        told = functional.interpolate(codes, patches.shape[2:], mode="nearest")
        embedded = self.time_embed(sinusoids(time, self.shape.width))
        h, kept = torch.cat([patches, told], 1), []
        for module in self.input_blocks:
            h = module(h, embedded)
            kept.append(h)
        h = self.middle_block(h, embedded)
        for module in self.output_blocks:
            h = module(torch.cat([h, kept.pop()], 1), embedded)
        done: Tensor = functional.pixel_shuffle(self.out(h), self.shape.patch)
        return done


def sinusoids(time: Tensor, width: int) -> Tensor:
    """`(n,)` to fp32 `(n, width)`: cosines, then sines, of time at frequencies from 1 down to nearly 1e-4."""
    half = width // 2
    rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=time.device) / half)
    angles = time[:, None].float() * rates
    return torch.cat([angles.cos(), angles.sin()], 1)
