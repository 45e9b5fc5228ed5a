"""What adapters of pictures and clips share: item checks, normalisation, batches of one shape, ids as stored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from curate.models.batches import exact, in_micro_batches, split
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError


class _Grids:
    """A card with a grid of two sides, an input size and a normalisation, and what follows from them.

    Attributes:
        grid: `(h, w)`, cells of a picture or of one latent frame.
        picture: `(H, W, 3)`, what one picture or frame must be.
    """

    def __init__(self, card: CodecCard, device: str = "cpu") -> None:
        how = card.preprocessing
        if card.grid is None or len(card.grid) != 2 or card.input_size is None or how is None or len(how.mean) != 3:
            raise CurateError(f"the card of {card.name} lacks a grid, an input size or a normalisation")
        self.card = card
        self.grid = card.grid
        self.picture = (card.input_size, card.input_size, 3)
        self.device = torch.device(device)
        self._mean = torch.tensor(how.mean, device=self.device).view(3, 1, 1)
        self._std = torch.tensor(how.std, device=self.device).view(3, 1, 1)

    def _normalised(self, pictures: Tensor) -> Tensor:
        """uint8 `(n, H, W, 3)` to float32 `(n, 3, H, W)`, (value / 255 - mean) / std."""
        return (pictures.permute(0, 3, 1, 2).float() / 255 - self._mean) / self._std

    def _uint8(self, pictures: Tensor) -> Tensor:
        """The way back: float `(n, 3, H, W)` to uint8 `(n, H, W, 3)`."""
        values = (pictures.float() * self._std + self._mean) * 255
        return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

    def _in_range(self, ids: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Ids as they are; a network that gives others than its card says is refused, not wrapped (law 8)."""
        low, high = int(ids.min()), int(ids.max())
        if tuple(ids.shape) != shape or low < 0 or high >= self.card.vocabulary:
            raise CurateError(
                f"{self.card.name} gave ids {tuple(ids.shape)} in {low} .. {high}; its card says {shape} and "
                f"0 .. {self.card.vocabulary - 1}"
            )
        return ids

    def _checked(self, ids: Any, dims: tuple[int, int], words: str) -> NDArray[np.int64]:
        if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "ui" or ids.ndim not in dims or not ids.size:
            raise ValueError(f"{self.card.name} expects integer ids {words}, got {_words(ids)}")
        if ids.shape[-2:] != self.grid:
            raise ValueError(f"{self.card.name} expects ids {words}, got {_words(ids)}")
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= self.card.vocabulary:
            raise ValueError(f"{self.card.name} has ids 0 <= id < {self.card.vocabulary}, got {low} .. {high}")
        return ids.astype(np.int64)


class Pictures(_Grids, ABC):
    """A tokenizer of pictures: uint8 sRGB `(H, W, 3)` or `(N, H, W, 3)` to ids `(h, w)` or `(N, h, w)` and back.

    A picture's ids do not depend on its neighbours: batches always have the same shape, the last one padded.
    """

    @abstractmethod
    def ids_of(self, pictures: Tensor) -> Tensor:
        """Normalised float32 `(n, 3, H, W)` to integer ids `(n, h, w)`."""

    @abstractmethod
    def pixels_of(self, ids: Tensor) -> Tensor:
        """Ids int64 `(n, h, w)` to float pictures `(n, 3, H, W)`, normalised as the input is."""

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Pictures or stacks of them to ids of the card's dtype.

        Raises:
            ValueError: an item is not uint8 of the card's size.
        """
        stacks = [self._stack(item) for item in items]
        done = in_micro_batches(stacks, self._encode, self.grid, self.card.numpy_dtype, self.device)
        return split(done, items, 3)

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to uint8 pictures or stacks of them; `lengths` has no meaning for pictures.

        Raises:
            ValueError: ids of a wrong shape, type or range.
        """
        h, w = self.grid
        stacks = [self._checked(one, (2, 3), f"({h}, {w}) or (N, {h}, {w})").reshape(-1, h, w) for one in ids]
        done = in_micro_batches(stacks, self._decode, self.picture, np.dtype(np.uint8), self.device)
        return split(done, ids, 2)

    def _stack(self, item: Any) -> NDArray[np.uint8]:
        h, w, _ = self.picture
        good = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim in (3, 4) and item.size
        if not good or item.shape[-3:] != self.picture:
            raise ValueError(f"{self.card.name} expects uint8 ({h}, {w}, 3) or (N, {h}, {w}, 3), got {_words(item)}")
        stack: NDArray[np.uint8] = item.reshape(-1, *self.picture)
        return stack

    def _encode(self, pictures: Tensor) -> Tensor:
        return self._in_range(self.ids_of(self._normalised(pictures)), (len(pictures), *self.grid))

    def _decode(self, ids: Tensor) -> Tensor:
        return self._uint8(self.pixels_of(ids))


