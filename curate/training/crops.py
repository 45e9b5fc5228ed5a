"""What an image tokenizer is trained on: random crops of images and video frames, read once into memory."""

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
from curate.sources import media_types
from curate.tokenizers.codecs.image_fsq import PATCH
from curate.training.packages import module_folder

RGB = NDArray[np.uint8]


class MediaSource(BaseModel):
    """Media by where they are installed, so that a shipped config names no machine's paths."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    root: str = Field(
        description="`package:NAME` (an installed Python package), `prefix` (the environment's folder) or `share` "
        "(where Debian packages keep their data)"
    )
    path: str = Field(min_length=1, description="glob below the root")
    exclude: tuple[str, ...] = Field((), description="file names to leave out, above all those of the evaluation")
    weight: float = Field(1.0, gt=0, description="how often a crop comes from this source, relative to the others")
    limit: int = Field(1000, gt=0, description="most files taken, evenly spaced in name order")

    def find(self, debian: Path) -> list[Path]:
        """The files, in name order; an empty list when its package is not installed."""
        kind, _, name = self.root.partition(":")
        if kind == "package":
            root = module_folder(name)
        elif kind in ("prefix", "share"):
            root = Path(sys.prefix) if kind == "prefix" else debian / "usr" / "share"
        else:
            raise CurateError(f"media root {self.root!r} is not known", "Use package:NAME, prefix or share.")
        if root is None:
            return []
        files = [p for p in sorted(root.glob(self.path)) if p.is_file() and p.name not in self.exclude]
        return files[:: max(1, math.ceil(len(files) / self.limit))]


class CropConfig(BaseModel):
    """What decides the batches: square crops of `crop` pixels from media that were reduced to `short_sides`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, ge=0)
    batch: int = Field(16, gt=0, description="crops in a batch")
    crop: int = Field(96, gt=0, multiple_of=PATCH, description="pixels on a side")
    short_sides: tuple[int, ...] = Field((160, 224, 256, 288, 384), description="pixels that images are reduced to")
    sizes_per_picture: int = Field(3, gt=0, description="at how many of the short sides an image is kept")
    frames_per_video: int = Field(40, gt=0, description="frames of a video that serve as images")
    media: tuple[MediaSource, ...] = ()


@dataclass(frozen=True)
class Pool:
    """Decoded training images, uint8 `(H, W, 3)`, and the chance of each to be cropped next."""

    images: list[RGB]
    chances: NDArray[np.float64]


def absent(sources: Sequence[MediaSource], debian: Path) -> list[str]:
    """The sources of which no file is on this machine, as `root/path`, which are said on stderr too."""
    lacking = [f"{s.root}/{s.path}" for s in sources if not s.find(debian)]
    for name in lacking:
        print(f"not on this machine, so left out: {name}", file=sys.stderr)
    return lacking


def files_of(media: Sequence[Path], kinds: frozenset[str]) -> list[Path]:
    """Files as they are given, and those in folders in name order, whose names are of a kind (`media_types`)."""
    every = [f for m in media for f in (sorted(m.rglob("*")) if m.is_dir() else [m])]
    return [f for f in every if f.suffix.lower().removeprefix(".") in kinds]


def frames_of(path: Path, short_side: int | None = None, every: int = 1) -> Iterator[RGB]:
    """Each `every`-th frame of a video, uint8 `(H, W, 3)`, as a build reads it: turned and stretched as it is shown.

    Args:
        short_side: pixels to reduce to; None: as it is.

    Raises:
        MediaError: it is no video, or a frame cannot be decoded.
    """
    with PyAVReader(path.read_bytes(), name=path.name) as reader:
        shown = reader.display_size()
        width, height = shown if short_side is None else (round(n * short_side / min(shown)) for n in shown)
        view = Frames(max(width, height), crop=False)
        for i, frame in enumerate(reader.frames(0, sys.maxsize)):
            if i % every == 0:
                yield render(Image.fromarray(frame.rgb()), view, frame.display, (width, height))


def _read(path: Path, frames: int, rng: np.random.Generator) -> Iterator[RGB]:
    """The images of a file; a file that cannot be decoded gives none. Transparency lies on a random colour."""
    try:
        if files_of([path], media_types.VIDEO):
            with PyAVReader(path.read_bytes(), name=path.name) as reader:
                count = sum(1 for _ in reader.frames(0, sys.maxsize))
            yield from frames_of(path, every=max(1, count // frames))
        elif files_of([path], media_types.IMAGE):
            with Image.open(path) as opened:
                image = opened.convert("RGBA")
            colour = tuple(int(v) for v in rng.integers(0, 256, 3))
            yield np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, (*colour, 255)), image))[..., :3]
    except (OSError, ValueError, Image.DecompressionBombError, MediaError) as error:
        print(f"skipped {path.name}: {error}", file=sys.stderr)


def _sizes(image: RGB, config: CropConfig, rng: np.random.Generator) -> Iterator[RGB]:
    """A few antialiased reductions of an image: the tokenizer meets images that were reduced to 256 pixels."""
    short = min(image.shape[:2])
    if short < config.crop:
        return
    sides = [s for s in config.short_sides if config.crop <= s <= short] or [short]
    for side in rng.permutation(sides)[: config.sizes_per_picture]:
        h, w = (max(config.crop, round(n * int(side) / short)) for n in image.shape[:2])
        yield np.asarray(Image.fromarray(image).resize((w, h), Image.Resampling.LANCZOS))


def read_pool(config: CropConfig, media: Sequence[Path], debian: Path) -> Pool:
    """Decodes `media` (files or folders), or with none given the config's own sources.

    Raises:
        CurateError: no image there is large enough.
    """
    if media:
        groups = [(1.0, files_of(media, media_types.SUFFIXES))]
    else:
        groups = [(source.weight, source.find(debian)) for source in config.media]
    rng = np.random.default_rng(config.seed)
    images: list[RGB] = []
    chances: list[float] = []
    for weight, files in groups:
        found = [s for f in files for p in _read(f, config.frames_per_video, rng) for s in _sizes(p, config, rng)]
        images += found
        chances += [weight / len(found) for _ in found]
    if not images:
        raise CurateError(
            f"no image of at least {config.crop} pixels was found to train on",
            "Give folders of images or videos, or install the packages that the config names.",
        )
    return Pool(images, np.asarray(chances) / sum(chances))


def crops(pool: Pool, config: CropConfig, step: int) -> Tensor:
    """The batch of a step: float32 `(batch, 3, crop, crop)` in [-1, 1], channels last in memory."""
    rng = np.random.default_rng((config.seed, step))
    batch = np.empty((config.batch, config.crop, config.crop, 3), np.float32)
    for i, which in enumerate(rng.choice(len(pool.images), config.batch, p=pool.chances)):
        image = pool.images[which]
        y, x = (int(rng.integers(0, n - config.crop + 1)) for n in image.shape[:2])
        cut = image[y : y + config.crop, x : x + config.crop][:, :: 1 if rng.random() < 0.5 else -1]
        one = cut.astype(np.float32) / 127.5 - 1
        if rng.random() < 0.3:  # few media: other exposures and white balances of the same ones help
            one = np.clip(one * rng.uniform(0.7, 1.2) + rng.uniform(-0.15, 0.15, 3).astype(np.float32), -1, 1)
        batch[i] = one
    return torch.from_numpy(batch).permute(0, 3, 1, 2)
