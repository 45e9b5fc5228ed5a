"""One base for tokenizers of grids: a network under a card, between items and ids.

`GridTokenizer` reads a folder, holds items and ids against the card, and runs the network in micro-batches;
`ClipTokenizer` does it for clips; `Imported` makes a folder of published weights. A codec is a `GridNet` and what these
cannot know: where its weights lie and how large they are.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from curate.models.batches import BATCH, exact, finite, in_batches, in_fp32, split
from curate.models.passes import Passes, fitting, raised
from curate.models.weights import load_state_strict, locate, read_state
from curate.schema.codec import CodecCard, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.ids import digest
from curate.tokenizers.folders import WEIGHTS, code_version, open_weights, read_folder, write_folder, write_weights
from curate.tokenizers.inputs import IMAGE_INPUT
from curate.tokenizers.quantisers.difference import difference_rate

_AGREED = ("grid", "vocabulary", "levels", "temporal_stride")


class GridNet(nn.Module, ABC):
    """A network from items to ids and back, which knows what its card has to say.

    Attributes:
        mean, std: per channel, of `(value - mean) / std` on values in [0, 1]; under a tokenizer, those of its card.
        values: items of uint8 hold values below this.
    """

    mean: Any = (0.5, 0.5, 0.5)
    std: Any = (0.5, 0.5, 0.5)
    values: int = 256

    @abstractmethod
    def card_fields(self, size: int | None) -> dict[str, Any]:
        """Fields of the card for items of `size` pixels (None: what the network was trained at).

        Raises:
            CurateError: the network does not take this size.
        """

    @abstractmethod
    def ids(self, x: Tensor) -> Tensor:
        """What `to_input` gives, fp32 `(n, c, H, W)`, to int64 `(n, *grid)`.

        It may run under autocast, and quantises in fp32 whatever that is (law 8), and only what is finite.
        """

    @abstractmethod
    def images(self, ids: Tensor) -> Tensor:
        """int64 `(n, *grid)` to fp32 `(n, c, H, W)`, normalised as the input is."""

    def item(self, card: CodecCard) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of one item: uint8 RGB `(H, W, 3)` unless a network takes something else."""
        return (card.input_size or 0, card.input_size or 0, 3), np.dtype(np.uint8)

    def to_input(self, items: Tensor) -> Tensor:
        """Items `(n, H, W, 3)` as `item` describes them to what `ids` takes."""
        x: Tensor = (items.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        return x

    def to_items(self, images: Tensor) -> Tensor:
        """What `images` gives to items, rounded and clipped to [0, 255]."""
        values: Tensor = (images.float() * self.std + self.mean) * 255
        return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class GridTokenizer:
    """Items to ids of the card's `grid` and back (a `Tokenizer`): images, maps or vectors.

    An item is one image `(H, W, 3)`, uint8 sRGB of the card's `input_size`, or what the network's `item` says, or a
    stack of such; its ids are `grid`, or `(N, *grid)`. A folder holds `card.json` and `weights.safetensors`: tensors
    under their publisher's names, and in the header the sizes that `net_of` takes.

    Args:
        dtype: `float32` or `bfloat16`, that the network encodes in, by autocast; it decodes in float32.
        batch: items of one pass on a GPU; None: `BATCH`.

    Raises (constructor):
        CurateError: card and weights do not belong together, or the network does not fit the device.
    """

    def __init__(
        self, card: CodecCard, net: GridNet, device: str = "cpu", dtype: str = "float32", batch: int | None = None
    ) -> None:
        fields = net.card_fields(card.input_size)
        wrong = [name for name in _AGREED if name in fields and fields[name] != getattr(card, name)]
        if card.grid is None or wrong:
            raise CurateError(f"the card of {card.name} does not agree with its weights in {', '.join(wrong)}")
        self.card, self.grid = card, card.grid
        self.device, self.dtype = torch.device(device), dtype
        on = RunsOn(device, dtype, batch or BATCH)
        self.passes = Passes(card.name, on)
        with fitting(card.name, on):
            self.net = net.eval().to(self.device)
        self.item_shape, self.item_dtype = net.item(card)
        if card.preprocessing is not None:
            how = (card.preprocessing.mean, card.preprocessing.std)
            net.mean, net.std = (torch.tensor(values, device=self.device).view(-1, 1, 1) for values in how)

    @classmethod
    @abstractmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        """The network of these sizes, its weights not set; of codecs whose weights are one file of tensors."""

    @classmethod
    def net_with(cls, shape: dict[str, Any], state: Mapping[str, Tensor], name: str) -> GridNet:
        """The network of these sizes with these weights, fp32; CurateError where they do not fit."""
        with torch.random.fork_rng(devices=[]):  # the random start is overwritten, and must not move the caller's state
            net = cls.net_of(shape)
        load_state_strict(net, state, name)
        return net.float()

    @classmethod
    def net_from_bytes(cls, raw: bytes, name: str = "") -> GridNet:
        """The network in the bytes of a weights file; `name` is for messages."""
        words, state = open_weights(raw)
        # Chameleon and Emu3 were once imported with their sizes at the top of the header.
        return cls.net_with(words.get("shape", words), state, name)

    @classmethod
    def load(cls, folder: Path, device: str = "cpu", dtype: str = "float32", batch: int | None = None) -> Self:
        """Reads `card.json` and `weights.safetensors`; refuses weights other than those of the card."""
        card, raw = read_folder(folder)
        return cls(card, cls.net_from_bytes(raw, card.name), device, dtype, batch)

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Items or stacks to ids of the card's dtype, in the same order; ValueError for a wrong item."""
        stacks = [self._stack(item) for item in items]
        kind = self.card.numpy_dtype
        done = in_batches(stacks, self._ids, self.grid, kind, self.device, self.passes, self.dtype)
        return split(done, items, len(self.item_shape))

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to items or stacks; `lengths` has no meaning here. ValueError for ids of a wrong shape, type or range."""
        stacks = [self._grids(one).reshape(-1, *self.grid) for one in ids]
        done = in_batches(stacks, self._items, self.item_shape, self.item_dtype, self.device, self.passes)
        return split(done, ids, len(self.grid))

    def _ids(self, batch: Tensor) -> Tensor:
        return self._in_range(self.net.ids(self.net.to_input(batch)), (len(batch), *self.grid))

    def _items(self, ids: Tensor) -> Tensor:
        return self.net.to_items(self.net.images(ids))

    def _in_range(self, ids: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Ids as they are; a network that gives others than its card says is refused, not wrapped (law 8)."""
        low, high = int(ids.min()), int(ids.max())
        if tuple(ids.shape) != shape or low < 0 or high >= self.card.vocabulary:
            raise CurateError(
                f"{self.card.name} gave ids {tuple(ids.shape)} in {low} .. {high}; its card says {shape} and "
                f"0 .. {self.card.vocabulary - 1}"
            )
        return ids

    def _stack(self, item: Any) -> NDArray[Any]:
        want, n = self.item_shape, len(self.item_shape)
        fits = isinstance(item, np.ndarray) and item.dtype == self.item_dtype and item.shape[-n:] == want
        if not fits or item.ndim > n + 1:
            raise ValueError(f"{self.card.name} expects {self.item_dtype} {self._form()}, got {_told(item)}")
        stack: NDArray[Any] = item.reshape(-1, *want)
        if self.item_dtype.kind == "f" and not np.isfinite(stack).all():
            raise ValueError(f"{self.card.name} expects finite values")
        if self.net.values < 256 and stack.size and stack.max() >= self.net.values:
            raise ValueError(f"{self.card.name} expects values below {self.net.values}, got {stack.max()}")
        return stack

    def _form(self) -> str:
        """An item's shape in words."""
        return f"{self.item_shape} or a stack of such"

    def _grids(self, ids: Any) -> NDArray[np.int64]:
        """Ids `grid` or `(N, *grid)` as int64, checked."""
        n, name = len(self.grid), self.card.name
        if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "ui":
            raise ValueError(f"{name} expects integer ids {self.grid}, got {_told(ids)}")
        if ids.shape[-n:] != self.grid or ids.ndim > n + 1:
            raise ValueError(f"{name} expects ids {self.grid} or a stack of such, got {_told(ids)}")
        if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < self.card.vocabulary:
            raise ValueError(f"{name} has ids 0 <= id < {self.card.vocabulary}, got {ids.min()} .. {ids.max()}")
        return ids.astype(np.int64)


class ClipTokenizer(GridTokenizer):
    """uint8 sRGB clips `(1 + stride k, H, W, 3)` to ids `(1 + k, h, w)` and back; an image is a clip of one frame.

    Each clip passes the network alone and whole: `ids` takes its frames `(T, 3, H, W)` and gives `(1 + k, h, w)`,
    `images` takes these and gives frames.
    """

    def __init__(
        self, card: CodecCard, net: GridNet, device: str = "cpu", dtype: str = "float32", batch: int | None = None
    ) -> None:
        super().__init__(card, net, device, dtype, 1)
        if card.temporal_stride is None:
            raise CurateError(f"the card of {card.name} says no temporal stride")
        self.stride = card.temporal_stride

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Clips or images to ids `(1 + k, h, w)` of the card's dtype.

        Raises:
            ValueError: an item is not uint8 of the card's size, or its frames are not 1 + stride k; nothing is padded.
        """
        clips = [self._clip(item) for item in items]
        return [raised(ids) for ids in self.passes(clips, lambda some: [self.ids_of(clip) for clip in some])]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids `(1 + k, h, w)` to uint8 clips; `lengths`, in frames, cuts padding frames off.

        Raises:
            ValueError: ids of a wrong shape, type or range, or lengths that do not fit.
        """
        for one in ids:
            if isinstance(one, np.ndarray) and (one.ndim != len(self.grid) + 1 or not len(one)):
                raise ValueError(f"{self.card.name} expects ids (1 + k, *{self.grid}), got {_told(one)}")
        clips = [self._grids(one) for one in ids]
        full = [1 + self.stride * (len(one) - 1) for one in clips]
        wanted = full if lengths is None else list(lengths)
        if len(wanted) != len(full) or not all(0 < n <= most for n, most in zip(wanted, full, strict=True)):
            raise ValueError(f"{self.card.name}: lengths {wanted} do not fit clips of {full} frames")
        return [self.frames_of(one)[:n] for one, n in zip(clips, wanted, strict=True)]

    def ids_of(self, clip: NDArray[np.uint8], bf16: bool = False) -> NDArray[np.generic]:
        """Ids of one clip of a right shape; with `bf16` the network computes in bfloat16, its quantiser in fp32."""
        with exact(self.device, "bfloat16" if bf16 else self.dtype):
            x = self.net.to_input(torch.from_numpy(np.array(clip)).to(self.device))
            ids = self._in_range(self.net.ids(x), (1 + (len(clip) - 1) // self.stride, *self.grid))
        return ids.cpu().numpy().astype(self.card.numpy_dtype)

    def frames_of(self, ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        """The clip of ids of a right shape."""
        with exact(self.device):
            frames = self._items(torch.from_numpy(ids).to(self.device))
        want = (1 + self.stride * (len(ids) - 1), *self.item_shape)
        if tuple(frames.shape) != want:
            raise CurateError(f"{self.card.name} decoded to {tuple(frames.shape)}, not {want}")
        clip: NDArray[np.uint8] = frames.cpu().numpy()
        return clip

    def _clip(self, item: Any) -> NDArray[np.uint8]:
        clip, name = self._stack(item), self.card.name
        if not len(clip):
            raise ValueError(f"{name} expects uint8 {self._form()}, got {_told(item)}")
        if over := (len(clip) - 1) % self.stride:
            low = len(clip) - over
            raise ValueError(
                f"{name} takes 1 + {self.stride} k frames, got {len(clip)}; the nearest are {low} and "
                f"{low + self.stride}"
            )
        return clip

    def _form(self) -> str:
        h, w, _ = self.item_shape
        return f"(1 + {self.stride}k, {h}, {w}, 3) or ({h}, {w}, 3)"


class Imported(GridTokenizer):
    """A published tokenizer: `import_checkpoint` makes a folder of its weights.

    Attributes:
        architecture: name in the zoo.
        patterns: names of weights files in a repository, best first.
        licence: of the weights. packages: distributions that ids depend on.
    """

    architecture: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = ("*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.bin")
    licence: ClassVar[str] = "as its publisher states"
    packages: ClassVar[tuple[str, ...]] = ("torch",)

    @classmethod
    @abstractmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        """The architecture's sizes, as JSON can hold them, from tensors and, where these do not tell, files beside.

        Raises:
            CurateError: a tensor that every such file has is missing; it says which.
        """

    @classmethod
    def read(cls, source: str, file: str | None) -> tuple[Path, dict[str, Tensor]]:
        """The weights file of a source, and its tensors.

        Raises:
            CurateError: no weights there, or several.
        """
        found = locate(source, (file,) if file else cls.patterns)
        first = [p for p in found if p.suffix == found[0].suffix]
        if len(first) > 1:
            names = ", ".join(p.name for p in first)
            raise CurateError(f"{source} has several weights: {names}", "say which by `file`")
        return first[0], read_state(first[0])

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The tensors that the tokenizer is made of, of all that a file holds."""
        return state

    @classmethod
    def import_checkpoint(
        cls, source: str, folder: Path, size: int | None = None, file: str | None = None
    ) -> CodecCard:
        """Writes `weights.safetensors` and `card.json` to `folder`, whose name becomes the tokenizer's.

        Args:
            source: weights file, a folder with it, or a hub id `owner/name`.
            folder: made when missing.
            size: side in pixels of the images that `encode` will want; None: what it was trained at.
            file: name of the weights file where `source` has several.

        Raises:
            CurateError: no weights there, several, or they do not fit the architecture: it names keys and shapes.
        """
        path, held = cls.read(source, file)
        return cls.write(folder, path, cls.shape_of(held, path), cls.select(held), size)

    @classmethod
    def write(
        cls, folder: Path, path: Path, shape: dict[str, Any], state: Mapping[str, Tensor], size: int | None
    ) -> CodecCard:
        """Such a folder, of the sizes and the tensors that the file `path` gave."""
        net = cls.net_with(shape, state, path.name)
        words = {"trained_on": f"{path.name}: as its publisher states", "licence": cls.licence}
        raw = write_weights(state, words | {"shape": shape})
        fields = words | {
            "name": folder.name,
            "architecture": cls.architecture,
            "weights_digest": digest(raw),
            "code_version": code_version(*cls.packages),
            "parameters": sum(p.numel() for p in net.parameters()),
        }
        card = card_of(net, size, fields)
        card = card.model_copy(update={"batch_invariance": batch_difference(cls(card, net))})
        write_folder(folder, card, {WEIGHTS: raw})
        return card


def card_of(net: GridNet, size: int | None, fields: Mapping[str, Any]) -> CodecCard:
    """The card of a network for items of `size`: of RGB images by one codebook, where it does not say otherwise."""
    own = net.card_fields(size)
    side, stride = own["input_size"], own.get("temporal_stride")
    common: dict[str, Any] = {
        "modality": "image" if stride is None else "video",
        "stream": f"tok_rgb@{side}" if stride is None else f"tok_video@{side}",
        "quantiser": "vq",
        "dtype": smallest_unsigned(own["vocabulary"]),
        "channels": 3,
        "input": f"uint8 sRGB ({side}, {side}, 3) or a stack of them, nothing else{IMAGE_INPUT}"
        if stride is None
        else f"uint8 sRGB (T, {side}, {side}, 3), T = 1 + {stride} k{IMAGE_INPUT}",
        "preprocessing": preprocessing(net.mean, net.std),
        "chunking": "an image at a time; ids of an image do not depend on others"
        if stride is None
        else "a clip is encoded whole: ids of its parts would differ at the seams",
    }
    return CodecCard.model_validate(common | dict(fields) | own)


def preprocessing(mean: Sequence[float], std: Sequence[float]) -> dict[str, Any]:
    """Short side to the size and centre crop, as these codecs were evaluated; mean and std for each channel."""
    how = {"resize": "short_side", "resample": "lanczos", "crop": "centre"}
    return how | {"mean": [float(m) for m in mean], "std": [float(s) for s in std]}


def square_grid(name: str, size: int, stride: int) -> tuple[int, int]:
    """The grid of ids of a square image; CurateError where the stride does not divide the size."""
    if size <= 0 or size % stride:
        raise CurateError(f"{name} takes images whose side is a multiple of {stride}, not {size}")
    return size // stride, size // stride


def nearest_code(z: Tensor, codebook: Tensor, metric: str) -> Tensor:
    """Index of each row's code, fp32 `(rows, d)` and `(codes, d)` to int64 `(rows,)`; ties to the lowest.

    Args:
        metric: `euclid`: least |e|^2 - 2 z.e, which orders as |z - e|^2 does; `dot`: greatest z.e.

    Raises:
        NotFiniteError: a latent is not finite.
    """
    z, codebook = finite(z), codebook.float()
    with in_fp32(z):
        bias = codebook.square().sum(1) / 2 if metric == "euclid" else torch.zeros(len(codebook), device=z.device)
        # 64 rows at once: against 2^18 codes that is 64 MiB of similarities.
        return torch.cat([(part @ codebook.T - bias).argmax(1) for part in torch.split(z, 64)])


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
            limits = ((0.5, 8), (0.5, 8), (-0.5, 0.5), (0, 6.28))
            fy, fx, drift, phase = (rng.uniform(low, high) for low, high in limits)
            colour = rng.uniform(-40, 40, 3).astype(np.float32)
            for t in range(frames):
                clip[t] += np.sin(6.2832 * (fy * y + fx * x) + phase + drift * t)[..., None] * colour
        clip += rng.normal(128, 6, clip.shape)
        out.append(clip.round().clip(0, 255).astype(np.uint8))
    return out


def batch_difference(tokenizer: GridTokenizer) -> float:
    """The share of ids of 4 synthetic items that differ when they are encoded alone and among 16."""
    if isinstance(tokenizer, ClipTokenizer):
        items: Sequence[NDArray[Any]] = probes(16, tokenizer.item_shape[0], 1 + tokenizer.stride)
    elif tokenizer.item_shape[-1] == 3 and tokenizer.item_dtype == np.uint8:
        items = [clip[0] for clip in probes(16, tokenizer.item_shape[0])]
    else:
        rng, shape, values = np.random.default_rng(0), (16, *tokenizer.item_shape), tokenizer.net.values
        noise = rng.integers(0, values, shape) if tokenizer.item_dtype == np.uint8 else rng.standard_normal(shape)
        items = list(noise.astype(tokenizer.item_dtype))
    together, some = tokenizer.encode(items), (0, 5, 10, 15)
    alone = np.stack([tokenizer.encode([items[i]])[0] for i in some])
    return difference_rate(np.stack([together[i] for i in some]), alone)


def _told(item: Any) -> str:
    return f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
