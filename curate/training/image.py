"""Trains an `ImageFSQ` tokenizer on folders of pictures and videos; behind `curate tokenizers train image`.

The batch of step t is a function of (seed, t) and of the media alone, and a checkpoint holds everything else, so a
run that was stopped and resumed sees the same batches as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from vector_quantize_pytorch import FSQ

from curate.models.batches import usable
from curate.tokenizers.codecs.image_fsq import ImageFSQNet, ImageFSQShape, channels_last
from curate.training.image_media import CropConfig, absent, crops, read_pool
from curate.training.loop import Run, RunConfig, train, write_halves


class ImageTrainConfig(CropConfig, RunConfig):
    """Everything that decides the result of a training run, and the words of its card."""

    steps: int = Field(default=20_000, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1)
    checkpoint_every: int = Field(default=1000, gt=0)
    strip_every: int = Field(default=1000, gt=0)
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    patch: Literal[8, 16] = 8
    width: int = Field(default=128, gt=0)
    encoder_blocks: int = Field(default=4, ge=0)
    decoder_blocks: int = Field(default=4, ge=0)
    refine_width: int = Field(default=64, gt=0)
    refine_blocks: int = Field(default=2, ge=0)
    middle_width: int = Field(default=128, gt=0)
    middle_encoder_blocks: int = Field(default=2, ge=0)
    middle_decoder_blocks: int = Field(default=2, ge=0)

    @property
    def shape(self) -> ImageFSQShape:
        return ImageFSQShape(**{field.name: getattr(self, field.name) for field in fields(ImageFSQShape)})

    @model_validator(mode="after")
    def _whole_patches(self) -> ImageTrainConfig:
        if self.crop % self.patch:
            raise ValueError(f"crop {self.crop} is not a multiple of patch {self.patch}")
        return self


@torch.no_grad()
def start_from_pca(net: ImageFSQNet, sample: Tensor) -> None:
    """Makes the linear paths a PCA of patches and its least-squares inverse.

    Args:
        net: on any device.
        sample: `(N, 3, H, W)` in [-1, 1], on the CPU.
    """
    levels = list(net.shape.levels)
    rows = functional.pixel_unshuffle(sample, net.shape.patch).permute(0, 2, 3, 1).flatten(0, 2).double()
    set_linear_paths(net.patch_in, net.patch_out, rows, lambda z: FSQ(levels=levels)(z[None])[0][0])


def set_linear_paths(
    patch_in: nn.Conv2d, patch_out: nn.Conv2d, rows: Tensor, quantised: Callable[[Tensor], Tensor]
) -> None:
    """Makes a 1x1 convolution the PCA of `rows`, and another the least-squares inverse of its quantised result.

    Args:
        patch_in: from a row's n values to d. patch_out: from d to n.
        rows: fp64 `(rows, n)`, on the CPU.
        quantised: fp32 `(rows, d)` to FSQ codes of the same shape.
    """
    d, mean = len(patch_in.weight), rows.mean(0)
    variance, axes = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    # Standard deviation 0.9 spreads a bell over the levels behind tanh; the strongest axes get the finest levels.
    project = (axes.flip(1)[:, :d] / variance.flip(0)[:d].clamp_min(1e-6).sqrt() * 0.9).T
    codes = quantised(((rows - mean) @ project.T).float())
    inputs = torch.cat([codes.double(), torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    inverse = torch.linalg.lstsq(inputs, rows).solution
    for conv, weight, bias in ((patch_in, project, -(project @ mean)), (patch_out, inverse[:d].T, inverse[d])):
        conv.weight.copy_(weight[..., None, None])
        assert conv.bias is not None
        conv.bias.copy_(bias)


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


class _Run(Run[ImageTrainConfig]):
    figures = ("loss", "psnr")

    def __init__(self, config: ImageTrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.net = channels_last(ImageFSQNet(config.shape).to(device))
        super().__init__(config, self.net)

    def advance(self, batch: Tensor) -> Tensor:
        """One step over `(N, 3, H, W)`."""
        self.start_step()
        with self.cast():
            z = self.net.latent(batch)
            y = self.net.pixels(self.net.quantise(z)[0])
        loss, psnr = loss_of(y, batch, self.config.gradient_weight)
        loss = loss + self.saturation(z)
        loss.backward()  # type: ignore[no-untyped-call]
        self.end_step()
        return torch.stack([loss.detach(), psnr]).cpu()

    @torch.no_grad()
    def strip(self, x: Tensor) -> NDArray[np.uint8]:
        """`(N, 3, H, W)` above, what the averaged net makes of it below: uint8 `(2 H, N W, 3)`."""
        y = functional_call(self.net, self.averaged(), (x,))
        rows = torch.cat([torch.cat(list(x), 2), torch.cat(list(y), 2)], 1)
        return ((rows + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()


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
        out: folder for checkpoint, weights, `log.jsonl`, and each `strip_every` steps a `strip-STEP.png`: crops of the
            media that are the same all along, and below them what comes back.
        device: a torch device; CPU and CUDA differ in their last bits and so in the weights.
        share: where `share` sources lie.
        say: gets one line of progress for each log entry.
        stop_at: end this session at a step, to resume later; the schedule still spans `config.steps`.

    Returns:
        The weights file: averaged weights as fp16, the architecture and the words of the card in its header.

    Raises:
        CurateError: no media, no such device, a checkpoint of another config, or the loss is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, weights = out / "checkpoint.safetensors", out / "weights.safetensors"
    run = _Run(config, usable(device))
    pool = read_pool(config, media, share)
    say(f"{len(pool.pictures)} pictures at their sizes")
    if checkpoint.exists():
        run.load(checkpoint)
    else:
        start_from_pca(run.net, torch.cat([crops(pool, config, -1 - i + (1 << 32)) for i in range(32)]))
        run.begin()
    shown = crops(pool, config, 1 << 33)[:8].to(run.device)
    train(
        run,
        lambda step: crops(pool, config, step),
        min(config.steps, stop_at or config.steps),
        out,
        say,
        lambda step: Image.fromarray(run.strip(shown)).save(out / f"strip-{step:06d}.png"),
    )
    write_halves(run.averaged(), config.words(vars(config.shape), not media, absent(config.media, share)), weights)
    return weights
