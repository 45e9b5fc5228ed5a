"""A modality of one's own in one file: rasters of any number of channels (satellite, microscopy) to ids and back.

Each channel is cut into 4x4 patches by itself, as in ChannelViT (Bao, Sivanandan, Karaletsos, arXiv 2309.16108), and
the four lowest coefficients of a patch's cosine transform are quantised by FSQ: nothing is trained. Put this file where
Python finds it (PYTHONPATH), and `curate tokenizers eval raster_tokenizer:RasterTokenizer --media DIR` measures it on a
folder of `.npy` files; a recipe names it the same way, `tokenizer: raster_tokenizer:RasterTokenizer`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.tokenizers.custom_card import custom_card
from curate.tokenizers.quantisers.fsq import fsq_codes, fsq_ids

CHANNELS, SIZE, PATCH = 6, 128, 4
LEVELS = [64, 10, 10, 10]
REACH = np.array([1.0, 0.35, 0.35, 0.2])  # mean, and slopes across, down and both, for values in [0, 1]; beyond is cut
_k = np.arange(PATCH)
_FLAT, _SLOPE = np.full(PATCH, PATCH**-0.5), np.cos((_k + 0.5) * np.pi / PATCH) * (2 / PATCH) ** 0.5
BASIS = np.stack([np.outer(a, b) for a, b in ((_FLAT, _FLAT), (_FLAT, _SLOPE), (_SLOPE, _FLAT), (_SLOPE, _SLOPE))])


class RasterTokenizer:
    """uint16 `(6, 128, 128)` to ids `(6, 32, 32)`: the channel is the first axis, and no id mixes channels."""

    def __init__(self) -> None:
        self.card = custom_card(
            "raster-dct-fsq",
            input=f"uint16 ({CHANNELS}, {SIZE}, {SIZE}), nothing else; 65535 is full scale in every channel",
            vocabulary=int(np.prod(LEVELS)),
            grid=(SIZE // PATCH, SIZE // PATCH),
            made_of=[LEVELS, PATCH, REACH.tolist()],
            # What follows may be left out; it tells readers of a dataset more.
            stream=f"tok_raster@{SIZE}",
            quantiser="fsq",
            levels=LEVELS,
            index_order="little-endian mixed radix; axes are channel, row, column",
            channels=CHANNELS,
        )

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Rasters to ids; ValueError for another dtype or shape."""
        return [self._encode(item) for item in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to rasters."""
        return [self._decode(one) for one in ids]

    def _encode(self, item: NDArray[np.uint16]) -> NDArray[np.generic]:
        if item.dtype != np.uint16 or item.shape != (CHANNELS, SIZE, SIZE):
            raise ValueError(f"expected uint16 {(CHANNELS, SIZE, SIZE)}, got {item.dtype} {item.shape}")
        n = SIZE // PATCH
        patches = (item / 65535).reshape(CHANNELS, n, PATCH, n, PATCH).transpose(0, 1, 3, 2, 4)
        scaled = np.einsum("chwij,kij->chwk", patches, BASIS) / PATCH
        scaled[..., 0] = 2 * scaled[..., 0] - 1
        # FSQ squashes with tanh; its inverse makes the levels equally wide.
        z = np.arctanh(np.clip(scaled / REACH, -0.999, 0.999)).astype(np.float32)
        return fsq_ids(z, LEVELS)

    def _decode(self, ids: NDArray[np.generic]) -> NDArray[np.uint16]:
        scaled = fsq_codes(ids, LEVELS) * REACH
        scaled[..., 0] = (scaled[..., 0] + 1) / 2
        patches = np.einsum("chwk,kij->chwij", scaled * PATCH, BASIS)
        raster = patches.transpose(0, 1, 3, 2, 4).reshape(CHANNELS, SIZE, SIZE)
        return np.rint(np.clip(raster, 0, 1) * 65535).astype(np.uint16)
