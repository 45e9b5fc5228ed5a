"""Measures what the round trip of a tokenizer of pictures or of video costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from curate.media.decode import decode
from curate.media.images import decode_image, render
from curate.media.requests import Frames
from curate.schema.codec import Quality
from curate.tokenizers.base import Tokenizer

MOST_DB = 100.0
"""PSNR that is written for identical pictures, so that means stay finite."""


@dataclass(frozen=True)
class PictureScore:
    """PSNR (dB, peak 255, over all three channels) and SSIM (Wang et al. 2004, 7x7 window, mean of channels)."""

    psnr_db: float
    ssim: float


@dataclass(frozen=True)
class ClipScore:
    """Means over the frames of a clip, and the PSNR of its motion (see `temporal_psnr`; None for a single frame)."""

    psnr_db: float
    ssim: float
    temporal_psnr_db: float | None


def square(path: Path, size: int) -> NDArray[np.uint8]:
    """A picture file as uint8 `(size, size, 3)` sRGB: exactly what the pipeline would give an image tokenizer.

    Raises:
        MediaError: the file is no picture, cannot be decoded, or has too many pixels.
    """
    return render(decode_image(path.read_bytes(), path.name), Frames(size))


def clip_of(path: Path, size: int, fps: float, frames: int) -> NDArray[np.uint8]:
    """The beginning of a video file as uint8 `(T, size, size, 3)`, as the pipeline would give it: 1 / `fps` apart.

    Args:
        frames: most frames; T is less where the video is shorter.

    Raises:
        MediaError: the file is no video, or cannot be decoded.
    """
    view = Frames(size, fps, frames, stride=1)
    return np.asarray(decode(path.read_bytes(), "video", [view], name=path.name).views[view], np.uint8)


def score(decoded: NDArray[np.uint8], original: NDArray[np.uint8]) -> PictureScore:
    """Both uint8 `(H, W, 3)`, at least 7x7."""
    ssim = float(
        structural_similarity(  # type: ignore[no-untyped-call]
            original, decoded, channel_axis=2, data_range=255
        )
    )
    return PictureScore(_psnr(decoded.astype(np.float64) - original), ssim)


def score_clip(decoded: NDArray[np.uint8], original: NDArray[np.uint8]) -> ClipScore:
    """Both uint8 `(T, H, W, 3)` with the same T.

    Raises:
        ValueError: the shapes differ; a tokenizer that gives fewer frames back has not made a round trip.
    """
    if decoded.shape != original.shape:
        raise ValueError(f"a clip of {original.shape} came back as {decoded.shape}")
    frames = [score(y, x) for y, x in zip(decoded, original, strict=True)]
    return ClipScore(
        float(np.mean([f.psnr_db for f in frames])),
        float(np.mean([f.ssim for f in frames])),
        temporal_psnr(decoded, original) if len(original) > 1 else None,
    )


def temporal_psnr(decoded: NDArray[np.uint8], original: NDArray[np.uint8]) -> float:
    """PSNR in dB, peak 255, between the differences of successive frames, over a whole clip `(T, H, W, 3)`, T > 1.

    An error that stays where it is does not count here; flicker does.
    """
    error = np.diff(decoded.astype(np.float64) - original, axis=0)
    return _psnr(error)


def _psnr(error: NDArray[np.float64]) -> float:
    mse = float(np.mean(error**2))
    return min(MOST_DB, float(10 * np.log10(255**2 / mse))) if mse else MOST_DB


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
    card = tokenizer.card
    if not paths or card.input_size is None or card.grid is None:
        raise ValueError("expected at least one picture, and a tokenizer whose card has an input_size and a grid")
    pictures = np.stack([square(p, card.input_size) for p in paths])
    scores, used = score_images(tokenizer, pictures)
    return Quality(
        media=media or f"not trained on: {', '.join(p.name for p in paths)}",
        items=len(scores),
        psnr_db=round(float(np.mean([s.psnr_db for s in scores])), 3),
        ssim=round(float(np.mean([s.ssim for s in scores])), 4),
        ids_per_item=float(np.prod(card.grid)),
        codebook_usage=round(used, 5),
    )


def evaluate_clips(tokenizer: Tokenizer, clips: Sequence[NDArray[np.uint8]], media: str) -> Quality:
    """The round trip of clips, one by one: of an image tokenizer, frame by frame; of a video tokenizer, as a whole.

    Args:
        tokenizer: `encode` takes a clip as an item.
        clips: uint8 `(T, H, W, 3)` of the card's size, T at least 2 and one that the tokenizer takes; not trained on.
        media: what they are, in words.

    Returns:
        `psnr_db` and `ssim`: means over the frames of a clip, then over clips; `temporal_psnr_db`: of `temporal_psnr`,
        mean over clips.
    """
    if not clips or any(len(clip) < 2 for clip in clips):
        raise ValueError("expected at least one clip, and two frames or more in each")
    scores: list[ClipScore] = []
    used: set[int] = set()
    count = 0
    for clip in clips:
        [ids] = tokenizer.encode([clip])
        scores.append(score_clip(tokenizer.decode([ids])[0], clip))
        used.update(np.unique(ids).tolist())
        count += ids.size
    return Quality(
        media=media,
        items=len(clips),
        psnr_db=round(float(np.mean([s.psnr_db for s in scores])), 3),
        ssim=round(float(np.mean([s.ssim for s in scores])), 4),
        temporal_psnr_db=round(
            float(np.mean([s.temporal_psnr_db for s in scores if s.temporal_psnr_db is not None])), 3
        ),
        ids_per_item=count / len(clips),
        codebook_usage=round(len(used) / tokenizer.card.vocabulary, 5),
    )
