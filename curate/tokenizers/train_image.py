"""Trains an `ImageFSQ` tokenizer on folders of pictures and videos; behind `curate tokenizers train image`.

The batch of step t is a function of (seed, t) and of the media alone, and a checkpoint holds everything else, so a
run that was stopped and resumed sees the same batches as one that was not.
"""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from pydantic import BaseModel, ConfigDict, Field
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from curate.schema.errors import CurateError
from curate.tokenizers.image_fsq import PATCH, ImageFSQNet, ImageFSQShape

PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif"}
VIDEOS = {".mp4", ".mpg", ".mkv", ".webm", ".mov", ".avi"}

RGB = NDArray[np.uint8]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class MediaSource(_Strict):
    """Media by where they are installed, so that a shipped config names no machine's paths.

    Attributes:
        root: `package:NAME` (an installed Python package), `prefix` (the environment's folder) or `share` (where
            Debian packages keep their data).
        path: glob below the root.
        exclude: file names to leave out, above all those of the evaluation.
        weight: how often a crop comes from this source, relative to the others.
        limit: most files taken, evenly spaced in name order.
    """

    root: str
    path: str
    exclude: tuple[str, ...] = ()
    weight: float = Field(1.0, gt=0)
    limit: int = Field(1000, gt=0)


class ImageTrainConfig(_Strict):
    """Everything that decides the result of a training run. Crops are squares of `crop` pixels."""

    seed: int = 0
    steps: int = Field(20_000, gt=0)
    batch: int = Field(16, gt=0)
    crop: int = Field(96, gt=0, multiple_of=PATCH)
    learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps in which the rate rises")
    ema: float = Field(0.999, ge=0, lt=1)
    gradient_weight: float = Field(0.1, ge=0, description="weight of the L1 of horizontal and vertical differences")
    saturation_weight: float = Field(0.05, ge=0, description="weight of the square of |latent| beyond 2")
    clip: float = Field(0.3, gt=0, description="most norm of a gradient")
    short_sides: tuple[int, ...] = (160, 224, 256, 288, 384)
    sizes_per_picture: int = Field(3, gt=0)
    frames_per_video: int = Field(40, gt=0)
    bf16: bool = True
    log_every: int = Field(100, gt=0)
    checkpoint_every: int = Field(1000, gt=0)
    width: int = 128
    encoder_blocks: int = 4
    decoder_blocks: int = 4
    refine_width: int = 64
    refine_blocks: int = 2
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    media: tuple[MediaSource, ...] = ()

    @classmethod
    def read(cls, path: Path) -> ImageTrainConfig:
        return cls.model_validate(yaml.safe_load(path.read_text()))

    @property
    def shape(self) -> ImageFSQShape:
        return ImageFSQShape(
            self.levels, self.width, self.encoder_blocks, self.decoder_blocks, self.refine_width, self.refine_blocks
        )


@dataclass(frozen=True)
class Pool:
    """Decoded training pictures, uint8 `(H, W, 3)`, and the chance of each to be cropped next."""

    pictures: list[RGB]
    chances: NDArray[np.float64]


def find_media(source: MediaSource, share: Path) -> list[Path]:
    """The files of a source, in name order; an empty list when its package is not installed."""
    kind, _, name = source.root.partition(":")
    if kind == "package":
        spec = importlib.util.find_spec(name)
        root = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    elif kind in ("prefix", "share"):
        root = Path(sys.prefix) if kind == "prefix" else share
    else:
        raise CurateError(f"media root {source.root!r} is not known", "Use package:NAME, prefix or share.")
    if root is None:
        return []
    files = [p for p in sorted(root.glob(source.path)) if p.is_file() and p.name not in source.exclude]
    return files[:: max(1, math.ceil(len(files) / source.limit))]


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
    except (OSError, UnidentifiedImageError, av.FFmpegError) as error:
        print(f"skipped {path.name}: {error}", file=sys.stderr)


def _video(path: Path, frames: int) -> Iterator[RGB]:
    with av.open(str(path)) as container:
        count = sum(1 for _ in container.decode(video=0))
    every = max(1, count // frames)
    with av.open(str(path)) as container:
        for i, frame in enumerate(container.decode(video=0)):
            if i % every == 0:
                yield frame.to_ndarray(format="rgb24")


def _sizes(picture: RGB, config: ImageTrainConfig, rng: np.random.Generator) -> Iterator[RGB]:
    """A few antialiased reductions of a picture: the tokenizer meets pictures that were reduced to 256 pixels."""
    short = min(picture.shape[:2])
    if short < config.crop:
        return
    sides = [s for s in config.short_sides if config.crop <= s <= short] or [short]
    for side in rng.permutation(sides)[: config.sizes_per_picture]:
        h, w = (max(config.crop, round(n * int(side) / short)) for n in picture.shape[:2])
        yield np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.LANCZOS))


