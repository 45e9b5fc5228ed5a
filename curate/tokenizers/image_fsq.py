"""Our own image tokenizer: a small convolutional autoencoder around FSQ (Mentzer et al. 2023, arXiv 2309.15505)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ

PATCH = 8


@dataclass(frozen=True)
class ImageFSQShape:
    """The architecture; written as JSON into the header of the weights file.

    Attributes:
        levels: FSQ levels per latent channel.
        width: channels at 1/8 resolution.
        encoder_blocks, decoder_blocks: residual blocks at 1/8 resolution.
        refine_width, refine_blocks: channels and residual blocks of the decoder at 1/4 resolution.
    """

    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    width: int = 128
    encoder_blocks: int = 3
    decoder_blocks: int = 4
    refine_width: int = 64
    refine_blocks: int = 2


class Residual(nn.Module):
    """Two 3x3 convolutions without normalisation (EDSR, Lim et al. 2017), the second starting at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(cast(Tensor, self.second.bias))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.second(functional.silu(self.first(x))))


class ImageFSQNet(nn.Module):
    """Pictures in [-1, 1], float `(N, 3, H, W)`, to FSQ codes `(N, d, H/8, W/8)` and back.

    Encoder and decoder each hold a linear path from 8x8 patch to latent (PCA at the start of training, so that
    training starts at the quality of a transform codec) and a convolutional path that adds to it.
    """

    def __init__(self, shape: ImageFSQShape) -> None:
        super().__init__()
        self.shape = shape
        d, pixels, wide, fine = len(shape.levels), 3 * PATCH * PATCH, shape.width, shape.refine_width
        self.patch_in = nn.Conv2d(pixels, d, 1)
        self.stem = nn.Conv2d(pixels, wide, 1)
        self.encoder = nn.Sequential(*[Residual(wide) for _ in range(shape.encoder_blocks)])
        self.to_latent = nn.Conv2d(wide, d, 3, padding=1)
        self.fsq = FSQ(levels=list(shape.levels), channel_first=True)
        self.patch_out = nn.Conv2d(d, pixels, 1)
        self.from_latent = nn.Conv2d(d, wide, 3, padding=1)
        self.decoder = nn.Sequential(*[Residual(wide) for _ in range(shape.decoder_blocks)])
        self.grow = nn.Conv2d(wide, fine * 4, 1)
        self.refine = nn.Sequential(*[Residual(fine) for _ in range(shape.refine_blocks)])
        # 3x3 at quarter resolution: neighbouring 8x8 patches overlap here, which is what removes their seams.
        self.to_pixels = nn.Conv2d(fine, 3 * (PATCH // 2) ** 2, 3, padding=1)
        for silent in (self.to_latent, self.to_pixels):
            nn.init.zeros_(silent.weight)
            nn.init.zeros_(cast(Tensor, silent.bias))

    def latent(self, x: Tensor) -> Tensor:
        """Before quantisation: fp32 `(N, d, H/8, W/8)`."""
        patches = functional.pixel_unshuffle(x, PATCH)
        z = self.patch_in(patches) + self.to_latent(self.encoder(self.stem(patches)))
        return cast(Tensor, z.float())

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `(N, d, h, w)` with a straight-through gradient, and ids int32 `(N, h, w)`; always in fp32 (law 8)."""
        with torch.autocast(z.device.type, enabled=False):
            codes, ids = self.fsq(z.float())
        return codes, ids

    def pixels(self, codes: Tensor) -> Tensor:
        """Codes `(N, d, h, w)` to pictures `(N, 3, 8h, 8w)`."""
        coarse = functional.pixel_shuffle(self.patch_out(codes), PATCH)
        y = functional.pixel_shuffle(self.grow(self.decoder(self.from_latent(codes))), 2)
        fine = functional.pixel_shuffle(self.to_pixels(self.refine(y)), PATCH // 2)
        return coarse + fine

    def forward(self, x: Tensor) -> Tensor:
        codes, _ = self.quantise(self.latent(x))
        return self.pixels(codes)
