"""What the round trip of a tokenizer of images or of video costs: PSNR, and SSIM by scikit-image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from curate.schema.codec import Quality
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.measures.files import square
from curate.tokenizers.measures.usage import CodebookUsage

MOST_DB = 100.0
"""PSNR that is written for identical images, so that means stay finite."""


@dataclass(frozen=True)
class Score:
    """Of an image, or means over the frames of a clip.

    Attributes:
        psnr_db: peak 255, over all three channels.
        ssim: Wang et al. 2004, 7x7 window, mean of channels.
        temporal_psnr_db: of a clip's motion (`temporal_psnr`); None for a single frame.
    """

    psnr_db: float
    ssim: float
    temporal_psnr_db: float | None = None


def psnr(decoded: NDArray[np.integer], original: NDArray[np.integer]) -> float:
    """PSNR in dB of integers of one shape, peak 255, at most `MOST_DB`."""
    if np.array_equal(decoded, original):
        return MOST_DB
    # not scikit-image's: its module imports a second of scipy.stats
    error = float(np.mean((original.astype(np.float64) - decoded) ** 2))
    return min(MOST_DB, 10 * math.log10(255**2 / error))


def score(decoded: NDArray[np.uint8], original: NDArray[np.uint8]) -> Score:
    """Both uint8 `(H, W, 3)`, at least 7x7."""
    ssim = structural_similarity(original, decoded, channel_axis=2, data_range=255)  # type: ignore[no-untyped-call]
    return Score(psnr(decoded, original), float(ssim))


def score_clip(decoded: NDArray[np.uint8], original: NDArray[np.uint8]) -> Score:
    """Both uint8 `(T, H, W, 3)` with the same T.

    Raises:
        ValueError: the shapes differ; a tokenizer that gives fewer frames back has not made a round trip.
    """
    if decoded.shape != original.shape:
        raise ValueError(f"a clip of {original.shape} came back as {decoded.shape}")
    frames = [score(y, x) for y, x in zip(decoded, original, strict=True)]
    return Score(
        float(np.mean([f.psnr_db for f in frames])),
        float(np.mean([f.ssim for f in frames])),
        temporal_psnr(decoded, original) if len(original) > 1 else None,
    )


def temporal_psnr(decoded: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    """PSNR in dB, peak 255, between the differences of successive frames, over a whole clip `(T, H, W, 3)`, T > 1.

    An error that stays where it is does not count here; flicker does.
    """
    error: NDArray[np.int16] = decoded.astype(np.int16) - original
    return psnr(error[1:], error[:-1])


def evaluate_images(tokenizer: Tokenizer, paths: Sequence[Path]) -> Quality:
    """The round trip of image files, reduced to the tokenizer's size by `square`.

    Args:
        tokenizer: an image tokenizer.
        paths: images that were not trained on.
    """
    if tokenizer.card.input_size is None:
        raise ValueError("expected a tokenizer whose card has an input_size")
    images = [square(path, tokenizer.card.input_size)[None] for path in paths]
    return evaluate_clips(tokenizer, images, f"not trained on: {', '.join(p.name for p in paths)}")


def evaluate_clips(tokenizer: Tokenizer, clips: Sequence[NDArray[np.uint8]], media: str) -> Quality:
    """The round trip of clips, one by one: of an image tokenizer, frame by frame; of a video tokenizer, as a whole.

    Args:
        tokenizer: `encode` takes a clip as an item.
        clips: uint8 `(T, H, W, 3)` of the card's size, T one that the tokenizer takes; not trained on.
        media: what they are, in words.

    Returns:
        `psnr_db` and `ssim`: means over the frames of a clip, then over clips; `temporal_psnr_db`: of `temporal_psnr`,
        mean over the clips of two frames or more.

    Raises:
        ValueError: there are no clips, or what comes back has another shape.
    """
    if not clips:
        raise ValueError("expected at least one clip")
    scores: list[Score] = []
    usage = CodebookUsage(tokenizer.card.vocabulary)
    count = 0
    for clip in clips:
        [ids] = tokenizer.encode([clip])
        scores.append(score_clip(tokenizer.decode([ids])[0], clip))
        usage.add(ids)
        count += ids.size
    motion = [s.temporal_psnr_db for s in scores if s.temporal_psnr_db is not None]
    return Quality(
        media=media,
        items=len(clips),
        psnr_db=round(float(np.mean([s.psnr_db for s in scores])), 3),
        ssim=round(float(np.mean([s.ssim for s in scores])), 4),
        temporal_psnr_db=round(float(np.mean(motion)), 3) if motion else None,
        ids_per_item=count / len(clips),
        codebook_usage=round(usage.share, 5),
    )
