"""Our own image tokenizer: a small convolutional autoencoder around FSQ (Mentzer et al. 2023, arXiv 2309.15505)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from torch import Tensor, nn
from torch.nn import functional
from vector_quantize_pytorch import FSQ

from curate.models.batches import in_micro_batches, split
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.folders import read_folder, words_of
from curate.tokenizers.quantisers.fsq import fsq_vocabulary

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


class ImageFSQNet(nn.Module):
    """Pictures in [-1, 1], float `(N, 3, H, W)`, to FSQ codes `(N, d, H/p, W/p)` and back, p the shape's `patch`.

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
        self.fsq = FSQ(levels=list(shape.levels), channel_first=True)
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
        """Codes `(N, d, h, w)` to pictures `(N, 3, p h, p w)`."""
        coarse = functional.pixel_shuffle(self.patch_out(codes), self.shape.patch)
        y = functional.pixel_shuffle(self.grow(self.widen(self.decoder(self.from_latent(codes)))), 2)
        fine = functional.pixel_shuffle(self.to_pixels(self.refine(y)), PATCH // 2)
        return coarse + fine

    def forward(self, x: Tensor) -> Tensor:
        codes, _ = self.quantise(self.latent(x))
        return self.pixels(codes)


class ImageFSQ:
    """The tokenizer over a trained net: uint8 sRGB of the card's size to ids and back.

    An item is one picture `(H, W, 3)` or a stack `(N, H, W, 3)`, with H and W as the card's `grid` times the patch of
    the weights; its ids are `(h, w)` or `(N, h, w)`. A 4-D array given for `items` is a sequence of pictures, as numpy
    iterates it.
    """

    def __init__(self, card: CodecCard, net: ImageFSQNet, device: str = "cpu") -> None:
        if card.grid is None or card.vocabulary != net.fsq.codebook_size or card.levels != list(net.shape.levels):
            raise CurateError(f"the card of {card.name} lacks a grid, or its levels are not those of the weights")
        self.card = card
        self.grid = card.grid
        self.picture = (self.grid[0] * net.shape.patch, self.grid[1] * net.shape.patch, 3)
        self.device = torch.device(device)
        self.net = net.eval().to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> ImageFSQ:
        """Reads `card.json` and `weights.safetensors`; refuses weights other than those the card was measured with."""
        card, raw = read_folder(folder)
        return cls(card, net_from_bytes(raw), device)

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Pictures or stacks, uint8, to ids of the card's dtype in the same order and shape."""
        stacks = [self._stack(item) for item in items]
        done = in_micro_batches(stacks, self._encode, self.grid, self.card.numpy_dtype, self.device)
        return split(done, items, 3)

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids `(h, w)` or `(N, h, w)` to uint8 pictures or stacks; `lengths` has no meaning for pictures."""
        stacks = [self._grids(one) for one in ids]
        done = in_micro_batches(stacks, self._decode, self.picture, np.dtype(np.uint8), self.device)
        return split(done, ids, 2)

    def _stack(self, item: Any) -> NDArray[np.uint8]:
        want = self.picture
        if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or item.shape[-3:] != want or item.ndim > 4:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise ValueError(f"{self.card.name} expects uint8 {want} or (N, {want[0]}, {want[1]}, 3), got {got}")
        return cast(NDArray[np.uint8], item.reshape(-1, *want))

    def _grids(self, ids: NDArray[np.generic]) -> NDArray[np.int64]:
        if ids.dtype.kind not in "ui" or ids.shape[-2:] != self.grid or ids.ndim > 3:
            h, w = self.grid
            raise ValueError(f"{self.card.name} expects ids ({h}, {w}) or (N, {h}, {w}), got {ids.dtype} {ids.shape}")
        grids = ids.astype(np.int64).reshape(-1, *self.grid)
        if grids.size and not 0 <= grids.min() <= grids.max() < self.card.vocabulary:
            raise ValueError(
                f"{self.card.name} has ids 0 <= id < {self.card.vocabulary}, got {grids.min()} .. {grids.max()}"
            )
        return grids

    def _encode(self, pictures: Tensor) -> Tensor:
        """uint8 `(n, H, W, 3)` to int32 `(n, h, w)`."""
        return self.net.quantise(self.net.latent(pictures.permute(0, 3, 1, 2).float() / 127.5 - 1))[1]

    def _decode(self, ids: Tensor) -> Tensor:
        """int64 `(n, h, w)` to uint8 `(n, H, W, 3)`."""
        pictures = (self.net.pixels(self.net.fsq.indices_to_codes(ids)) + 1) * 127.5
        return pictures.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def net_from_bytes(raw: bytes) -> ImageFSQNet:
    """The net in the bytes of a weights file; stored as fp16, computed with as fp32."""
    shape = words_of(raw)["shape"]
    net = ImageFSQNet(ImageFSQShape(**{**shape, "levels": tuple(shape["levels"])}))
    net.load_state_dict({name: t.float() for name, t in load_tensors(raw).items()})
    return channels_last(net)


def channels_last(net: Net) -> Net:
    """The memory order in which these convolutions are fastest, on CPU as on CUDA; values do not change."""
    for p in net.parameters():
        if p.ndim == 4:
            p.data = p.data.contiguous(memory_format=torch.channels_last)
    return net