def read_pool(config: ImageTrainConfig, media: Sequence[Path], share: Path) -> Pool:
    """Decodes `media` (files or folders), or with none given the config's own sources."""
    if media:
        every = [f for m in media for f in (sorted(m.rglob("*")) if m.is_dir() else [m])]
        groups = [(1.0, every)]
    else:
        groups = [(source.weight, find_media(source, share)) for source in config.media]
    rng = np.random.default_rng(config.seed)
    pictures: list[RGB] = []
    chances: list[float] = []
    for weight, files in groups:
        found = [s for f in files for p in _read(f, config.frames_per_video, rng) for s in _sizes(p, config, rng)]
        pictures += found
        chances += [weight / len(found)] * len(found)
    if not pictures:
        raise CurateError(
            f"no picture of at least {config.crop} pixels was found to train on",
            "Give folders of pictures or videos, or install the packages that the config names.",
        )
    return Pool(pictures, np.asarray(chances) / sum(chances))


def crops(pool: Pool, config: ImageTrainConfig, step: int) -> Tensor:
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


@torch.no_grad()
def start_from_pca(net: ImageFSQNet, sample: Tensor) -> None:
    """Makes the linear paths a PCA of 8x8 patches with a least-squares inverse; `sample` is `(N, 3, H, W)`."""
    d = len(net.shape.levels)
    flat = functional.pixel_unshuffle(sample, PATCH).permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = flat.mean(0)
    variance, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    # Standard deviation 0.9 spreads a bell over the levels behind tanh; the strongest axes get the finest levels.
    project = (axes.flip(1)[:, :d] / variance.flip(0)[:d].sqrt() * 0.9).T
    net.patch_in.weight.copy_(project[..., None, None])
    _bias(net.patch_in.bias, -(project @ mean))
    z = ((flat - mean) @ project.T).float()
    codes, _ = net.quantise(z.T[None, :, None, :])
    inputs = torch.cat([codes[0, :, 0].T.double(), torch.ones(len(z), 1, dtype=torch.float64)], 1)
    inverse = torch.linalg.lstsq(inputs, flat).solution
    net.patch_out.weight.copy_(inverse[:d].T[..., None, None])
    _bias(net.patch_out.bias, inverse[d])


def _bias(bias: Tensor | None, values: Tensor) -> None:
    assert bias is not None
    bias.copy_(values)


def loss_of(y: Tensor, x: Tensor, gradient_weight: float) -> tuple[Tensor, Tensor]:
    """The loss, and the mean PSNR in dB over the batch.

    The root of each crop's squared error, not the squared error itself: mean PSNR weighs pictures by the logarithm
    of their error, and a plain mean would be ruled by the few busiest crops.
    """
    error = y.float() - x
    square = error.square().mean((1, 2, 3))
    slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    psnr = (10 * torch.log10(4 / square.detach().clamp_min(1e-10))).mean()
    return (square + 1e-6).sqrt().mean() + gradient_weight * slopes, psnr


def learning_rate(config: ImageTrainConfig, step: int) -> float:
    """One cycle: a linear rise, then a cosine fall to a hundredth (after Smith and Topin 2017)."""
    rise = max(1, round(config.warmup * config.steps))
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    way = (step - rise) / max(1, config.steps - rise)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * way)) / 2)


