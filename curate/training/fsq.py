"""Trains the tokenizers around FSQ, of images and of video, and makes their folders with measured cards."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import av
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field, model_validator
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from curate.media.decode import decode
from curate.media.requests import Frames
from curate.models.batches import usable
from curate.schema.codec import CodecCard, Preprocessing, smallest_unsigned
from curate.schema.errors import CurateError, MediaError
from curate.schema.ids import digest
from curate.sources import media_types
from curate.tokenizers import zoo
from curate.tokenizers.codecs.image_fsq import PATCH, ImageFSQ, ImageFSQNet, ImageFSQShape, channels_last, image_shape
from curate.tokenizers.codecs.video_fsq import VideoFSQ
from curate.tokenizers.codecs.video_fsq_net import GROUP, VideoFSQNet, VideoFSQShape, group_of
from curate.tokenizers.folders import WEIGHTS, code_version, header, words_of, write_folder
from curate.tokenizers.inputs import IMAGE_INPUT
from curate.tokenizers.measures.files import read_files, square
from curate.tokenizers.measures.image import evaluate_clips, evaluate_images
from curate.tokenizers.quantisers.difference import batch_difference, rounded_difference
from curate.tokenizers.quantisers.fsq_torch import FSQ
from curate.training.clips import ClipConfig, ClipPool, clip_batch, read_clips
from curate.training.crops import CropConfig, MediaSource, Pool, absent, crops, read_pool
from curate.training.loop import Run, RunConfig, fit
from curate.training.session import Session

Clip = NDArray[np.uint8]
SIZE = 256
"""Pixels on a side of what the cards are measured on."""

_FIXED = 1 << 32
"""Batches from here on are of no training step: PCA and strips."""


class GridConfig(RunConfig, CropConfig):
    """What the two kinds have in common."""

    warmup: float = Field(ge=0, lt=1, description="share of the steps in which the rate rises")
    ema: float = Field(0.999, ge=0, lt=1, description="how much of the moving average of the weights a step keeps")
    gradient_weight: float = Field(0.1, ge=0, description="of the L1 of the differences of neighbours")
    saturation_weight: float = Field(0.05, ge=0, description="of the square of |latent| beyond 2")
    clip: float = Field(0.3, gt=0)
    bf16: bool = True
    strip_every: int = Field(gt=0, description="steps from one strip of images to the next")
    width: int = Field(128, gt=0)
    refine_width: int = Field(64, gt=0)
    refine_blocks: int = Field(2, ge=0)
    trained_on: str = "media of the user"
    licence: str = "unknown"

    def rate_at(self, step: int) -> float:
        """One cycle: a linear rise, then a cosine fall to a hundredth (after Smith and Topin 2017)."""
        rise = max(1, round(self.warmup * self.steps))
        if step < rise:
            return self.learning_rate * (step + 1) / rise
        way = (step - rise) / max(1, self.steps - rise)
        return self.learning_rate * (0.01 + 0.99 * (1 + math.cos(math.pi * way)) / 2)

    @property
    def sources(self) -> tuple[MediaSource, ...]:
        """The media that it names."""
        return self.media

    def words(self, shape: Mapping[str, Any], session: Session) -> dict[str, Any]:
        """What the header of the weights says; of media in place of the config's nothing is known but that they are."""
        if session.media:
            return {"shape": dict(shape), "trained_on": "media of the user", "licence": "unknown"}
        names = absent(self.sources, session.debian)
        lacking = f" Of these not on the machine, so not trained on: {', '.join(names)}." if names else ""
        return {"shape": dict(shape), "trained_on": self.trained_on + lacking, "licence": self.licence}


