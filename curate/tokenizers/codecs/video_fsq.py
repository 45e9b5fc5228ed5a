"""Our own video tokenizer: a picture, then groups of four frames, each as 8x8-pixel cells of 16 bits (see `net`)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from torch import Tensor

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.image_fsq import PATCH, channels_last
from curate.tokenizers.codecs.video_fsq_net import GROUP, VideoFSQNet, VideoFSQShape
from curate.tokenizers.folders import read_folder, words_of


class VideoFSQ:
    """The tokenizer over a trained net: uint8 sRGB clips of the card's size to ids and back.

    An item is a clip `(1 + 4k, H, W, 3)`, or a picture `(H, W, 3)`, which is a clip of one frame; its ids are
    `(1 + k, h, w)`. Step 0 is frame 0, step j is frames 4j - 3 to 4j. Ids of step j follow from frames 0 to 4j alone,
    and frames up to 4j from ids up to step j: both exactly, for one clip passes at a time, one step at a time, always
    in the same shapes. So memory does not grow with the clip beyond the clip itself, and neighbours do not matter.
    """

    def __init__(self, card: CodecCard, net: VideoFSQNet, device: str = "cpu") -> None:
        levels = list(net.shape.image.levels)
        if (
            card.grid is None
            or len(card.grid) != 2
            or card.vocabulary != net.picture.fsq.codebook_size
            or card.levels != levels
        ):
            raise CurateError(f"the card of {card.name} lacks a grid, or its levels are not those of the weights")
        if card.temporal_stride != GROUP:
            raise CurateError(f"the card of {card.name} says a temporal stride of {card.temporal_stride}, not {GROUP}")
        self.card = card
        self.grid = (card.grid[0], card.grid[1])
        self.frame = (self.grid[0] * PATCH, self.grid[1] * PATCH, 3)
        self.device = torch.device(device)
        self.net = net.eval().to(self.device)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> VideoFSQ:
        """Reads `card.json` and `weights.safetensors`; refuses weights other than those the card was measured with."""
        card, raw = read_folder(folder)
        return cls(card, net_from_bytes(raw), device)

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Clips or pictures, uint8, to ids `(1 + k, h, w)` of the card's dtype.

        Raises:
            ValueError: another dtype or size, or a count of frames that is not 1 + 4k; nothing is padded here.
        """
        clips = [self._clip(item) for item in items]
        return [self.ids_of(clip) for clip in clips]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids `(1 + k, h, w)` to uint8 clips `(1 + 4k, H, W, 3)`; the first `lengths` frames of each when given.

        Raises:
            ValueError: ids of another shape or out of the vocabulary, or a length that the ids do not reach.
        """
        clips = [self._frames_of(self._checked(one)) for one in ids]
        if lengths is None:
            return clips
        for clip, length in zip(clips, lengths, strict=True):
            if not 0 < length <= len(clip):
                raise ValueError(f"{self.card.name}: {length} frames asked of ids of {len(clip)} frames")
        return [clip[:length] for clip, length in zip(clips, lengths, strict=True)]

    def ids_of(self, clip: NDArray[np.uint8], bf16: bool = False) -> NDArray[np.generic]:
        """Ids of one clip `(1 + 4k, H, W, 3)`; with `bf16` the net computes in bfloat16, the quantiser in fp32."""
        out = np.empty((1 + (len(clip) - 1) // GROUP, *self.grid), self.card.numpy_dtype)
        with self._exactly(bf16):
            codes, ids = self.net.quantise(self.net.first_latent(self._planes(clip[:1])))
            out[0] = ids[0].cpu().numpy()
            past = self.net.first_past(codes)
            for step in range(1, len(out)):
                group = self._planes(clip[GROUP * step - GROUP + 1 : GROUP * step + 1]).flatten(0, 1)[None]
                codes, ids = self.net.quantise(self.net.latent(group, past))
                out[step] = ids[0].cpu().numpy()
                if step + 1 < len(out):
                    past = self.net.pixels(codes, past).float().clamp(-1, 1)
        return out

    def _frames_of(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        out = np.empty((1 + GROUP * (len(ids) - 1), *self.frame), np.uint8)
        with self._exactly():
            past = self.net.first_past(self.net.codes(self._steps(ids[:1])))
            out[:1] = _bytes(past[:, :3])
            for step in range(1, len(ids)):
                past = self.net.pixels(self.net.codes(self._steps(ids[step : step + 1])), past).clamp(-1, 1)
                out[GROUP * step - GROUP + 1 : GROUP * step + 1] = _bytes(past.reshape(GROUP, 3, *past.shape[2:]))
        return out

    def _clip(self, item: Any) -> NDArray[np.uint8]:
        want = self.frame
        if not isinstance(item, np.ndarray) or item.dtype != np.uint8 or item.ndim > 4 or item.shape[-3:] != want:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise ValueError(f"{self.card.name} expects uint8 (1 + 4k, {want[0]}, {want[1]}, 3) or {want}, got {got}")
        clip = cast(NDArray[np.uint8], item.reshape(-1, *want))
        if len(clip) % GROUP != 1:
            below = 1 + GROUP * max(0, (len(clip) - 1) // GROUP)
            fits = f"{below} or {below + GROUP}" if len(clip) else "1"
            raise ValueError(f"{self.card.name} takes 1 + 4k frames, got {len(clip)}; {fits} would fit")
        return clip

    def _checked(self, ids: NDArray[np.generic]) -> NDArray[np.int64]:
        if ids.dtype.kind not in "ui" or ids.ndim != 3 or ids.shape[1:] != self.grid or not len(ids):
            h, w = self.grid
            raise ValueError(f"{self.card.name} expects ids (1 + k, {h}, {w}), got {ids.dtype} {ids.shape}")
        if not 0 <= int(ids.min()) <= int(ids.max()) < self.card.vocabulary:
            raise ValueError(
                f"{self.card.name} has ids 0 <= id < {self.card.vocabulary}, got {ids.min()} .. {ids.max()}"
            )
        return ids.astype(np.int64)

    def _planes(self, frames: NDArray[np.uint8]) -> Tensor:
        """uint8 `(n, H, W, 3)` to `(n, 3, H, W)` in [-1, 1]."""
        planes = torch.from_numpy(frames.copy()).to(self.device).permute(0, 3, 1, 2)
        return planes.float().contiguous() / 127.5 - 1

    def _steps(self, ids: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(ids).to(self.device)

    @contextlib.contextmanager
    def _exactly(self, bf16: bool = False) -> Iterator[None]:
        """Full fp32 on CUDA, where by default cuDNN may round to TF32 and choose kernels by timing."""
        cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        with torch.inference_mode(), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16), cudnn:
            yield


def _bytes(frames: Tensor) -> NDArray[np.uint8]:
    """`(n, 3, H, W)` in [-1, 1] to uint8 `(n, H, W, 3)`."""
    pixels = ((frames + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1)
    return cast(NDArray[np.uint8], pixels.cpu().numpy())


def net_from_bytes(raw: bytes) -> VideoFSQNet:
    """The net in the bytes of a weights file; stored as fp16, computed with as fp32."""
    net = VideoFSQNet(VideoFSQShape.of(words_of(raw)["shape"]))
    net.load_state_dict({name: t.float() for name, t in load_tensors(raw).items()})
    return channels_last(net)