class Clips(_Grids, ABC):
    """A tokenizer of clips: uint8 sRGB `(1 + stride k, H, W, 3)` to ids `(1 + k, h, w)` and back.

    Each clip passes the network alone and whole. A picture is a clip of one frame.
    """

    def __init__(self, card: CodecCard, device: str = "cpu") -> None:
        super().__init__(card, device)
        if card.temporal_stride is None:
            raise CurateError(f"the card of {card.name} says no temporal stride")
        self.stride = card.temporal_stride

    @abstractmethod
    def ids_of(self, clip: Tensor) -> Tensor:
        """Normalised float32 `(1 + stride k, 3, H, W)` to integer ids `(1 + k, h, w)`."""

    @abstractmethod
    def pixels_of(self, ids: Tensor) -> Tensor:
        """Ids int64 `(1 + k, h, w)` to float frames `(1 + stride k, 3, H, W)`, normalised as the input is."""

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Clips to ids of the card's dtype.

        Raises:
            ValueError: an item is not uint8 of the card's size, or its frames are not 1 + stride k.
        """
        return [self._encode(clip) for clip in [self._clip(item) for item in items]]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids `(1 + k, h, w)` to uint8 clips; `lengths`, in frames, cuts padding frames off.

        Raises:
            ValueError: ids of a wrong shape, type or range, or lengths that do not fit.
        """
        h, w = self.grid
        clips = [self._checked(one, (3, 3), f"(1 + k, {h}, {w})") for one in ids]
        full = [1 + self.stride * (len(one) - 1) for one in clips]
        wanted = full if lengths is None else list(lengths)
        if len(wanted) != len(full) or not all(0 < n <= most for n, most in zip(wanted, full, strict=True)):
            raise ValueError(f"{self.card.name}: lengths {wanted} do not fit clips of {full} frames")
        return [self._decode(one)[:n] for one, n in zip(clips, wanted, strict=True)]

    def _clip(self, item: Any) -> NDArray[np.uint8]:
        h, w, _ = self.picture
        good = isinstance(item, np.ndarray) and item.dtype == np.uint8 and item.ndim == 4 and item.size
        if not good or item.shape[1:] != self.picture:
            raise ValueError(f"{self.card.name} expects uint8 (T, {h}, {w}, 3), got {_words(item)}")
        clip: NDArray[np.uint8] = item
        if over := (len(clip) - 1) % self.stride:
            low = len(clip) - over
            raise ValueError(
                f"{self.card.name} takes 1 + {self.stride} k frames, got {len(clip)}; the nearest are {low} and "
                f"{low + self.stride}"
            )
        return clip

    def _encode(self, clip: NDArray[np.uint8]) -> NDArray[np.generic]:
        with exact(self.device):
            ids = self.ids_of(self._normalised(torch.from_numpy(np.ascontiguousarray(clip)).to(self.device)))
            self._in_range(ids, (1 + (len(clip) - 1) // self.stride, *self.grid))
        return ids.cpu().numpy().astype(self.card.numpy_dtype)

    def _decode(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        with exact(self.device):
            frames = self._uint8(self.pixels_of(torch.from_numpy(ids).to(self.device)))
        want = (1 + self.stride * (len(ids) - 1), *self.picture)
        if tuple(frames.shape) != want:
            raise CurateError(f"{self.card.name} decoded to {tuple(frames.shape)}, not {want}")
        clip: NDArray[np.uint8] = frames.cpu().numpy()
        return clip


def probes(count: int, size: int, frames: int = 1) -> list[NDArray[np.uint8]]:
    """Synthetic clips uint8 `(frames, size, size, 3)`, always the same: drifting waves of random pitch, and grain.

    What is measured with them (do ids depend on the batch, on the number format) says nothing of quality.
    """
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    out = []
    for _ in range(count):
        clip = np.zeros((frames, size, size, 3), np.float32)
        for _ in range(6):
            fy, fx, drift, phase = (
                rng.uniform(0.5, 8),
                rng.uniform(0.5, 8),
                rng.uniform(-0.5, 0.5),
                rng.uniform(0, 6.28),
            )
            colour = rng.uniform(-40, 40, 3).astype(np.float32)
            for t in range(frames):
                clip[t] += np.sin(6.2832 * (fy * y + fx * x) + phase + drift * t)[..., None] * colour
        clip += rng.normal(128, 6, clip.shape)
        out.append(clip.round().clip(0, 255).astype(np.uint8))
    return out


def batch_difference(tokenizer: Pictures | Clips) -> float:
    """The share of ids of 4 probes that differ when they are encoded alone and among 16."""
    size = tokenizer.picture[0]
    if isinstance(tokenizer, Clips):
        items = probes(16, size, 1 + tokenizer.stride)
    else:
        items = [clip[0] for clip in probes(16, size)]
    together = tokenizer.encode(items)
    return float(np.mean([tokenizer.encode([items[i]])[0] != together[i] for i in (0, 5, 10, 15)]))


def _words(item: Any) -> str:
    return f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
