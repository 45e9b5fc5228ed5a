"""Fits the mask tokenizer, `curate.tokenizers.codecs.mask_vq`.

`python -m curate.training.masks FOLDER` makes the one of the zoo.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard, Quality
from curate.schema.ids import digest
from curate.tokenizers.codecs.mask_vq import GRID, MASK_SIDE, PATCH, MaskVQ, box_of, cut, patches
from curate.tokenizers.folders import WEIGHTS, code_version, write_folder
from curate.tokenizers.inputs import ARRAY_INPUT
from curate.tokenizers.measures.usage import CodebookUsage
from curate.tokenizers.quantisers.pq import codebooks_from_bytes, codebooks_to_bytes, fit_product

TRAINED_ON = ("camera", "coffee", "coins", "rocket", "hubble_deep_field", "immunohistochemistry", "retina", "page")
HELD_OUT = ("astronaut", "chelsea")
"""scikit-image's photographs whose regions it is fitted on, and measured on."""


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
        input=(
            f"float32 ({MASK_SIDE}, {MASK_SIDE}, 1), 1 inside the mask and 0 outside, cut to the mask's box"
            f"{ARRAY_INPUT}"
        ),
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
    usage = CodebookUsage(card.vocabulary)
    for ids in tokenizer.encode(held_out):
        usage.add(ids)
    quality = Quality(
        media=f"outlines of regions in scikit-image's {', '.join(HELD_OUT)}, held out",
        items=len(held_out),
        iou=round(mean_iou(tokenizer, held_out), 4),
        ids_per_item=GRID * GRID,
        codebook_usage=usage.share,
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
