"""What an image tokenizer is trained on: random crops of pictures and video frames, read once into memory."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from curate.media.images import render
from curate.media.requests import Frames
from curate.media.video import PyAVReader
from curate.schema.errors import CurateError, MediaError
from curate.tokenizers.codecs.image_fsq import PATCH
from curate.training.packages import module_folder

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
VIDEOS = {".mp4", ".mpg", ".mkv", ".webm", ".mov", ".avi"}

RGB = NDArray[np.uint8]


class MediaSource(BaseModel):
    """Media by where they are installed, so that a shipped config names no machine's paths.

    Attributes:
        root: `package:NAME` (an installed Python package), `prefix` (the environment's folder) or `share` (where
            Debian packages keep their data).
        path: glob below the root.
        exclude: file names to leave out, above all those of the evaluation.
        weight: how often a crop comes from this source, relative to the others.
        limit: most files taken, evenly spaced in name order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: str
    path: str = Field(min_length=1)
    exclude: tuple[str, ...] = ()
    weight: float = Field(default=1.0, gt=0)
    limit: int = Field(default=1000, gt=0)


class CropConfig(BaseModel):
    """What decides the batches: square crops of `crop` pixels from media that were reduced to `short_sides`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(default=0, ge=0)
    batch: int = Field(default=16, gt=0)
    crop: int = Field(default=96, gt=0, multiple_of=PATCH)
    short_sides: tuple[int, ...] = (160, 224, 256, 288, 384)
    sizes_per_picture: int = Field(default=3, gt=0)
    frames_per_video: int = Field(default=40, gt=0)
    media: tuple[MediaSource, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Decoded training pictures, uint8 `(H, W, 3)`, and the chance of each to be cropped next."""

    pictures: list[RGB]
    chances: NDArray[np.float64]


def find_media(source: MediaSource, share: Path) -> list[Path]:
    """The files of a source, in name order; an empty list when its package is not installed."""
    kind, _, name = source.root.partition(":")
    if kind == "package":
        root = module_folder(name)
    elif kind in ("prefix", "share"):
        root = Path(sys.prefix) if kind == "prefix" else share
    else:
        raise CurateError(f"media root {source.root!r} is not known", "Use package:NAME, prefix or share.")
    if root is None:
        return []
    files = [p for p in sorted(root.glob(source.path)) if p.is_file() and p.name not in source.exclude]
    return files[:: max(1, math.ceil(len(files) / source.limit))]


def absent(sources: Sequence[MediaSource], share: Path) -> list[str]:
    """The sources of which no file is on this machine, as `root/path`."""
    return [f"{s.root}/{s.path}" for s in sources if not find_media(s, share)]


def files_of(media: Sequence[Path]) -> list[Path]:
    """Files as they are given, and those in folders in name order."""
    return [f for m in media for f in (sorted(m.rglob("*")) if m.is_dir() else [m])]


def _read(path: Path, frames: int, rng: np.random.Generator) -> Iterator[RGB]:
    """The pictures of a file; a file that cannot be decoded gives none. Transparency lies on a random colour."""
    try:
        if path.suffix.lower() in VIDEOS:
            yield from _video(path, frames)
        elif path.suffix.lower() in PICTURES:
            with Image.open(path) as opened:
                picture = opened.convert("RGBA")
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
            yield np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, (*colour, 255)), picture))[..., :3]
    except (OSError, ValueError, Image.DecompressionBombError, MediaError) as error:
        print(f"skipped {path.name}: {error}", file=sys.stderr)


def _video(path: Path, frames: int) -> Iterator[RGB]:
    """Evenly spaced frames, turned and stretched as they are shown (`PyAVReader`)."""
    data = path.read_bytes()
    with PyAVReader(data, name=path.name) as reader:
        count = sum(1 for _ in reader.frames(0, sys.maxsize))
    every = max(1, count // frames)
    with PyAVReader(data, name=path.name) as reader:
        size = reader.display_size()
        view = Frames(max(size), crop=False)
        for i, picture in enumerate(reader.frames(0, sys.maxsize)):
            if i % every == 0:
                yield render(Image.fromarray(picture.rgb()), view, picture.display, size)


def _sizes(picture: RGB, config: CropConfig, rng: np.random.Generator) -> Iterator[RGB]:
    """A few antialiased reductions of a picture: the tokenizer meets pictures that were reduced to 256 pixels."""
    short = min(picture.shape[:2])
    if short < config.crop:
        return
    sides = [s for s in config.short_sides if config.crop <= s <= short] or [short]
    for side in rng.permutation(sides)[: config.sizes_per_picture]:
        h, w = (max(config.crop, round(n * int(side) / short)) for n in picture.shape[:2])
        yield np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.LANCZOS))


def read_pool(config: CropConfig, media: Sequence[Path], share: Path) -> Pool:
    """Decodes `media` (files or folders), or with none given the config's own sources."""
    if media:
        groups = [(1.0, files_of(media))]
    else:
        groups = [(source.weight, find_media(source, share)) for source in config.media]
    for name in [] if media else absent(config.media, share):
        print(f"not on this machine, so left out: {name}", file=sys.stderr)
    rng = np.random.default_rng(config.seed)
    pictures: list[RGB] = []
    chances: list[float] = []
    for weight, files in groups:
        found = [s for f in files for p in _read(f, config.frames_per_video, rng) for s in _sizes(p, config, rng)]
        pictures += found
        chances += [weight / len(found) for _ in found]
    if not pictures:
        raise CurateError(
            f"no picture of at least {config.crop} pixels was found to train on",
            "Give folders of pictures or videos, or install the packages that the config names.",
        )
    return Pool(pictures, np.asarray(chances) / sum(chances))


def crops(pool: Pool, config: CropConfig, step: int) -> Tensor:
    """The batch of a step: float32 `(batch, 3, crop, crop)` in [-1, 1], channels last in memory."""
    rng = np.random.default_rng((config.seed, step))
    batch = np.empty((config.batch, config.crop, config.crop, 3), np.float32)
    for i, which in enumerate(rng.choice(len(pool.pictures), config.batch, p=pool.chances)):
        picture = pool.pictures[which]
        y, x = (int(rng.integers(0, n - config.crop + 1)) for n in picture.shape[:2])
        cut = picture[y : y + config.crop, x : x + config.crop][:, :: 1 if rng.random() < 0.5 else -1]
        one = cut.astype(np.float32) / 127.5 - 1
        if rng.random() < 0.3:  # few media: other exposures and white balances of the same ones help
            one = np.clip(one * rng.uniform(0.7, 1.2) + rng.uniform(-0.15, 0.15, 3).astype(np.float32), -1, 1)
        batch[i] = one
    return torch.from_numpy(batch).permute(0, 3, 1, 2)
