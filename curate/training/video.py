"""Trains a `VideoFSQ` tokenizer on folders of videos and pictures.

The batch of step t is a function of (seed, t) and of the media alone, and a checkpoint holds everything else, so a
run that was stopped and resumed sees the same batches as one that was not. The image tokenizer of the first frame is
trained already and stays as it is: a picture has the same ids as a picture and as a video of one frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional
from vector_quantize_pytorch import FSQ

from curate.models.batches import usable
from curate.tokenizers import zoo
from curate.tokenizers.codecs.image_fsq import PATCH, channels_last, image_shape
from curate.tokenizers.codecs.video_fsq_net import GROUP, VideoFSQNet, VideoFSQShape, group_of
from curate.tokenizers.folders import WEIGHTS, words_of
from curate.training.image import set_linear_paths
from curate.training.image_media import absent
from curate.training.loop import Run, RunConfig, train, write_halves
from curate.training.video_clips import ClipConfig, ClipPool, clip_batch, read_clips

_FIXED = 1 << 32
"""Batches from here on are of no training step: PCA and strips."""


class VideoTrainConfig(ClipConfig, RunConfig):
    """Everything that decides the result of a training run, and the words of its card.

    Attributes:
        image: the tokenizer of the first frame: `image-fsq` with 8x8 patches, by name in the zoo or by folder.
        temporal_weight: weight of the error of differences of frames.
    """

    image: str = "image-fsq-64k"
    batch: int = Field(default=4, gt=0)
    steps: int = Field(default=10_000, gt=0)
    learning_rate: float = Field(default=6e-4, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1)
    temporal_weight: float = Field(default=0.3, ge=0)
    checkpoint_every: int = Field(default=500, gt=0)
    strip_every: int = Field(default=2000, gt=0)
    width: int = Field(default=128, gt=0)
    encoder_blocks: int = Field(default=3, ge=0)
    decoder_blocks: int = Field(default=4, ge=0)
    refine_width: int = Field(default=64, gt=0)
    refine_blocks: int = Field(default=2, ge=0)


@torch.no_grad()
def start_from_pca(net: VideoFSQNet, clips: Tensor) -> None:
    """Makes the linear paths a PCA of the change of 4x8x8 blocks after a first frame, and its least-squares inverse.

    Args:
        net: on any device, its image tokenizer trained.
        clips: `(N, T, 3, H, W)` in [-1, 1], T at least 5, on the device of the net.
    """
    past = net.first_past(net.quantise(net.first_latent(clips[:, 0]))[0])
    change = group_of([clips[:, 1 + i] - past[:, -3:] for i in range(GROUP)])
    rows = functional.pixel_unshuffle(change, PATCH).permute(0, 2, 3, 1).flatten(0, 2).double().cpu()
    levels = list(net.shape.image.levels)
    set_linear_paths(net.patch_in, net.patch_out, rows, lambda z: FSQ(levels=levels)(z[None])[0][0])


def loss_of(y: Tensor, x: Tensor, last: tuple[Tensor, Tensor], config: VideoTrainConfig) -> tuple[Tensor, Tensor]:
    """The loss of one group, and its mean PSNR and temporal PSNR in dB.

    Args:
        y, x: the group decoded and original, `(N, 12, H, W)`.
        last: the frame before, decoded and original, `(N, 3, H, W)`.
    """
    error = y.float() - x
    flicker = error - torch.cat([last[0] - last[1], error[:, :-3]], 1)
    square, moving = (e.square().mean((1, 2, 3)) for e in (error, flicker))
    slopes = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    # Roots for each clip: mean PSNR weighs clips by the logarithm of their error, and the busiest would rule a sum.
    roots = (square + 1e-6).sqrt().mean() + config.temporal_weight * (moving + 1e-6).sqrt().mean()
    psnr = torch.stack([(10 * torch.log10(4 / e.detach().clamp_min(1e-10))).mean() for e in (square, moving)])
    return roots + config.gradient_weight * slopes, psnr


class _Run(Run[VideoTrainConfig]):
    figures = ("loss", "psnr", "temporal_psnr")

    def __init__(self, config: VideoTrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        weights = zoo.folder(config.image) / WEIGHTS
        shape = VideoFSQShape(
            image_shape(words_of(weights.read_bytes())["shape"]), config.width, config.encoder_blocks,
            config.decoder_blocks, config.refine_width, config.refine_blocks,
        )  # fmt: skip
        self.net = VideoFSQNet(shape)
        self.picture = load_file(weights)
        self.net.picture.load_state_dict({name: t.float() for name, t in self.picture.items()})
        self.net.picture.requires_grad_(False)
        channels_last(self.net.to(device))
        super().__init__(config, self.net, {"image": zoo.card(config.image).weights_digest})

    def advance(self, batch: Tensor) -> Tensor:
        """One step over `(N, T, 3, H, W)`; figures are means over the groups."""
        config, figures = self.config, torch.zeros(len(self.figures))
        self.start_step()
        with torch.no_grad(), self.cast():
            past = self.net.first_past(self.net.quantise(self.net.first_latent(batch[:, 0]))[0])
        for i in range(config.groups):
            x, before = batch[:, 1 + GROUP * i : 1 + GROUP * (i + 1)].flatten(1, 2), batch[:, GROUP * i]
            with self.cast():
                z = self.net.latent(x, past)
                y = self.net.pixels(self.net.quantise(z)[0], past)
            loss, psnr = loss_of(y, x, (past[:, -3:], before), config)
            ((loss + self.saturation(z)) / config.groups).backward()  # type: ignore[no-untyped-call]
            figures += torch.stack([loss.detach(), *psnr]).cpu() / config.groups
            past = y.detach().float().clamp(-1, 1)
        self.end_step()
        return figures

    @torch.no_grad()
    def strip(self, clips: Tensor) -> NDArray[np.uint8]:
        """The first frame and the last of each group; originals above, what the net now makes of them below."""
        with self.cast():
            past = self.net.first_past(self.net.quantise(self.net.first_latent(clips[:, 0]))[0])
            back = [past[:, -3:]]
            for i in range(self.config.groups):
                x = clips[:, 1 + GROUP * i : 1 + GROUP * (i + 1)].flatten(1, 2)
                past = self.net.pixels(self.net.quantise(self.net.latent(x, past))[0], past).float().clamp(-1, 1)
                back.append(past[:, -3:])
        rows = torch.stack([clips[:, ::GROUP], torch.stack(back, 1)], 1)  # (N, 2, 1 + groups, 3, H, W)
        n, two, steps, three, h, w = rows.shape
        pixels = ((rows.cpu() + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 1, 4, 2, 5, 3).reshape(n * two * h, steps * w, three).numpy()

    def weights(self) -> dict[str, Tensor]:
        """Averaged weights, and those of the image tokenizer."""
        return {f"picture.{name}": t for name, t in self.picture.items()} | self.averaged()


def train_video(
    config: VideoTrainConfig,
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
        media: videos, pictures (for camera moves over them), or folders of them; replaces the config's media.
        out: folder for checkpoint, weights, `log.jsonl` and strips.
        device: a torch device; CPU and CUDA differ in their last bits and so in the weights.
        share: where `share` sources lie.
        say: gets one line of progress for each log entry.
        stop_at: end this session at a step, to resume later; the schedule still spans `config.steps`. At or before
            the checkpoint's step nothing is trained, and its weights are written.

    Returns:
        The weights file: averaged weights as fp16, the architecture and the words of the card in its header.

    Raises:
        CurateError: no media, no such image tokenizer or device, a checkpoint of another config, or the
            loss is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, weights = out / "checkpoint.safetensors", out / "weights.safetensors"
    run = _Run(config, usable(device))
    end = min(config.steps, stop_at or config.steps)
    if checkpoint.exists():
        run.load(checkpoint)
    if run.step < end:
        _train(run, read_clips(config, media, share), out, say, end)
    lacking = absent([*config.videos, *config.media], share)
    write_halves(run.weights(), config.words(run.net.shape.words(), not media, lacking), weights)
    return weights


def _train(run: _Run, pool: ClipPool, out: Path, say: Callable[[str], None], end: int) -> None:
    config = run.config
    say(f"{len(pool.videos)} videos at their sizes, {len(pool.pictures.pictures) if pool.pictures else 0} pictures")
    shown = clip_batch(pool, config, _FIXED).to(run.device)
    if run.step == 0:
        sample = torch.cat([clip_batch(pool, config, _FIXED + 1 + i) for i in range(16)])
        start_from_pca(run.net, sample.to(run.device))
        run.begin()
    train(
        run,
        lambda step: clip_batch(pool, config, step),
        end,
        out,
        say,
        lambda step: Image.fromarray(run.strip(shown)).save(out / f"strip-{step}.png"),
    )
