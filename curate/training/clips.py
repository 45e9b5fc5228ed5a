"""What a video tokenizer is trained on: short cuts of videos, and camera moves over still images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from curate.media.video import PyAVReader
from curate.schema.errors import CurateError, MediaError
from curate.sources import media_types
from curate.tokenizers.codecs.video_fsq_net import GROUP
from curate.training.crops import CropConfig, MediaSource, Pool, files_of, frames_of, read_pool


class ClipConfig(CropConfig):
    """What decides the batches. `media` of the base are the still images, `videos` the videos."""

    groups: int = Field(3, gt=0, description="groups of four frames after the first frame of a training clip")
    strides: tuple[int, ...] = Field(
        (1, 2, 3), description="a clip takes every frame, every second one and so on: more than one frame rate is met"
    )
    video_sides: tuple[int, ...] = Field((144, 256), description="short sides to which videos are reduced, in pixels")
    moves: float = Field(0.35, ge=0, le=1, description="share of the clips that are camera moves over images")
    videos: tuple[MediaSource, ...] = ()

    @property
    def frames(self) -> int:
        """Frames of a training clip."""
        return 1 + GROUP * self.groups


@dataclass(frozen=True)
class ClipPool:
    """Decoded training media.

    Attributes:
        videos: uint8 `(T, H, W, 3)`, the same video at each of its sizes.
        chances: of each video to be cut next.
        stills: for camera moves; None where none were found.
    """

    videos: list[NDArray[np.uint8]]
    chances: NDArray[np.float64]
    stills: Pool | None


def read_clips(config: ClipConfig, media: Sequence[Path], debian: Path) -> ClipPool:
    """Decodes `media` (files or folders of videos and images), or with none given the config's own sources.

    Raises:
        CurateError: there is neither a video long enough nor an image large enough.
    """
    groups = (
        [(1.0, files_of(media, media_types.VIDEO))] if media else [(s.weight, s.find(debian)) for s in config.videos]
    )
    videos: list[NDArray[np.uint8]] = []
    chances: list[float] = []
    for weight, files in groups:
        found = [v for f in files for v in _sizes(f, config) if len(v) >= config.frames]
        videos += found
        chances += [weight * len(v) / sum(map(len, found)) for v in found]
    images = files_of(media, media_types.IMAGE)
    stills = read_pool(config, images, debian) if images or (config.media and not media) else None
    if not videos and stills is None:
        raise CurateError(
            f"no video of {config.frames} frames and no image of {config.crop} pixels was found to train on",
            "Give folders of videos or images, or install the packages that the config names.",
        )
    return ClipPool(videos, np.asarray(chances) / (sum(chances) or 1), stills)


def _sizes(path: Path, config: ClipConfig) -> Iterator[NDArray[np.uint8]]:
    """A video `(T, H, W, 3)` at those of `video_sides` that do not enlarge it, or as it is where it is smaller."""
    try:
        with PyAVReader(path.read_bytes(), name=path.name) as reader:
            short = min(reader.display_size())
        for side in [s for s in config.video_sides if config.crop <= s <= short] or [short]:
            if side >= config.crop:
                yield np.stack(list(frames_of(path, side)))
    except (OSError, MediaError) as error:
        print(f"skipped {path.name}: {error}", file=sys.stderr)


def clip_batch(pool: ClipPool, config: ClipConfig, step: int) -> Tensor:
    """The batch of a step, a function of (seed, step): float32 `(batch, T, 3, crop, crop)` in [-1, 1]."""
    rng = np.random.default_rng((config.seed, step))
    out: list[Tensor] = []
    for _ in range(config.batch):
        moved = pool.stills is not None and (not pool.videos or rng.random() < config.moves)
        out.append(_move(pool.stills, config, rng) if pool.stills and moved else _cut(pool, config, rng))
    return torch.stack(out)


def _cut(pool: ClipPool, config: ClipConfig, rng: np.random.Generator) -> Tensor:
    video = pool.videos[int(rng.choice(len(pool.videos), p=pool.chances))]
    fitting = [s for s in config.strides if s * (config.frames - 1) < len(video)]
    stride = int(rng.choice(fitting or [1]))
    t = int(rng.integers(0, len(video) - stride * (config.frames - 1)))
    y, x = (int(rng.integers(0, n - config.crop + 1)) for n in video.shape[1:3])
    cut = video[t : t + stride * (config.frames - 1) + 1 : stride, y : y + config.crop, x : x + config.crop]
    clip = torch.from_numpy(cut.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    if rng.random() < 0.5:
        clip = clip.flip(3)
    return _relit(clip.flip(0) if rng.random() < 0.3 else clip, rng)


def _move(stills: Pool, config: ClipConfig, rng: np.random.Generator) -> Tensor:
    """A camera that pans, zooms and turns over an image; in half of the clips a disc of another moves before it."""
    clip = _camera(_one(stills, rng), config, rng)
    if rng.random() < 0.5:
        before = _camera(_one(stills, rng), config, rng)
        size, times = config.crop, torch.arange(config.frames, dtype=torch.float32)[:, None, None]
        cy, cx = (float(rng.uniform(0, size)) + float(rng.normal(0, 1.5)) * times for _ in range(2))
        radius = float(rng.uniform(0.1, 0.35)) * size
        at = torch.arange(size, dtype=torch.float32)
        distance = ((at[:, None] - cy) ** 2 + (at[None, :] - cx) ** 2).sqrt()
        cover = (radius - distance + 0.5).clamp(0, 1)[:, None]
        clip = clip * (1 - cover) + before * cover
    return _relit(clip, rng)


def _one(stills: Pool, rng: np.random.Generator) -> Tensor:
    chosen = stills.images[int(rng.choice(len(stills.images), p=stills.chances))]
    return torch.from_numpy(chosen.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]


def _camera(image: Tensor, config: ClipConfig, rng: np.random.Generator) -> Tensor:
    """`(T, 3, crop, crop)` of an image `(1, 3, H, W)`; speeds are normal, with a third of the cameras at rest."""
    t = torch.arange(config.frames, dtype=torch.float32) - config.frames // 2
    h, w = image.shape[-2:]
    still = rng.random() < 0.33
    pan = [0.0 if still else float(v) for v in rng.normal(0, 1.5, 2)]
    bend = [0.0 if still else float(v) for v in rng.normal(0, 0.05, 2)]
    angle = (0.0 if still else float(rng.normal(0, 0.004))) * t
    zoom = torch.exp((0.0 if still else float(rng.normal(0, 0.006))) * t)
    half = config.crop / 2
    y0, x0 = (float(rng.uniform(min(half, n / 2), max(n - half, n / 2))) for n in (h, w))
    at = torch.arange(config.crop, dtype=torch.float32) + 0.5 - half
    sin, cos = (f(angle)[:, None, None] * zoom[:, None, None] for f in (torch.sin, torch.cos))
    y = y0 + (pan[0] * t + bend[0] * t**2)[:, None, None] + cos * at[:, None] + sin * at[None, :]
    x = x0 + (pan[1] * t + bend[1] * t**2)[:, None, None] - sin * at[:, None] + cos * at[None, :]
    where = torch.stack([2 * x / w - 1, 2 * y / h - 1], -1)
    source = image.expand(config.frames, -1, -1, -1)
    return functional.grid_sample(source, where, "bilinear", "reflection", align_corners=False)


def _relit(clip: Tensor, rng: np.random.Generator) -> Tensor:
    """In some clips another exposure and white balance: few media go further so."""
    if rng.random() >= 0.3:
        return clip
    gain, tint = float(rng.uniform(0.7, 1.2)), rng.uniform(-0.15, 0.15, 3).astype(np.float32)
    return (clip * gain + torch.from_numpy(tint)[:, None, None]).clamp(-1, 1)
