"""Trains an `ImageFSQ` tokenizer on folders of pictures and videos; behind `curate tokenizers train image`.

The batch of step t is a function of (seed, t) and of the media alone, and a checkpoint holds everything else, so a
run that was stopped and resumed sees the same batches as one that was not.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from vector_quantize_pytorch import FSQ

from curate.schema.errors import CurateError
from curate.tokenizers.image.fsq import ImageFSQNet, ImageFSQShape, channels_last
from curate.tokenizers.image.media import CropConfig, crops, read_pool
from curate.tokenizers.train_config import read_config

# What may differ between the two sessions of one run: it tells of the weights, or of the pace, but does not make them.
_NOT_COMPARED = {"media", "trained_on", "licence", "log_every", "checkpoint_every", "strip_every"}


class ImageTrainConfig(CropConfig):
    """Everything that decides the result of a training run, and the words of its card."""

    steps: int = Field(default=20_000, gt=0)
    learning_rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.05, ge=0, lt=1, description="share of the steps in which the rate rises")
    ema: float = Field(default=0.999, ge=0, lt=1)
    gradient_weight: float = Field(default=0.1, ge=0, description="weight of the L1 of the differences of neighbours")
    saturation_weight: float = Field(default=0.05, ge=0, description="weight of the square of |latent| beyond 2")
    clip: float = Field(default=0.3, gt=0, description="most norm of a gradient")
    bf16: bool = True
    log_every: int = Field(default=100, gt=0)
    checkpoint_every: int = Field(default=1000, gt=0)
    strip_every: int = Field(default=1000, gt=0, description="steps from one picture strip to the next")
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    patch: int = 8
    width: int = 128
    encoder_blocks: int = 4
    decoder_blocks: int = 4
    refine_width: int = 64
    refine_blocks: int = 2
    middle_width: int = 128
    middle_encoder_blocks: int = 2
    middle_decoder_blocks: int = 2
    trained_on: str = "media of the user"
    licence: str = "unknown"

    @classmethod
    def read(cls, path: Path) -> ImageTrainConfig:
        """The configuration in a `train.yaml`; CurateError where it is none."""
        return read_config(cls, path)

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
    d = len(net.shape.levels)
    flat = functional.pixel_unshuffle(sample, net.shape.patch).permute(0, 2, 3, 1).flatten(0, 2).double()
    mean = flat.mean(0)
    variance, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    # Standard deviation 0.9 spreads a bell over the levels behind tanh; the strongest axes get the finest levels.
    project = (axes.flip(1)[:, :d] / variance.flip(0)[:d].clamp_min(1e-6).sqrt() * 0.9).T
    net.patch_in.weight.copy_(project[..., None, None])
    _bias(net.patch_in.bias, -(project @ mean))
    z = ((flat - mean) @ project.T).float()
    codes, _ = FSQ(levels=list(net.shape.levels))(z[None])
    inputs = torch.cat([codes[0].double(), torch.ones(len(z), 1, dtype=torch.float64)], 1)
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
        self.net = channels_last(ImageFSQNet(config.shape).to(device))
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
        said = {"step": str(self.step), "config": self.config.model_dump_json()}
        part = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, said)
        part.replace(path)

    def load(self, path: Path) -> None:
        with safe_open(path, "pt", device=str(self.parameters[0].device)) as file:
            said = file.metadata()
            then, now = json.loads(said["config"]), json.loads(self.config.model_dump_json())
            then = {key: field.default for key, field in ImageTrainConfig.model_fields.items()} | then
            if any(then[key] != now[key] for key in now.keys() - _NOT_COMPARED):
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

    @torch.no_grad()
    def strip(self, x: Tensor) -> NDArray[np.uint8]:
        """`(N, 3, H, W)` above, what the averaged net makes of it below: uint8 `(2 H, N W, 3)`."""
        y = functional_call(self.net, dict(zip(self.names, self.mean, strict=True)), (x,))
        rows = torch.cat([torch.cat(list(x), 2), torch.cat(list(y), 2)], 1)
        return ((rows + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()

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
        out: folder for checkpoint, weights, `log.jsonl`, and each `strip_every` steps a `strip-STEP.png`: crops of the
            media that are the same all along, and below them what comes back.
        device: a torch device; CPU and CUDA differ in their last bits and so in the weights.
        share: where `share` sources lie.
        say: gets one line of progress for each log entry.
        stop_at: end this session at a step, to resume later; the schedule still spans `config.steps`.

    Returns:
        The weights file: averaged weights as fp16, the architecture and the words of the card in its header.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = out / "checkpoint.safetensors"
    run, where = _Run(config, torch.device(device)), torch.device(device)
    pool = read_pool(config, media, share)
    say(f"{len(pool.pictures)} pictures at their sizes")
    if checkpoint.exists():
        run.load(checkpoint)
    else:
        run.begin(torch.cat([crops(pool, config, -1 - i + (1 << 32)) for i in range(32)]))
    shown = crops(pool, config, 1 << 33)[:8].to(where)
    begun, first, end = time.monotonic(), run.step, min(config.steps, stop_at or config.steps)
    with (out / "log.jsonl").open("a") as log:
        sums = torch.zeros(3)
        while run.step < end:
            loss, psnr = run.advance(crops(pool, config, run.step).to(where))
            sums += torch.stack([loss, psnr, torch.ones_like(loss)]).cpu()
            if run.step % config.log_every == 0 or run.step == end:
                loss_mean, psnr_mean = (sums[:2] / sums[2]).tolist()
                if not math.isfinite(loss_mean):
                    raise CurateError(f"training diverged before step {run.step}", "Lower learning_rate or clip.")
                log.write(json.dumps({"step": run.step, "loss": loss_mean, "psnr": psnr_mean}) + "\n")
                log.flush()
                pace = (time.monotonic() - begun) / (run.step - first)
                say(f"{run.step} loss {loss_mean:.4f} psnr {psnr_mean:.2f} dB, {pace:.3f} s a step")
                sums.zero_()
            if run.step % config.strip_every == 0 or run.step == end:
                Image.fromarray(run.strip(shown)).save(out / f"strip-{run.step:06d}.png")
            if run.step % config.checkpoint_every == 0 or run.step == end:
                run.save(checkpoint)
    weights = out / "weights.safetensors"
    # The config's words are about the config's media; of other media nothing is known here but that they are others.
    words = config.model_copy(update={"trained_on": "media of the user", "licence": "unknown"}) if media else config
    write_weights(run.averaged(), words, weights)
    return weights


def write_weights(tensors: dict[str, Tensor], config: ImageTrainConfig, path: Path) -> None:
    """fp16, because its rounding costs nothing that can be measured here and halves the file."""
    halves = {name: t.half().contiguous() for name, t in sorted(tensors.items())}
    said = {"shape": vars(config.shape), "trained_on": config.trained_on, "licence": config.licence}
    # One entry: the library writes several in an order that changes from run to run, and the bytes are hashed.
    save_file(halves, path, {"curate": json.dumps(said, sort_keys=True)})
