"""Masks to ids and back: 4 x 4 patches of a 64 x 64 mask, each the nearest of 1024 patterns.

4M tokenizes SAM's masks by a ViT (`4m-vq`), whose weights may not be had everywhere. This one is a codebook alone: the
k-means of patches of real outlines, which `curate.training.masks` fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard
from curate.tokenizers.folders import read_folder
from curate.tokenizers.quantisers.pq import codebooks_from_bytes
from curate.tokenizers.quantisers.vq import vq_ids, vq_vectors

MASK_SIDE = 64
PATCH = 16
GRID = MASK_SIDE // PATCH


class MaskVQ:
    """The mask tokenizer (a `Tokenizer`): float32 `(64, 64, 1)` of 0 and 1 to ids `(4, 4)`."""

    def __init__(self, card: CodecCard, codebook: NDArray[np.float32]) -> None:
        self.card, self._codebook = card, codebook

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> MaskVQ:
        """Reads `card.json` and `weights.safetensors`; it runs in numpy whatever the device.

        Raises:
            CurateError: a file is missing or broken, or the codebook is not that of the card.
        """
        card, raw = read_folder(folder)
        (codebook,) = codebooks_from_bytes(raw)
        return cls(card, codebook)

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Masks to ids `(4, 4)`.

        Raises:
            ValueError: an item is not float32 `(64, 64, 1)` of 0 and 1.
        """
        want = (MASK_SIDE, MASK_SIDE, 1)
        for item in items:
            if not isinstance(item, np.ndarray) or item.dtype != np.float32 or item.shape != want:
                raise ValueError(f"{self.card.name} expects float32 {want}")
            if not np.isin(item, (0, 1)).all():
                raise ValueError(f"{self.card.name} expects 0 outside a mask and 1 inside, nothing between")
        return [vq_ids(patches(item), self._codebook).astype(self.card.numpy_dtype) for item in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to float32 `(64, 64, 1)` in [0, 1]: the share of patches like it that are inside."""
        found = [vq_vectors(item, self._codebook).reshape(GRID, GRID, PATCH, PATCH) for item in ids]
        return [x.transpose(0, 2, 1, 3).reshape(MASK_SIDE, MASK_SIDE, 1) for x in found]


def patches(mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mask `(64, 64, 1)` to `(4, 4, 256)`, each patch by rows."""
    cut_up = mask.reshape(GRID, PATCH, GRID, PATCH).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(cut_up).reshape(GRID, GRID, PATCH * PATCH)


def box_of(mask: NDArray[np.bool_], most: int | None = None) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of what is inside, in whole pixels, the last included.

    Args:
        most: pixels of the longest side that is taken; None: any.

    Raises:
        ValueError: it is no bool `(H, W)`, nothing is inside, or a side is too long.
    """
    if mask.dtype != np.bool_ or mask.ndim != 2 or not mask.any() or (most and max(mask.shape) > most):
        raise ValueError(f"expected a mask, bool (H, W) of at most {most} pixels a side, not empty; got {mask.shape}")
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return int(columns[0]), int(rows[0]), int(columns[-1]), int(rows[-1])


def cut(mask: NDArray[np.bool_], box: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """The box of a mask as float32 `(64, 64, 1)` of 0 and 1."""
    x0, y0, x1, y1 = box
    inside = mask[y0 : y1 + 1, x0 : x1 + 1].astype(np.float32)
    return resized(inside, MASK_SIDE, MASK_SIDE).astype(np.float32)[..., None]


def resized(mask: NDArray[np.float32], width: int, height: int) -> NDArray[np.bool_]:
    """A mask at another size: what is covered by half or more."""
    smaller = width * height < mask.size
    out = cv2.resize(mask, (width, height), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.asarray(out >= 0.5, np.bool_)