class ImageConfig(GridConfig):
    """`train.yaml` of an image tokenizer; sizes as in `ImageFSQShape`."""

    architecture: Literal["image-fsq"] = "image-fsq"
    steps: int = Field(20_000, gt=0)
    learning_rate: float = Field(1e-3, gt=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    checkpoint_every: int = Field(1000, gt=0)
    strip_every: int = Field(1000, gt=0)
    levels: tuple[int, ...] = (8, 8, 8, 5, 5, 5)
    patch: Literal[8, 16] = 8
    encoder_blocks: int = Field(4, ge=0)
    decoder_blocks: int = Field(4, ge=0)
    middle_width: int = Field(128, gt=0)
    middle_encoder_blocks: int = Field(2, ge=0)
    middle_decoder_blocks: int = Field(2, ge=0)

    @property
    def shape(self) -> ImageFSQShape:
        """The architecture."""
        return ImageFSQShape(**{field.name: getattr(self, field.name) for field in fields(ImageFSQShape)})

    @model_validator(mode="after")
    def _whole_patches(self) -> ImageConfig:
        if self.crop % self.patch:
            raise ValueError(f"crop {self.crop} is not a multiple of patch {self.patch}")
        return self


class VideoConfig(GridConfig, ClipConfig):
    """`train.yaml` of a video tokenizer; sizes as in `VideoFSQShape`."""

    architecture: Literal["video-fsq"] = "video-fsq"
    image: str = Field(
        "image-fsq-64k", description="the tokenizer of the first frame: `image-fsq` with 8x8 patches, by name or folder"
    )
    batch: int = Field(4, gt=0)
    steps: int = Field(10_000, gt=0)
    learning_rate: float = Field(6e-4, gt=0)
    warmup: float = Field(0.02, ge=0, lt=1)
    temporal_weight: float = Field(0.3, ge=0, description="of the error of differences of frames")
    checkpoint_every: int = Field(500, gt=0)
    strip_every: int = Field(2000, gt=0)
    encoder_blocks: int = Field(3, ge=0)
    decoder_blocks: int = Field(4, ge=0)

    @property
    def sources(self) -> tuple[MediaSource, ...]:
        """The media that it names."""
        return (*self.videos, *self.media)


@torch.no_grad()
def set_linear_paths(
    patch_in: nn.Conv2d, patch_out: nn.Conv2d, blocks: Tensor, patch: int, levels: Sequence[int]
) -> None:
    """Makes a 1x1 convolution the PCA of blocks, and another the least-squares inverse of its quantised result.

    Args:
        patch_in: from a block's n values to d. patch_out: from d to n.
        blocks: `(N, c, H, W)`; a block is `patch` pixels on a side, n = c patch^2.
        levels: of FSQ, d of them.
    """
    rows = functional.pixel_unshuffle(blocks, patch).permute(0, 2, 3, 1).flatten(0, 2).double().cpu()
    d, mean = len(patch_in.weight), rows.mean(0)
    variance, axes = torch.linalg.eigh((rows - mean).T @ (rows - mean) / len(rows))
    # Standard deviation 0.9 spreads a bell over the levels behind tanh; the strongest axes get the finest levels.
    project = (axes.flip(1)[:, :d] / variance.flip(0)[:d].clamp_min(1e-6).sqrt() * 0.9).T
    codes = FSQ(levels)(((rows - mean) @ project.T).T.float()[None])[0][0].T
    inputs = torch.cat([codes.double(), torch.ones(len(rows), 1, dtype=torch.float64)], 1)
    inverse = torch.linalg.lstsq(inputs, rows).solution
    for conv, weight, bias in ((patch_in, project, -(project @ mean)), (patch_out, inverse[:d].T, inverse[d])):
        conv.weight.copy_(weight[..., None, None])
        assert conv.bias is not None
        conv.bias.copy_(bias)


def loss_of(
    y: Tensor,
    x: Tensor,
    gradient_weight: float,
    temporal_weight: float = 0.0,
    last: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """The loss, and PSNR in dB, mean over the batch `(1,)`; with `last` that of the motion too, `(2,)`.

    The root of each crop's squared error, not the squared error itself: mean PSNR weighs images by the logarithm of
    their error, and a plain mean would be ruled by the few busiest crops.

    Args:
        y, x: decoded and original, `(N, c, H, W)`; of video the frames of a group one after another in the channels.
        last: of video: the frame before, decoded and original, `(N, 3, H, W)`.
    """
    errors = [y.float() - x]
    if last is not None:
        errors.append(errors[0] - torch.cat([last[0] - last[1], errors[0][:, :-3]], 1))
    squares = [error.square().mean((1, 2, 3)) for error in errors]
    slopes = errors[0].diff(dim=2).abs().mean() + errors[0].diff(dim=3).abs().mean()
    loss, *moving = [(square + 1e-6).sqrt().mean() for square in squares]
    for root in moving:
        loss = loss + temporal_weight * root
    psnr = torch.stack([(10 * torch.log10(4 / s.detach().clamp_min(1e-10))).mean() for s in squares])
    return loss + gradient_weight * slopes, psnr


Config = TypeVar("Config", bound=GridConfig)


class GridRun(Run[Config]):
    """A run whose batches are images, and whose strips show what comes back of some of them."""

    session: Session

    @abstractmethod
    def strip(self) -> NDArray[np.uint8]:
        """Originals, and what comes back of them: uint8 `(H, W, 3)`."""

    @abstractmethod
    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The tensors of the weights file, and the words of its header."""

    def cast(self) -> torch.autocast:
        """bf16 where the config says so."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bf16)

    def saturation(self, z: Tensor) -> Tensor:
        """A penalty on latents: behind tanh one that went too far gets no gradient to come back by; this is one."""
        return self.config.saturation_weight * functional.relu(z.abs() - 2).square().mean()

    def show(self, out: Path) -> None:
        if self.step % self.config.strip_every == 0 or self.step == self.config.steps:
            Image.fromarray(self.strip()).save(out / f"strip-{self.step:06d}.png")


class ImageRun(GridRun[ImageConfig]):
    """Training of an `ImageFSQNet`."""

    figures = ("loss", "psnr")

    def __init__(self, config: ImageConfig, session: Session) -> None:
        device = usable(session.device)
        torch.manual_seed(config.seed)
        self.net = channels_last(ImageFSQNet(config.shape).to(device))
        optimizer = torch.optim.Adam(self.net.parameters(), lr=config.learning_rate, betas=(0.9, 0.99))
        super().__init__(config, self.net, optimizer, device, config.ema)
        self.session = session

    @cached_property
    def pool(self) -> Pool:
        """What is cropped; read where there is anything to train."""
        pool = read_pool(self.config, self.session.media, self.session.debian)
        self.session.say(f"{len(pool.images)} images at their sizes")
        return pool

    def batch(self, step: int) -> Tensor:
        return crops(self.pool, self.config, step)

    def begin(self) -> None:
        sample = torch.cat([self.batch(_FIXED - 1 - i) for i in range(32)])
        set_linear_paths(self.net.patch_in, self.net.patch_out, sample, self.config.patch, self.config.levels)

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
        return torch.cat([loss.detach()[None], psnr]).cpu()

    @torch.no_grad()
    def strip(self) -> NDArray[np.uint8]:
        x = self.batch(2 * _FIXED)[:8].to(self.device)
        y = functional_call(self.net, self.averaged(), (x,))
        rows = torch.cat([torch.cat(list(x), 2), torch.cat(list(y), 2)], 1)
        return ((rows + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        return self.averaged(), self.config.words(vars(self.config.shape), self.session)


class VideoRun(GridRun[VideoConfig]):
    """Training of a `VideoFSQNet`; its net of the first frame is trained already and stays as it is."""

    figures = ("loss", "psnr", "temporal_psnr")

    def __init__(self, config: VideoConfig, session: Session) -> None:
        device = usable(session.device)
        torch.manual_seed(config.seed)
        weights = zoo.folder(config.image) / WEIGHTS
        shape = VideoFSQShape(
            image_shape(words_of(weights.read_bytes())["shape"]), config.width, config.encoder_blocks,
            config.decoder_blocks, config.refine_width, config.refine_blocks,
        )  # fmt: skip
        self.net = VideoFSQNet(shape)
        self.image = load_file(weights)
        self.net.picture.load_state_dict({name: t.float() for name, t in self.image.items()})
        self.net.picture.requires_grad_(False)
        channels_last(self.net.to(device))
        trained = [p for p in self.net.parameters() if p.requires_grad]
        optimizer = torch.optim.Adam(trained, lr=config.learning_rate, betas=(0.9, 0.99))
        built_on = {"image": zoo.card(config.image).weights_digest}
        super().__init__(config, self.net, optimizer, device, config.ema, built_on)
        self.session = session

    @cached_property
    def pool(self) -> ClipPool:
        """What is cut; read where there is anything to train."""
        pool = read_clips(self.config, self.session.media, self.session.debian)
        stills = len(pool.stills.images) if pool.stills else 0
        self.session.say(f"{len(pool.videos)} videos at their sizes, {stills} images")
        return pool

    def batch(self, step: int) -> Tensor:
        return clip_batch(self.pool, self.config, step)

    @torch.no_grad()
    def begin(self) -> None:
        """PCA of the change of 4x8x8 blocks after a first frame."""
        clips = torch.cat([self.batch(_FIXED + 1 + i) for i in range(16)]).to(self.device)
        past = self._first(clips)
        change = group_of([clips[:, 1 + i] - past[:, -3:] for i in range(GROUP)])
        set_linear_paths(self.net.patch_in, self.net.patch_out, change, PATCH, self.net.shape.image.levels)

    def advance(self, batch: Tensor) -> Tensor:
        """One step over `(N, T, 3, H, W)`; figures are means over the groups."""
        config, figures = self.config, torch.zeros(len(self.figures))
        self.start_step()
        with torch.no_grad(), self.cast():
            past = self._first(batch)
        for i in range(config.groups):
            x, before = batch[:, 1 + GROUP * i : 1 + GROUP * (i + 1)].flatten(1, 2), batch[:, GROUP * i]
            with self.cast():
                z = self.net.latent(x, past)
                y = self.net.pixels(self.net.quantise(z)[0], past)
            loss, psnr = loss_of(y, x, config.gradient_weight, config.temporal_weight, (past[:, -3:], before))
            ((loss + self.saturation(z)) / config.groups).backward()  # type: ignore[no-untyped-call]
            figures += torch.cat([loss.detach()[None], psnr]).cpu() / config.groups
            past = y.detach().float().clamp(-1, 1)
        self.end_step()
        return figures

    @torch.no_grad()
    def strip(self) -> NDArray[np.uint8]:
        """The first frame and the last of each group; originals above, what the net now makes of them below."""
        clips = self.batch(_FIXED).to(self.device)
        with self.cast():
            past = self._first(clips)
            back = [past[:, -3:]]
            for i in range(self.config.groups):
                x = clips[:, 1 + GROUP * i : 1 + GROUP * (i + 1)].flatten(1, 2)
                past = self.net.pixels(self.net.quantise(self.net.latent(x, past))[0], past).float().clamp(-1, 1)
                back.append(past[:, -3:])
        rows = torch.stack([clips[:, ::GROUP], torch.stack(back, 1)], 1)  # (N, 2, 1 + groups, 3, H, W)
        n, two, steps, three, h, w = rows.shape
        pixels = ((rows.cpu() + 1) * 127.5).round().to(torch.uint8)
        return pixels.permute(0, 1, 4, 2, 5, 3).reshape(n * two * h, steps * w, three).numpy()

    def weights(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        tensors = {f"picture.{name}": t for name, t in self.image.items()} | self.averaged()
        return tensors, self.config.words(self.net.shape.words(), self.session)

    def _first(self, clips: Tensor) -> Tensor:
        """What the first group stands on: the first frame as it comes back."""
        return self.net.first_past(self.net.quantise(self.net.first_latent(clips[:, 0]))[0])


def train_fsq(config: ImageConfig | VideoConfig, out: Path, session: Session) -> CodecCard:
    """Trains, or carries on, and writes weights, card and strips to `out`; see `curate.training.train`."""
    held: list[tuple[Path, Clip]] = []
    if session.held_out is not None:  # read before the training, which may take hours
        images = isinstance(config, ImageConfig)
        kinds = media_types.IMAGE if images else media_types.VIDEO
        held = read_files(session.held_out, kinds, (lambda p: square(p, SIZE)) if images else read_clip)
    run = ImageRun(config, session) if isinstance(config, ImageConfig) else VideoRun(config, session)
    fit(run, out, session)
    tensors, words = run.weights()
    # As fp16, because its rounding costs nothing that can be measured here and halves the file.
    halves = {name: t.cpu().half().contiguous() for name, t in sorted(tensors.items())}
    save_file(halves, out / WEIGHTS, header(words))
    if not held:
        raise CurateError(
            f"trained: {out / WEIGHTS}; without held-out media there is no figure to write on a card",
            "give the same command with --held-out DIR; nothing is trained again",
        )
    if isinstance(config, ImageConfig):
        return write_image_card(out, [path for path, _ in held])
    return write_video_card(out, [(f"{path.name}, frames 0 to {len(clip) - 1}", [clip]) for path, clip in held])


def read_clip(path: Path, frames: int = 17, size: int = SIZE, stride: int = 1) -> Clip:
    """The beginning of a video, uint8 `(frames, size, size, 3)`: every `stride`-th frame, as the pipeline reads it.

    Raises:
        CurateError: it cannot be decoded or is too short.
    """
    try:
        with av.open(str(path)) as container:
            rate = container.streams.video[0].average_rate
        if not rate:
            raise CurateError(f"{path.name} states no frame rate")
        view = Frames(size, float(rate) / stride, frames, stride=1)
        clip = np.asarray(decode(path.read_bytes(), "video", [view], name=path.name).views[view], np.uint8)
    except (OSError, IndexError, MediaError, av.FFmpegError) as error:
        raise CurateError(f"{path.name} cannot be decoded: {error}") from error
    if len(clip) < frames:
        raise CurateError(f"{path.name} gives {len(clip)} frames, too few for {frames} at stride {stride}")
    return clip


def write_image_card(
    folder: Path, held_out: Sequence[Path], clips: Sequence[tuple[str, Sequence[Clip]]] = (), size: int = SIZE
) -> CodecCard:
    """Writes `card.json` and `strip.png` beside the weights in `folder`, whose name becomes the tokenizer's.

    Args:
        held_out: images that were not trained on; quality, batch invariance and the strip come from them.
        clips: what clips are, in words, and the clips, uint8 `(T, size, size, 3)`; not trained on. One measurement
            each, frame by frame.
        size: side of the images that `encode` will want.

    Raises:
        CurateError: `size` is not a multiple of the side of the patch that an id covers.
    """
    raw = (folder / WEIGHTS).read_bytes()
    net = ImageFSQ.net_from_bytes(raw)
    patch = net.shape.patch
    if size <= 0 or size % patch:
        raise CurateError(f"{folder.name} takes images whose side is a multiple of {patch}, not {size}")
    card = _card(
        folder.name,
        raw,
        net,
        net.shape,
        architecture="image-fsq",
        modality="image",
        stream=f"tok_rgb@{size}",
        index_order=_ORDER.format("cells in row-major order"),
        grid=(size // patch, size // patch),
        input_size=size,
        input=f"uint8 sRGB ({size}, {size}, 3) or (N, {size}, {size}, 3), nothing else{IMAGE_INPUT}",
        chunking="none: a picture is encoded whole, the frames of a video one by one",
        padding="none",
        valid_length="the whole grid",
        code_version=code_version("torch", "pillow", "scikit-image"),
    )
    tokenizer = ImageFSQ(card, net)

    def ids_of(image: NDArray[np.uint8], bf16: bool = False) -> NDArray[Any]:
        """The quantiser is fp32 in both (law 8)."""
        x = torch.from_numpy(np.array(image[None])).to(tokenizer.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.inference_mode():
            with torch.autocast(x.device.type, torch.bfloat16, enabled=bf16):
                z = net.latent(x)
            return net.quantise(z)[1].cpu().numpy()

    images = [square(path, size) for path in held_out]
    card = _measured(
        card,
        quality=[
            evaluate_images(tokenizer, held_out),
            *(evaluate_clips(tokenizer, some, media) for media, some in clips),
        ],
        batch_invariance=batch_difference(tokenizer, [images[i % len(images)] for i in range(16)]),
        bf16_difference=rounded_difference(ids_of, images),
    )
    write_folder(folder, card, {})
    rows = [np.concatenate(row, axis=1) for row in (images[:4], tokenizer.decode(tokenizer.encode(images[:4])))]
    Image.fromarray(np.concatenate(rows)).save(folder / "strip.png", optimize=True)
    return card


def write_video_card(folder: Path, held_out: Sequence[tuple[str, Sequence[Clip]]]) -> CodecCard:
    """Writes `card.json` beside the weights in `folder`, whose name becomes the tokenizer's.

    Args:
        held_out: what clips are, in words, and the clips, uint8 `(1 + 4k, size, size, 3)`, k at least 1, all of one
            size; not trained on. One measurement each.
    """
    raw = (folder / WEIGHTS).read_bytes()
    net = VideoFSQ.net_from_bytes(raw)
    every = [clip for _, clips in held_out for clip in clips]
    if not every:
        raise CurateError("a card needs figures, and they need clips that were not trained on")
    size = every[0].shape[1]
    card = _card(
        folder.name,
        raw,
        net,
        net.shape.image,
        architecture="video-fsq",
        modality="video",
        stream=f"tok_video@{size}",
        index_order=_ORDER.format("steps in time order, the cells of each in row-major order"),
        grid=(size // PATCH, size // PATCH),
        temporal_stride=GROUP,
        input_size=size,
        input=(
            f"uint8 sRGB (1 + 4k, {size}, {size}, 3) or a picture ({size}, {size}, 3), nothing else{IMAGE_INPUT}. "
            "Trained on every 1st, 2nd and 3rd frame of videos of 24 to 30 frames a second"
        ),
        chunking=(
            "none: a clip is encoded whole, step by step, in memory that does not grow with it; ids of step j depend "
            "on frames 0 to 4j, so a cut in the middle of a clip begins a new clip with other ids"
        ),
        padding="none: 1 + 4k frames, anything else is refused",
        valid_length="1 + 4 (steps - 1) frames",
        code_version=code_version("torch"),
    )
    tokenizer = VideoFSQ(card, net)
    # 16 clips of 5 frames: the held-out ones, forwards and backwards
    short = [every[i % len(every)][:: 1 if i % 2 else -1][:5] for i in range(16)]
    card = _measured(
        card,
        quality=[evaluate_clips(tokenizer, clips, media) for media, clips in held_out],
        batch_invariance=batch_difference(tokenizer, short),
        bf16_difference=rounded_difference(tokenizer.ids_of, every),
    )
    write_folder(folder, card, {})
    return card


_ORDER = (
    "little-endian mixed radix: id = sum of digit_i times the product of the levels before i; channel 0 is the least "
    "significant digit; {}"
)


def _card(name: str, raw: bytes, net: nn.Module, shape: ImageFSQShape, **more: Any) -> CodecCard:
    """What all cards of FSQ say, and `more`; nothing is measured yet."""
    words, vocabulary = words_of(raw), math.prod(shape.levels)
    return CodecCard(
        name=name,
        quantiser="fsq",
        levels=list(shape.levels),
        vocabulary=vocabulary,
        dtype=smallest_unsigned(vocabulary),
        channels=3,
        preprocessing=Preprocessing(
            resize="short_side", resample="lanczos", crop="centre", mean=[0.5, 0.5, 0.5], std=[0.5, 0.5, 0.5]
        ),
        weights_digest=digest(raw),
        parameters=sum(p.numel() for p in net.parameters()),
        trained_on=words["trained_on"],
        licence=words["licence"],
        **more,
    )


def _measured(card: CodecCard, **figures: Any) -> CodecCard:
    return CodecCard.model_validate(card.model_dump() | figures)
