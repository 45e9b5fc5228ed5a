"""Masks to ids and back: 4 x 4 patches of a 64 x 64 mask, each the nearest of 1024 patterns.

4M tokenizes SAM's masks by a ViT (`4m-vq`), whose weights may not be had everywhere. This one is a codebook alone: the
k-means of patches of real outlines. `python -m curate.tokenizers.codecs.mask_vq FOLDER` makes the one of the zoo.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard, Quality
from curate.schema.ids import digest
from curate.tokenizers.folders import WEIGHTS, code_version, read_folder, write_folder
from curate.tokenizers.inputs import ARRAYS
from curate.tokenizers.quantisers.pq import codebooks_from_bytes, codebooks_to_bytes, fit_product
from curate.tokenizers.quantisers.vq import vq_ids, vq_vectors

MASK_SIDE = 64
PATCH = 16
GRID = MASK_SIDE // PATCH
TRAINED_ON = ("camera", "coffee", "coins", "rocket", "hubble_deep_field", "immunohistochemistry", "retina", "page")
HELD_OUT = ("astronaut", "chelsea")
"""scikit-image's photographs whose regions it is fitted on, and measured on."""


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


def fit_masks(masks: Sequence[NDArray[np.float32]], held_out: Sequence[NDArray[np.float32]], folder: Path) -> CodecCard:
    """Fits 1024 patterns to masks `(64, 64, 1)` and writes the tokenizer's folder; the card has its IoU on others.

    Raises:
        CurateError: the masks have fewer patches than there are patterns.
    """
    rows = np.concatenate([patches(mask).reshape(-1, PATCH * PATCH) for mask in masks])
    raw = codebooks_to_bytes(fit_product(rows, groups=1, codes=1024, seed=0))
    card = CodecCard(
        name=folder.name,
        architecture="mask-vq",
        modality="array",
        stream="tok_mask@64",
        quantiser="vq",
        levels=[1024],
        index_order="the nearest row of the codebook; a patch is 16 x 16 pixels by rows, patches by rows",
        vocabulary=1024,
        dtype="uint16",
        grid=(GRID, GRID),
        channels=1,
        input=f"float32 ({MASK_SIDE}, {MASK_SIDE}, 1), 1 inside the mask and 0 outside, cut to the mask's box{ARRAYS}",
        chunking="a mask at a time",
        padding="none",
        valid_length="all ids are valid",
        weights_digest=digest(raw),
        code_version=code_version("numpy"),
        parameters=1024 * PATCH * PATCH,
        trained_on=f"{len(masks)} outlines of regions in scikit-image's {', '.join(TRAINED_ON)}",
        licence="Apache-2.0",
        batch_invariance=0.0,
    )
    (codebook,) = codebooks_from_bytes(raw)
    tokenizer = MaskVQ(card, codebook)
    ids = np.stack(tokenizer.encode(held_out))
    quality = Quality(
        media=f"outlines of regions in scikit-image's {', '.join(HELD_OUT)}, held out",
        items=len(held_out),
        iou=round(mean_iou(tokenizer, held_out), 4),
        ids_per_item=GRID * GRID,
        codebook_usage=len(np.unique(ids)) / card.vocabulary,
    )
    card = card.model_copy(update={"quality": [quality]})
    write_folder(folder, card, {WEIGHTS: raw})
    return card


def mean_iou(tokenizer: MaskVQ, masks: Sequence[NDArray[np.float32]]) -> float:
    """Mean over masks of intersection by union of what went in and what comes back, cut at a half."""
    back = tokenizer.decode(tokenizer.encode(masks))
    shares = [np.sum((x > 0.5) & (y >= 0.5)) / np.sum((x > 0.5) | (y >= 0.5)) for x, y in zip(masks, back, strict=True)]
    return float(np.mean(shares))


def regions(names: Sequence[str]) -> Iterator[NDArray[np.float32]]:
    """Outlines of what stands together in scikit-image's images, coarse and fine, as masks `(64, 64, 1)`.

    By Felzenszwalb and Huttenlocher 2004, at three scales; each also mirrored. Regions below 8 x 8 pixels are left out.
    """
    from skimage import data
    from skimage.segmentation import felzenszwalb

    for name in names:
        image = getattr(data, name)()
        image = image[:: max(1, len(image) // 400), :: max(1, len(image) // 400)]
        for scale in (50, 200, 800):
            found = felzenszwalb(image, scale=scale, sigma=0.8, min_size=64)
            for label in range(int(found.max()) + 1):
                inside = found == label
                x0, y0, x1, y1 = box = box_of(inside)
                if min(x1 - x0, y1 - y0) < 8:
                    continue
                mask = cut(inside, box)
                yield mask
                yield np.ascontiguousarray(mask[:, ::-1])


if __name__ == "__main__":
    out = Path(sys.argv[1])
    train, held = list(regions(TRAINED_ON)), list(regions(HELD_OUT))
    measured = fit_masks(train, held, out).quality[0]
    print(f"{len(train)} masks, mean IoU on {measured.items} {measured.media}: {measured.iou:.3f}")
