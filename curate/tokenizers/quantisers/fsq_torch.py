"""FSQ in a network, with a gradient: the arithmetic of `fsq` as `vector_quantize_pytorch.FSQ` does it, step by step.

The weights were trained with that library, and the tests hold the two equal bit by bit; but importing it takes a second
of each process that makes ids, for PyTorch's compiler and SymPy, which none of this needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

EPS = 1e-3


class FSQ(nn.Module):
    """Latents `(N, d, ...)` to codes of the same shape, and to ids `(N, ...)`.

    Args:
        levels: of each of the d channels.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        super().__init__()
        count = torch.tensor(levels, dtype=torch.int32)
        self.register_buffer("levels", count, persistent=False)
        steps = torch.cumprod(torch.tensor([1, *levels[:-1]]), 0, dtype=torch.int32)
        self.register_buffer("steps", steps, persistent=False)

    levels: Tensor
    steps: Tensor

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Codes with a straight-through gradient, and ids int32.

        Args:
            z: float32.
        """
        half = (self.levels - 1) * (1 + EPS) / 2
        offset = torch.where(self.levels % 2 == 0, 0.5, 0.0)
        z = torch.tanh(z.movedim(1, -1).contiguous() + torch.atanh(offset / half)) * half - offset
        middle = self.levels // 2
        codes = (z + (z.round() - z).detach()) / middle
        ids = ((codes * middle + middle) * self.steps).sum(-1).round().to(torch.int32)
        return codes.movedim(-1, 1), ids

    def codes(self, ids: Tensor) -> Tensor:
        """Ids `(N, ...)` to codes, float32 `(N, d, ...)`."""
        middle = self.levels // 2
        return (((ids[..., None] // self.steps) % self.levels - middle) / middle).movedim(-1, 1)