class _Run:
    """The state of training: net, its moving average and Adam's moments; saved as safetensors, never as a pickle."""

    def __init__(self, config: ImageTrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.step = config, 0
        self.net = ImageFSQNet(config.shape).to(device, memory_format=torch.channels_last)
        self.names, self.parameters = zip(*self.net.named_parameters(), strict=True)
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, betas=(0.9, 0.99))
        self.mean: list[Tensor] = []

    def begin(self, sample: Tensor) -> None:
        start_from_pca(self.net, sample)
        self.mean = [p.detach().clone() for p in self.parameters]

    def advance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.config, self.step)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.config.bf16):
            z = self.net.latent(x)
            y = self.net.pixels(self.net.quantise(z)[0])
        loss, psnr = loss_of(y, x, self.config.gradient_weight)
        # Behind tanh a latent that went too far gets no gradient to come back by; this is one.
        loss = loss + self.config.saturation_weight * functional.relu(z.abs() - 2).square().mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimizer.step()
        self.step += 1
        # The average forgets its start quickly at first, or the untrained net would linger in it.
        keep = min(self.config.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - keep)
        return loss.detach(), psnr

    def save(self, path: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for name, p, mean in zip(self.names, self.parameters, self.mean, strict=True):
            state = self.optimizer.state[p]
            tensors |= {f"net.{name}": p.detach(), f"mean.{name}": mean}
            tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
        said = {"step": str(self.step), "config": self.config.model_dump_json(exclude={"media"})}
        part = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, said)
        part.replace(path)

    def load(self, path: Path) -> None:
        with safe_open(path, "pt", device=str(self.parameters[0].device)) as file:
            said = file.metadata()
            if said["config"] != self.config.model_dump_json(exclude={"media"}):
                raise CurateError(
                    f"{path.name} was made with another config", "Give another output folder, or the config of then."
                )
            self.step = int(said["step"])
            self.mean = [file.get_tensor(f"mean.{name}") for name in self.names]
            with torch.no_grad():
                for name, p in zip(self.names, self.parameters, strict=True):
                    p.copy_(file.get_tensor(f"net.{name}"))
                    self.optimizer.state[p] = {
                        "step": torch.tensor(float(self.step)),
                        "exp_avg": file.get_tensor(f"first.{name}").contiguous(memory_format=torch.preserve_format),
                        "exp_avg_sq": file.get_tensor(f"second.{name}"),
                    }

    def averaged(self) -> dict[str, Tensor]:
        return {name: mean.cpu() for name, mean in zip(self.names, self.mean, strict=True)}


def train_image(
    config: ImageTrainConfig,
    media: Sequence[Path],
    out: Path,
    device: str = "cpu",
    share: Path = Path("/usr/share"),
    say: Callable[[str], None] = print,
    stop_at: int | None = None,
) -> Path:
    """Trains, or carries on from `out/checkpoint.safetensors`, and writes `out/weights.safetensors`.

    Args:
        config: architecture, schedule and, when `media` is empty, the media.
        media: pictures, videos, or folders of them; replaces the config's media.
        out: folder for checkpoint, weights, `log.jsonl` and `strip.png` (original above, decoded below).
        device: a torch device; CPU and CUDA differ in their last bits and so in the weights.
        share: where `share` sources lie.
        say: gets one line of progress for each log entry.
        stop_at: end this session at a step, to resume later; the schedule still spans `config.steps`.

    Returns:
        The weights file: averaged weights as fp16, the architecture as JSON in its header.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    run, where = _Run(config, torch.device(device)), torch.device(device)
    pool = read_pool(config, media, share)
    say(f"{len(pool.pictures)} pictures at their sizes")
    if checkpoint.exists():
        run.load(checkpoint)
    else:
        run.begin(torch.cat([crops(pool, config, -1 - i + (1 << 32)) for i in range(32)]).to(where))
    begun, first, end = time.monotonic(), run.step, min(config.steps, stop_at or config.steps)
    with (out / "log.jsonl").open("a") as log:
        sums = torch.zeros(3)
        while run.step < end:
            loss, psnr = run.advance(crops(pool, config, run.step).to(where))
            sums += torch.stack([loss, psnr, torch.ones_like(loss)]).cpu()
            if run.step % config.log_every == 0 or run.step == end:
                line: dict[str, Any] = {"step": run.step, "loss": float(sums[0] / sums[2]), "psnr": float(sums[1] / sums[2])}
                log.write(json.dumps(line) + "\n")
                log.flush()
                pace = (time.monotonic() - begun) / (run.step - first)
                say(f"{line['step']} loss {line['loss']:.4f} psnr {line['psnr']:.2f} dB, {pace:.3f} s a step")
                sums.zero_()
            if run.step % config.checkpoint_every == 0 or run.step == end:
                run.save(checkpoint)
    weights = out / "weights.safetensors"
    write_weights(run.averaged(), config.shape, weights)
    return weights


def write_weights(tensors: dict[str, Tensor], shape: ImageFSQShape, path: Path) -> None:
    """fp16, because its rounding costs nothing that can be measured here and halves the file."""
    halves = {name: t.half().contiguous() for name, t in sorted(tensors.items())}
    save_file(halves, path, {"shape": json.dumps(vars(shape), sort_keys=True)})
