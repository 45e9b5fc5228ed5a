"""Measures what an image tokenizer's round trip costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import structural_similarity

from curate.schema.codec import Quality
from curate.tokenizers.base import Tokenizer


@dataclass(frozen=True)
class PictureScore:
    """PSNR (dB, peak 255, over all three channels) and SSIM (Wang et al. 2004, 7x7 window, mean of channels)."""

    psnr_db: float
    ssim: float


def square(path: Path, size: int) -> NDArray[np.uint8]:
    """A picture file as uint8 `(size, size, 3)`: centre crop to a square, then antialiased (Lanczos) to `size`."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    cut = picture.resize((size, size), Image.Resampling.LANCZOS, box=(left, top, left + side, top + side))
    return np.array(cut)


def score(decoded: NDArray[np.uint8], original: NDArray[np.uint8]) -> PictureScore:
    """Both uint8 `(H, W, 3)`; identical pictures score 100 dB, so that means stay finite."""
    mse = float(np.mean((decoded.astype(np.float64) - original) ** 2))
    ssim = float(
        structural_similarity(  # type: ignore[no-untyped-call]
            original, decoded, channel_axis=2, data_range=255
        )
    )
    return PictureScore(min(100.0, 10 * np.log10(255**2 / mse)) if mse else 100.0, ssim)


def score_images(tokenizer: Tokenizer, pictures: NDArray[np.uint8]) -> tuple[list[PictureScore], float]:
    """Scores of `(N, H, W, 3)` pictures, and the share of the vocabulary that occurs in their ids."""
    [ids] = tokenizer.encode([pictures])
    [decoded] = tokenizer.decode([ids])
    used = np.unique(ids).size / tokenizer.card.vocabulary
    return [score(y, x) for y, x in zip(decoded, pictures, strict=True)], used


def evaluate_images(tokenizer: Tokenizer, paths: Sequence[Path], media: str = "") -> Quality:
    """The round trip of picture files, reduced to the tokenizer's size by `square`.

    Args:
        tokenizer: an image tokenizer.
        paths: pictures that were not trained on.
        media: what they are, in words; by default their file names.
    """
    size = tokenizer.card.input_size
    if not paths or size is None:
        raise ValueError("expected at least one picture, and a tokenizer whose card has an input_size")
    scores, used = score_images(tokenizer, np.stack([square(p, size) for p in paths]))
    return Quality(
        media=media or f"not trained on: {', '.join(p.name for p in paths)}",
        items=len(scores),
        psnr_db=round(float(np.mean([s.psnr_db for s in scores])), 3),
        si_sdr_db=None,
        ssim=round(float(np.mean([s.ssim for s in scores])), 4),
        codebook_usage=round(used, 5),
    )
