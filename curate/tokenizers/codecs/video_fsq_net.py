"""The network of the video tokenizer: a closed predictive loop over groups of four frames, around FSQ.

The first frame is an image, coded by an image tokenizer. Each later group of four frames is coded as what the decoder
cannot foresee: both sides hold the frames that came back last, the encoder sees how the group departs from them, and
the decoder moves the last one along a field of motion and adds a residual. Predicting from what came back, and not from
the original, is the loop of hybrid video coding (Wiegand et al. 2003, "Overview of the H.264/AVC Video Coding
Standard", section III) and of learned coders after DVC (Lu et al. 2019, arXiv 1812.00101); one first frame and then
groups, causal in time, is the layout of MAGVIT-v2 (Yu et al. 2023, arXiv 2310.05737, section 3.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.models.batches import finite
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.image_fsq import PATCH, ImageFSQNet, ImageFSQShape, Residual, fsq_fields, image_shape
from curate.tokenizers.grid import GridNet, square_grid

GROUP = 4
"""Frames of each latent step after the first."""

REACH = 4
"""Places searched in each direction at each of `SEARCH_SCALES`."""

SEARCH_SCALES = (2, 4)
"""Reductions at which motion is searched: REACH places are 8 and 16 pixels."""

_SHARPNESS = 60.0
_FIELDS = len(SEARCH_SCALES) * ((2 * REACH + 1) ** 2 + 3)
_FLOW_UNIT = 4.0


@dataclass(frozen=True)
class VideoFSQShape:
    """The architecture; written as JSON into the header of the weights file.

    Attributes:
        image: of the image tokenizer that codes the first frame; its levels are those of every step.
        width: channels at 1/8 resolution.
        encoder_blocks, decoder_blocks: residual blocks at 1/8 resolution.
        refine_width, refine_blocks: channels and residual blocks of the decoder at 1/4 resolution.
    """

    image: ImageFSQShape
    width: int = 128
    encoder_blocks: int = 3
    decoder_blocks: int = 4
    refine_width: int = 64
    refine_blocks: int = 2

    def __post_init__(self) -> None:
        if self.image.patch != PATCH:
            raise CurateError(
                f"a video's first frame cannot have ids of {self.image.patch}x{self.image.patch} pixels",
                f"Name an image tokenizer of {PATCH}x{PATCH} pixels.",
            )

    def words(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, words: dict[str, Any]) -> VideoFSQShape:
        """The inverse of `words`."""
        return cls(**{**words, "image": image_shape(words["image"])})


class VideoFSQNet(GridNet):
    """Frames in [-1, 1], float `(N, 3, H, W)` and groups `(N, 12, H, W)`, to codes `(N, d, H/8, W/8)` and back.

    A group is its frames one after another in the channels: frame 0's RGB, frame 1's RGB and so on. `past` is always
    the group that came back last, clamped to [-1, 1]; after the first frame, that frame four times. Frames are the only
    state, so nothing unseen can build up however long a clip is.
    """

    def __init__(self, shape: VideoFSQShape) -> None:
        super().__init__()
        self.shape = shape
        d, wide, fine = len(shape.image.levels), shape.width, shape.refine_width
        pixels = 3 * GROUP * PATCH * PATCH
        self.picture = ImageFSQNet(shape.image)
        self.patch_in = nn.Conv2d(pixels, d, 1)
        self.stem = nn.Conv2d(2 * pixels + _FIELDS, wide, 1)
        self.encoder = nn.Sequential(*[Residual(wide) for _ in range(shape.encoder_blocks)])
        self.to_latent = nn.Conv2d(wide, d, 3, padding=1)
        self.patch_out = nn.Conv2d(d, pixels, 1)
        self.from_latent = nn.Conv2d(d, wide, 3, padding=1)
        self.from_past = nn.Conv2d(pixels, wide, 1)
        self.decoder = nn.Sequential(*[Residual(wide) for _ in range(shape.decoder_blocks)])
        self.to_flow = nn.Conv2d(wide, 2 * GROUP, 3, padding=1)
        self.grow = nn.Conv2d(wide, fine * 4, 1)
        self.from_moved = nn.Conv2d(3 * GROUP * (PATCH // 2) ** 2, fine, 1)
        self.refine = nn.Sequential(*[Residual(fine) for _ in range(shape.refine_blocks)])
        self.to_pixels = nn.Conv2d(fine, 3 * GROUP * (PATCH // 2) ** 2, 3, padding=1)
        for silent in (self.to_latent, self.to_flow, self.to_pixels):
            nn.init.zeros_(silent.weight)
            nn.init.zeros_(cast(Tensor, silent.bias))

    def first_latent(self, frame: Tensor) -> Tensor:
        """Of a first frame `(N, 3, H, W)`, before quantisation: fp32 `(N, d, h, w)`."""
        return self.picture.latent(frame)

    def first_past(self, codes: Tensor) -> Tensor:
        """What comes back of a first frame's codes, four times: `(N, 12, H, W)`, clamped."""
        return self.picture.pixels(codes).float().clamp(-1, 1).repeat(1, GROUP, 1, 1)

    def latent(self, group: Tensor, past: Tensor) -> Tensor:
        """Of a group, given what came back before it, before quantisation: fp32 `(N, d, h, w)`."""
        last = past[:, -3:]
        change = functional.pixel_unshuffle(group - last.repeat(1, GROUP, 1, 1), PATCH)
        seen = [change, functional.pixel_unshuffle(past, PATCH), motion_evidence(group[:, -3:], last)]
        z = self.patch_in(change) + self.to_latent(self.encoder(self.stem(torch.cat(seen, 1))))
        return cast(Tensor, z.float())

    def quantise(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Codes `(N, d, h, w)` with a straight-through gradient, and ids int32 `(N, h, w)`; always in fp32 (law 8)."""
        return self.picture.quantise(z)

    def codes(self, ids: Tensor) -> Tensor:
        """Ids, integers `(N, h, w)`, to codes `(N, d, h, w)`."""
        return self.picture.fsq.codes(ids)

    def pixels(self, codes: Tensor, past: Tensor) -> Tensor:
        """A group `(N, 12, H, W)` from its codes and the group that came back before it; not yet clamped."""
        y = self.decoder(self.from_latent(codes) + self.from_past(functional.pixel_unshuffle(past, PATCH)))
        flow = functional.interpolate(self.to_flow(y).float() * _FLOW_UNIT, scale_factor=PATCH, mode="bilinear")
        moved = torch.cat([_move(past[:, -3:], flow[:, 2 * i : 2 * i + 2]) for i in range(GROUP)], 1)
        coarse = functional.pixel_shuffle(self.patch_out(codes), PATCH)
        half = PATCH // 2
        fine = functional.pixel_shuffle(self.grow(y), 2) + self.from_moved(
            functional.pixel_unshuffle(moved + coarse, half)
        )
        return moved + coarse.float() + functional.pixel_shuffle(self.to_pixels(self.refine(fine)), half).float()

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size = 256 if size is None else size
        own = {"grid": square_grid("this tokenizer", size, PATCH), "input_size": size, "temporal_stride": GROUP}
        return fsq_fields(self.shape.image.levels) | own

    # Frames stay uint8 until their step comes, so memory does not grow with a clip beyond the clip itself.
    def to_input(self, items: Tensor) -> Tensor:
        return items

    def ids(self, x: Tensor) -> Tensor:
        """Frames uint8 `(1 + 4k, H, W, 3)` to ids `(1 + k, h, w)`, one step at a time, always in the same shapes.

        Ids of step j follow from frames 0 to 4j alone.
        """
        codes, ids = self.quantise(finite(self.first_latent(self.picture.to_input(x[:1]).contiguous())))
        steps, past = [ids], self.first_past(codes)
        for start in range(1, len(x), GROUP):
            group = self.picture.to_input(x[start : start + GROUP]).contiguous().flatten(0, 1)[None]
            codes, ids = self.quantise(finite(self.latent(group, past)))
            steps.append(ids)
            if start + GROUP < len(x):
                past = self.pixels(codes, past).float().clamp(-1, 1)
        return torch.cat(steps)

    def images(self, ids: Tensor) -> Tensor:
        """Ids `(1 + k, h, w)` to frames uint8; frames up to 4j follow from ids up to step j alone."""
        past = self.first_past(self.codes(ids[:1]))
        frames = [self.picture.to_items(past[:, :3])]
        for step in range(1, len(ids)):
            past = self.pixels(self.codes(ids[step : step + 1]), past).clamp(-1, 1)
            frames.append(self.picture.to_items(past.reshape(GROUP, 3, *past.shape[2:])))
        return torch.cat(frames)

    def to_items(self, images: Tensor) -> Tensor:
        return images


def motion_evidence(now: Tensor, before: Tensor) -> Tensor:
    """Where each 8x8 cell of a frame may have come from: block matching, as an image that a network can read.

    Args:
        now, before: frames `(N, 3, H, W)` in [-1, 1].

    Returns:
        `(N, c, H/8, W/8)`: at each of `SEARCH_SCALES` the chances of the (2 REACH + 1)^2 displacements, a softmax over
        the mean absolute differences of grey values in 3x3 cells, then the expected displacement in units of REACH
        places (y, x), and the least difference. No gradient flows through it.
    """
    side = 2 * REACH + 1
    found: list[Tensor] = []
    with torch.no_grad(), torch.autocast(now.device.type, enabled=False):
        places = torch.arange(-REACH, REACH + 1, device=now.device, dtype=torch.float32) / REACH
        for scale in SEARCH_SCALES:
            a, b = (functional.avg_pool2d(f.float().mean(1, keepdim=True), scale) for f in (now, before))
            h, w = a.shape[-2:]
            around = functional.pad(b, [REACH] * 4, mode="replicate")
            shifts = [around[..., i : i + h, j : j + w] for i in range(side) for j in range(side)]
            cells = functional.avg_pool2d((torch.cat(shifts, 1) - a).abs(), PATCH // scale)
            cost = functional.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
            chance = functional.softmax(-_SHARPNESS * cost, 1)
            grid = chance.reshape(len(chance), side, side, *chance.shape[2:])
            y = (grid.sum(2) * places[:, None, None]).sum(1, keepdim=True)
            x = (grid.sum(1) * places[:, None, None]).sum(1, keepdim=True)
            found += [chance, y, x, cost.amin(1, keepdim=True)]
    return torch.cat(found, 1)


def _move(frame: Tensor, flow: Tensor) -> Tensor:
    """Each pixel of the result is the frame's at (y + flow_y, x + flow_x), bilinear; beyond the border, the border."""
    h, w = frame.shape[-2:]
    y = torch.arange(h, device=frame.device, dtype=torch.float32)[:, None] + flow[:, 0]
    x = torch.arange(w, device=frame.device, dtype=torch.float32)[None] + flow[:, 1]
    where = torch.stack([(2 * x + 1) / w - 1, (2 * y + 1) / h - 1], -1)
    return functional.grid_sample(frame, where, mode="bilinear", padding_mode="border", align_corners=False)


def group_of(frames: Sequence[Tensor]) -> Tensor:
    """Four frames `(N, 3, H, W)` as a group `(N, 12, H, W)`."""
    return torch.cat(list(frames), 1)
