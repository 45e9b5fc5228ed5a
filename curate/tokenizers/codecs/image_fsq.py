"""Our own image tokenizer: a small convolutional autoencoder around FSQ (Mentzer et al. 2023, arXiv 2309.15505)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.models.batches import finite
from curate.schema.errors import CurateError
from curate.tokenizers.grid import GridNet, GridTokenizer, square_grid
from curate.tokenizers.quantisers.fsq import fsq_vocabulary
from curate.tokenizers.quantisers.fsq_torch import FSQ

PATCH = 8
"""Pixels on a side of the patches that enter the encoder, whatever an id covers."""

Net = TypeVar("Net", bound=nn.Module)


@dataclass(frozen=True)
class ImageFSQShape:
    """The architecture; written as JSON into the header of the weights file.

    Attributes:
        levels: FSQ levels per latent channel.
        width: channels at the resolution of the ids.
        encoder_blocks, decoder_blocks: residual blocks at that resolution.
        refine_width, refine_blocks: channels and residual blocks of the decoder at 1/4 resolution.
        patch: pixels on a side that an id covers, 8 or 16; weights without this key are of 8.
        middle_width, middle_encoder_blocks, middle_decoder_blocks: with a patch of 16, the same at 1/8 resolution,
            which is passed on the way in and on the way out.
    """

    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    width: int = 128
    encoder_blocks: int = 3
    decoder_blocks: int = 4
    refine_width: int = 64
    refine_blocks: int = 2
    patch: int = 8
    middle_width: int = 128
    middle_encoder_blocks: int = 2
    middle_decoder_blocks: int = 2

    def __post_init__(self) -> None:
        if self.patch not in (PATCH, 2 * PATCH):
            raise CurateError(f"an id cannot cover {self.patch} pixels a side", f"Give {PATCH} or {2 * PATCH}.")
        fsq_vocabulary(self.levels)


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


class ImageFSQNet(GridNet):
    """Images in [-1, 1], float `(N, 3, H, W)`, to FSQ codes `(N, d, H/p, W/p)` and back, p the shape's `patch`.

    Encoder and decoder each hold a linear path from patch to latent (PCA at the start of training, so that training
    starts at the quality of a transform codec) and a convolutional path that adds to it.
    """

    def __init__(self, shape: ImageFSQShape) -> None:
        super().__init__()
        self.shape = shape
        d, pixels, wide, fine = len(shape.levels), 3 * shape.patch**2, shape.width, shape.refine_width
        two_stages = shape.patch > PATCH
        eighth = shape.middle_width if two_stages else wide
        self.patch_in = nn.Conv2d(pixels, d, 1)
        self.stem = nn.Conv2d(3 * PATCH**2, eighth, 1)
        self.narrow, self.widen = nn.Sequential(), nn.Sequential()
        if two_stages:
            self.narrow.extend(Residual(eighth) for _ in range(shape.middle_encoder_blocks))
            self.narrow.extend([nn.PixelUnshuffle(2), nn.Conv2d(4 * eighth, wide, 1)])
            self.widen.extend([nn.Conv2d(wide, 4 * eighth, 1), nn.PixelShuffle(2)])
            self.widen.extend(Residual(eighth) for _ in range(shape.middle_decoder_blocks))
        self.encoder = nn.Sequential(*[Residual(wide) for _ in range(shape.encoder_blocks)])
        self.to_latent = nn.Conv2d(wide, d, 3, padding=1)
        self.fsq = FSQ(shape.levels)
        self.patch_out = nn.Conv2d(d, pixels, 1)
        self.from_latent = nn.Conv2d(d, wide, 3, padding=1)
        self.decoder = nn.Sequential(*[Residual(wide) for _ in range(shape.decoder_blocks)])
        self.grow = nn.Conv2d(eighth, fine * 4, 1)
        self.refine = nn.Sequential(*[Residual(fine) for _ in range(shape.refine_blocks)])
        # 3x3 at quarter resolution: neighbouring patches overlap here, which is what removes their seams.
        self.to_pixels = nn.Conv2d(fine, 3 * (PATCH // 2) ** 2, 3, padding=1)
        for silent in (self.to_latent, self.to_pixels):
            nn.init.zeros_(silent.weight)
            nn.init.zeros_(cast(Tensor, silent.bias))

    def latent(self, x: Tensor) -> Tensor:
        """Before quantisation: fp32 `(N, d, H/p, W/p)`."""
        y = self.encoder(self.narrow(self.stem(functional.pixel_unshuffle(x, PATCH))))
        z = self.patch_in(functional.pixel_unshuffle(x, self.shape.patch)) + self.to_latent(y)
        return cast(Tensor, z.float())

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `(N, d, h, w)` with a straight-through gradient, and ids int32 `(N, h, w)`; always in fp32 (law 8)."""
        with torch.autocast(z.device.type, enabled=False):
            codes, ids = self.fsq(z.float())
        return codes, ids

    def pixels(self, codes: Tensor) -> Tensor:
        """Codes `(N, d, h, w)` to images `(N, 3, p h, p w)`."""
        coarse = functional.pixel_shuffle(self.patch_out(codes), self.shape.patch)
        y = functional.pixel_shuffle(self.grow(self.widen(self.decoder(self.from_latent(codes)))), 2)
        fine = functional.pixel_shuffle(self.to_pixels(self.refine(y)), PATCH // 2)
        return coarse + fine

    def forward(self, x: Tensor) -> Tensor:
        codes, _ = self.quantise(self.latent(x))
        return self.pixels(codes)

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size, levels = 256 if size is None else size, self.shape.levels
        grid = square_grid("this tokenizer", size, self.shape.patch)
        return fsq_fields(levels) | {"grid": grid, "input_size": size, "padding": "none"}

    def ids(self, x: Tensor) -> Tensor:
        return self.quantise(finite(self.latent(x)))[1]

    def images(self, ids: Tensor) -> Tensor:
        return self.pixels(self.fsq.codes(ids))

    # Not (value - mean) / std: what it was trained and measured with, which rounds otherwise.
    def to_input(self, items: Tensor) -> Tensor:
        return items.permute(0, 3, 1, 2).float() / 127.5 - 1

    def to_items(self, images: Tensor) -> Tensor:
        return ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class ImageFSQ(GridTokenizer):
    """The tokenizer over a trained net: uint8 sRGB of the card's size to ids and back; weights are stored as fp16.

    A 4-D array given for `items` is a sequence of images, as numpy iterates it.
    """

    net: ImageFSQNet

    @classmethod
    def net_from_bytes(cls, raw: bytes, name: str = "") -> ImageFSQNet:
        """As its base's, of its own kind."""
        return cast(ImageFSQNet, super().net_from_bytes(raw, name))

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> ImageFSQNet:
        return channels_last(ImageFSQNet(image_shape(shape)))


def image_shape(words: dict[str, Any]) -> ImageFSQShape:
    """The shape of an image tokenizer as its weights file says it."""
    return ImageFSQShape(**{**words, "levels": tuple(words["levels"])})


def fsq_fields(levels: tuple[int, ...]) -> dict[str, Any]:
    """Fields of the card of an FSQ of these levels."""
    return {
        "quantiser": "fsq",
        "levels": list(levels),
        "index_order": (
            "little-endian mixed radix: id = sum of digit_i times the product of the levels before i; "
            "channel 0 is the least significant digit; cells in row-major order"
        ),
        "vocabulary": fsq_vocabulary(levels),
    }


def channels_last(net: Net) -> Net:
    """The memory order in which these convolutions are fastest, on CPU as on CUDA; values do not change."""
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return net
