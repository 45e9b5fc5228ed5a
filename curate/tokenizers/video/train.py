"""Trains a `VideoFSQ` tokenizer on folders of videos and pictures.

The batch of step t is a function of (seed, t) and of the media alone, and a checkpoint holds everything else, so a
run that was stopped and resumed sees the same batches as one that was not. The image tokenizer of the first frame is
trained already and stays as it is: a picture has the same ids as a picture and as a video of one frame.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image
from pydantic import Field
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from curate.schema.errors import CurateError
from curate.tokenizers import zoo
from curate.tokenizers.image.fsq import PATCH, words_of
from curate.tokenizers.quantisers.layers import FSQLayer
from curate.tokenizers.train_config import read_config
from curate.tokenizers.video.clips import ClipConfig, clip_batch, read_clips
from curate.tokenizers.video.fsq import channels_last
from curate.tokenizers.video.net import GROUP, VideoFSQNet, VideoFSQShape, group_of, image_shape

# What may differ between the two sessions of one run: it tells of the weights, or of the pace, but does not make them.
_NOT_COMPARED = {"media", "videos", "trained_on", "licence", "log_every", "checkpoint_every", "strip_every"}
_FIXED = 1 << 32
"""Batches from here on are of no training step: PCA and strips."""


class VideoTrainConfig(ClipConfig):
    """Everything that decides the result of a training run, and the words of its card.

    Attributes:
        image: the tokenizer of the first frame: `image-fsq` with 8x8 patches, by name in the zoo or by folder.
    """

    image: str = "image-fsq-64k"
    batch: int = Field(default=4, gt=0)
    steps: int = Field(default=10_000, gt=0)
    learning_rate: float = Field(default=6e-4, gt=0)
    warmup: float = Field(default=0.02, ge=0, lt=1, description="share of the steps in which the rate rises")
    ema: float = Field(default=0.999, ge=0, lt=1)
    gradient_weight: float = Field(default=0.1, ge=0, description="weight of the L1 of the differences of neighbours")
    temporal_weight: float = Field(default=0.3, ge=0, description="weight of the error of differences of frames")
    saturation_weight: float = Field(default=0.05, ge=0, description="weight of the square of |latent| beyond 2")
    clip: float = Field(default=0.3, gt=0, description="most norm of a gradient")
    bf16: bool = True
    log_every: int = Field(default=100, gt=0)
    checkpoint_every: int = Field(default=500, gt=0)
    strip_every: int = Field(default=2000, gt=0)
    width: int = 128
    encoder_blocks: int = 3
    decoder_blocks: int = 4
    refine_width: int = 64
    refine_blocks: int = 2
    trained_on: str = "media of the user"
    licence: str = "unknown"

    @classmethod
    def read(cls, path: Path) -> VideoTrainConfig:
        """The configuration in a `train.yaml`; CurateError where it is none."""
        return read_config(cls, path)


def learning_rate(config: VideoTrainConfig, step: int) -> float:
    """One cycle: a linear rise, then a cosine fall to a hundredth (after Smith and Topin 2017)."""
    rise = max(1, round(config.warmup * config.steps))
    if step < rise:
        return config.learning_rate * (step + 1) / rise
    way = (step - rise) / max(1, config.steps - rise)
    return config.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * way)) / 2)


@torch.no_grad()
def start_from_pca(net: VideoFSQNet, clips: Tensor) -> None:
    """Makes the linear paths a PCA of the change of 4x8x8 blocks after a first frame, and its least-squares inverse.

    Args:
        net: on any device, its image tokenizer trained.
        clips: `(N, T, 3, H, W)` in [-1, 1], T at least 5, on the device of the net.
    """
    levels = list(net.shape.image.levels)
    d = len(levels)
    past = net.first_past(net.quantise(net.first_latent(clips[:, 0]))[0])
    change = group_of([clips[:, 1 + i] - past[:, -3:] for i in range(GROUP)])
    flat = functional.pixel_unshuffle(change, PATCH).permute(0, 2, 3, 1).flatten(0, 2).double().cpu()
    mean = flat.mean(0)
    variance, axes = torch.linalg.eigh((flat - mean).T @ (flat - mean) / len(flat))
    # Standard deviation 0.9 spreads a bell over the levels behind tanh; the strongest axes get the finest levels.
    project = (axes.flip(1)[:, :d] / variance.flip(0)[:d].clamp_min(1e-6).sqrt() * 0.9).T
    codes, _ = FSQLayer(levels)(((flat - mean) @ project.T).float())
    inputs = torch.cat([codes.double(), torch.ones(len(flat), 1, dtype=torch.float64)], 1)
    inverse = torch.linalg.lstsq(inputs, flat).solution
    for conv, weight, bias in (
        (net.patch_in, project, -(project @ mean)),
        (net.patch_out, inverse[:d].T, inverse[d]),
    ):
        conv.weight.copy_(weight[..., None, None])
        assert conv.bias is not None
        conv.bias.copy_(bias)


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


class _Run:
    """The state of training: net, its moving average and Adam's moments; saved as safetensors, never as a pickle."""

    def __init__(self, config: VideoTrainConfig, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config, self.step, self.device = config, 0, device
        weights = zoo.folder(config.image) / "weights.safetensors"
        self.image_digest = zoo.card(config.image).weights_digest
        shape = VideoFSQShape(
            image_shape(words_of(weights.read_bytes())["shape"]), config.width, config.encoder_blocks,
            config.decoder_blocks, config.refine_width, config.refine_blocks,
        )  # fmt: skip
        self.net = VideoFSQNet(shape)
        self.picture = load_file(weights)
        self.net.picture.load_state_dict({name: t.float() for name, t in self.picture.items()})
        self.net.picture.requires_grad_(False)
        channels_last(self.net.to(device))
        trained = [(name, p) for name, p in self.net.named_parameters() if p.requires_grad]
        self.names, self.parameters = zip(*trained, strict=True)
        self.optimizer = torch.optim.Adam(self.parameters, lr=config.learning_rate, betas=(0.9, 0.99))
        self.mean: list[Tensor] = []

    def begin(self, sample: Tensor) -> None:
        start_from_pca(self.net, sample.to(self.device))
        self.mean = [p.detach().clone() for p in self.parameters]

    def advance(self, clips: Tensor) -> Tensor:
        """One step over `(N, T, 3, H, W)`; the means of loss, PSNR and temporal PSNR over the groups."""
        config, figures = self.config, torch.zeros(3)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(config, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad(), self._cast():
            past = self.net.first_past(self.net.quantise(self.net.first_latent(clips[:, 0]))[0])
        for i in range(config.groups):
            x, before = clips[:, 1 + GROUP * i : 1 + GROUP * (i + 1)].flatten(1, 2), clips[:, GROUP * i]
            with self._cast():
                z = self.net.latent(x, past)
                y = self.net.pixels(self.net.quantise(z)[0], past)
            loss, psnr = loss_of(y, x, (past[:, -3:], before), config)
            # Behind tanh a latent that went too far gets no gradient to come back by; this is one.
            total = loss + config.saturation_weight * functional.relu(z.abs() - 2).square().mean()
            (total / config.groups).backward()  # type: ignore[no-untyped-call]
            figures += torch.stack([loss.detach(), *psnr]).cpu() / config.groups
            past = y.detach().float().clamp(-1, 1)
        torch.nn.utils.clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step()
        self.step += 1
        # The average forgets its start quickly at first, or the untrained net would linger in it.
        keep = min(config.ema, self.step / (self.step + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.parameters], 1 - keep)
        return figures

    def _cast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    @torch.no_grad()
    def strip(self, clips: Tensor, path: Path) -> None:
        """The first frame and the last of each group; originals above, what the net now makes of them below."""
        with self._cast():
            past = self.net.first_past(self.net.quantise(self.net.first_latent(clips[:, 0]))[0])
            back = [past[:, -3:]]
            for i in range(self.config.groups):
                x = clips[:, 1 + GROUP * i : 1 + GROUP * (i + 1)].flatten(1, 2)
                past = self.net.pixels(self.net.quantise(self.net.latent(x, past))[0], past).float().clamp(-1, 1)
                back.append(past[:, -3:])
        rows = torch.stack([clips[:, ::GROUP], torch.stack(back, 1)], 1)  # (N, 2, 1 + groups, 3, H, W)
        n, two, steps, three, h, w = rows.shape
        pixels = ((rows.cpu() + 1) * 127.5).round().to(torch.uint8)
        wide = pixels.permute(0, 1, 4, 2, 5, 3).reshape(n * two * h, steps * w, three)
        Image.fromarray(wide.numpy()).save(path)

    def save(self, path: Path) -> None:
        tensors: dict[str, Tensor] = {}
        for name, p, mean in zip(self.names, self.parameters, self.mean, strict=True):
            state = self.optimizer.state[p]
            tensors |= {f"net.{name}": p.detach(), f"mean.{name}": mean}
            tensors |= {f"first.{name}": state["exp_avg"], f"second.{name}": state["exp_avg_sq"]}
        said = {"step": str(self.step), "config": self.config.model_dump_json(), "image": self.image_digest}
        part = path.with_suffix(".part")
        save_file({k: v.contiguous() for k, v in tensors.items()}, part, said)
        part.replace(path)

    def load(self, path: Path) -> None:
        with safe_open(path, "pt", device=str(self.device)) as file:
            said = file.metadata()
            then, now = json.loads(said["config"]), json.loads(self.config.model_dump_json())
            different = any(then.get(key) != now[key] for key in now.keys() - _NOT_COMPARED)
            if different or said["image"] != self.image_digest:
                raise CurateError(
                    f"{path.name} was made with another config or image tokenizer",
                    "Give another output folder, or the config of then.",
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

    def write_weights(self, config: VideoTrainConfig, path: Path) -> None:
        """Averaged weights as fp16, whose rounding costs nothing that can be measured here and halves the file."""
        means = dict(zip(self.names, self.mean, strict=True))
        every = {f"picture.{name}": t for name, t in self.picture.items()} | means
        halves = {name: t.cpu().half().contiguous() for name, t in sorted(every.items())}
        said = {"shape": self.net.shape.words(), "trained_on": config.trained_on, "licence": config.licence}
        # One entry: the library writes several in an order that changes from run to run, and the bytes are hashed.
        save_file(halves, path, {"curate": json.dumps(said, sort_keys=True)})


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
        CurateError: no media, no such image tokenizer, a checkpoint of another config, or the loss is not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    checkpoint, weights = out / "checkpoint.safetensors", out / "weights.safetensors"
    run, where = _Run(config, torch.device(device)), torch.device(device)
    # The config's words are about the config's media; of other media nothing is known here but that they are others.
    words = config.model_copy(update={"trained_on": "media of the user", "licence": "unknown"}) if media else config
    end = min(config.steps, stop_at or config.steps)
    if checkpoint.exists():
        run.load(checkpoint)
    if run.step < end:
        _train(run, config, media, out, share, say, end, where)
    run.write_weights(words, weights)
    return weights


def _train(
    run: _Run,
    config: VideoTrainConfig,
    media: Sequence[Path],
    out: Path,
    share: Path,
    say: Callable[[str], None],
    end: int,
    where: torch.device,
) -> None:
    pool = read_clips(config, media, share)
    say(f"{len(pool.videos)} videos at their sizes, {len(pool.pictures.pictures) if pool.pictures else 0} pictures")
    shown = clip_batch(pool, config, _FIXED)
    if run.step == 0:
        run.begin(torch.cat([clip_batch(pool, config, _FIXED + 1 + i) for i in range(16)]))
    begun, first, sums, count = time.monotonic(), run.step, torch.zeros(3), 0
    with (out / "log.jsonl").open("a") as log:
        while run.step < end:
            sums += run.advance(clip_batch(pool, config, run.step).to(where))
            count += 1
            if run.step % config.log_every == 0 or run.step == end:
                loss, psnr, temporal = (sums / count).tolist()
                if not math.isfinite(loss):
                    raise CurateError(f"training diverged before step {run.step}", "Lower learning_rate or clip.")
                entry = {"step": run.step, "loss": loss, "psnr": psnr, "temporal_psnr": temporal}
                log.write(json.dumps(entry) + "\n")
                log.flush()
                pace = (time.monotonic() - begun) / (run.step - first)
                say(f"{run.step} loss {loss:.4f} psnr {psnr:.2f} temporal {temporal:.2f} dB, {pace:.3f} s a step")
                sums, count = torch.zeros(3), 0
            if run.step % config.strip_every == 0 or run.step == end:
                run.strip(shown.to(where), out / f"strip-{run.step}.png")
            if run.step % config.checkpoint_every == 0 or run.step == end:
                run.save(out / "checkpoint.safetensors")
