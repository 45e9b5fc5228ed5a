"""What the adapters of published picture tokenizers share: importing, loading, micro-batches, checks of items."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from curate.models.batches import in_micro_batches, split
from curate.models.weights import load_state_strict, locate, read_state
from curate.schema.codec import CodecCard, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.folders import WEIGHTS, code_version, header, read_folder, words_of, write_folder
from curate.tokenizers.inputs import PICTURES
from curate.tokenizers.quantisers.difference import difference_rate


class PictureNet(nn.Module, ABC):
    """A net under its publisher's names, from pictures to ids and back; it knows what its card has to say.

    Attributes:
        mean, std: what `to_input` does to values in [0, 1]: (value - mean) / std, the same for each channel.
        values: items of uint8 hold values below this.
    """

    mean: float = 0.5
    std: float = 0.5
    values: int = 256

    @abstractmethod
    def facts(self, size: int | None) -> dict[str, Any]:
        """Fields of the card for pictures of `size` (None: what the net was trained at).

        Raises:
            CurateError: the net does not take this size.
        """

    @abstractmethod
    def ids(self, x: Tensor) -> Tensor:
        """Normalised pictures, fp32 `(n, c, H, W)`, to int64 `(n, *grid)`; quantises in fp32."""

    @abstractmethod
    def pictures(self, ids: Tensor) -> Tensor:
        """int64 `(n, *grid)` to normalised pictures, fp32 `(n, c, H, W)`."""

    def item(self, card: CodecCard) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of one item: uint8 RGB `(H, W, 3)` unless a net takes something else."""
        return (card.input_size or 0, card.input_size or 0, 3), np.dtype(np.uint8)

    def to_input(self, items: Tensor) -> Tensor:
        """Items `(n, H, W, 3)` as `item` describes them to what `ids` takes."""
        return (items.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std

    def to_items(self, pictures: Tensor) -> Tensor:
        """What `pictures` gives to items, clipped to [0, 255]."""
        values = (pictures * self.std + self.mean) * 255
        return values.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


class PictureTokenizer(ABC):
    """A published picture tokenizer: `import_checkpoint` makes a folder of its weights, `load` reads the folder.

    An item is one picture `(H, W, 3)`, uint8 sRGB of the card's `input_size`, or a stack `(N, H, W, 3)`; its ids have
    the card's `grid`, or `(N, *grid)`. `weights.safetensors` holds the publisher's tensors under the publisher's names,
    and the architecture's sizes, found from the shapes of the tensors, in its header.

    Attributes:
        architecture: name in the zoo.
        patterns: names of weights files in a repository, best first.
        licence: of the weights.
    """

    architecture: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = ("*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.bin")
    licence: ClassVar[str]

    def __init__(self, card: CodecCard, net: PictureNet, device: str = "cpu") -> None:
        facts = net.facts(card.input_size)
        if card.grid is None or (card.grid, card.vocabulary) != (facts["grid"], facts["vocabulary"]):
            raise CurateError(f"the card of {card.name} does not agree with its weights in grid or vocabulary")
        self.card = card
        self.grid = card.grid
        self.device = torch.device(device)
        self.net = net.eval().to(self.device)
        self.item_shape, self.item_dtype = net.item(card)

    @classmethod
    @abstractmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        """The architecture's sizes, as JSON can hold them, from tensors and, where these do not tell, files beside.

        Raises:
            CurateError: a tensor that every such file has is missing; it says which.
        """

    @classmethod
    @abstractmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        """The net of these sizes, its weights not set."""

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
            size: side in pixels of the pictures that `encode` will want; None: what it was trained at.
            file: name of the weights file where `source` has several.

        Raises:
            CurateError: no weights there, several, or they do not fit the architecture: it names keys and shapes.
        """
        path = _one_file(source, (file,) if file else cls.patterns)
        held = read_state(path)
        shape, state = cls.shape_of(held, path), cls.select(held)
        net = cls.net_of(shape)
        load_state_strict(net, state, path.name)
        words = {"shape": shape, "trained_on": f"{path.name}: as its publisher states", "licence": cls.licence}
        raw = save_tensors({name: value.contiguous().clone() for name, value in state.items()}, header(words))
        facts = net.facts(size)
        card = CodecCard.model_validate(
            {
                "name": folder.name,
                "architecture": cls.architecture,
                "modality": "image",
                "stream": f"tok_rgb@{facts['input_size']}",
                "dtype": smallest_unsigned(facts["vocabulary"]),
                "channels": 3,
                "input": (
                    f"uint8 sRGB ({facts['input_size']}, {facts['input_size']}, 3) or a stack of them, nothing else"
                    f"{PICTURES}"
                ),
                "chunking": "a picture at a time; ids of a picture do not depend on others",
                "weights_digest": digest(raw),
                "code_version": code_version("torch"),
                "parameters": sum(p.numel() for p in net.parameters()),
                "trained_on": words["trained_on"],
                "licence": cls.licence,
            }
            | facts
        )
        differing = _batch_difference(cls(card, net))
        card = card.model_copy(update={"batch_invariance": differing})
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> PictureTokenizer:
        """Reads `card.json` and `weights.safetensors`; refuses weights other than those of the card."""
        card, raw = read_folder(folder)
        net = cls.net_of(words_of(raw)["shape"])
        load_state_strict(net, load_tensors(raw), folder.name)
        return cls(card, net.float(), device)

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Items or stacks to ids of the card's dtype, in the same order; ValueError for a wrong item."""
        stacks = [self._stack(item) for item in items]
        done = in_micro_batches(
            stacks, lambda batch: self.net.ids(self.net.to_input(batch)), self.grid, self.card.numpy_dtype, self.device
        )
        return split(done, items, len(self.item_shape))

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids `grid` or `(N, *grid)` to items or stacks; `lengths` has no meaning for pictures."""
        stacks = [self._grids(one) for one in ids]
        done = in_micro_batches(
            stacks,
            lambda batch: self.net.to_items(self.net.pictures(batch)),
            self.item_shape,
            self.item_dtype,
            self.device,
        )
        return split(done, ids, len(self.grid))

    def _stack(self, item: Any) -> NDArray[Any]:
        want, n = self.item_shape, len(self.item_shape)
        fits = isinstance(item, np.ndarray) and item.dtype == self.item_dtype and item.shape[-n:] == want
        if not fits or item.ndim > n + 1:
            got = f"{item.dtype} {item.shape}" if isinstance(item, np.ndarray) else type(item).__name__
            raise ValueError(f"{self.card.name} expects {self.item_dtype} {want} or a stack of such, got {got}")
        stack: NDArray[Any] = item.reshape(-1, *want)
        if self.item_dtype.kind == "f" and not np.isfinite(stack).all():
            raise ValueError(f"{self.card.name} expects finite values")
        if self.item_dtype == np.uint8 and stack.size and stack.max() >= self.net.values:
            raise ValueError(f"{self.card.name} expects values below {self.net.values}, got {stack.max()}")
        return stack

    def _grids(self, ids: NDArray[np.generic]) -> NDArray[np.int64]:
        n = len(self.grid)
        if ids.dtype.kind not in "ui" or ids.shape[-n:] != self.grid or ids.ndim > n + 1:
            raise ValueError(
                f"{self.card.name} expects ids {self.grid} or a stack of such, got {ids.dtype} {ids.shape}"
            )
        grids = ids.astype(np.int64).reshape(-1, *self.grid)
        if grids.size and not 0 <= grids.min() <= grids.max() < self.card.vocabulary:
            raise ValueError(
                f"{self.card.name} has ids 0 <= id < {self.card.vocabulary}, got {grids.min()} .. {grids.max()}"
            )
        return grids


def tensor(state: Mapping[str, Tensor], key: str, path: Path) -> Tensor:
    """A tensor that every checkpoint of the architecture has; CurateError that names the key where it is missing."""
    if key not in state:
        raise CurateError(f"the weights {path.name} do not fit: {key} is missing", "is it this architecture?")
    return state[key]


def sides(state: Mapping[str, Tensor], key: str, ndim: int, path: Path) -> list[int]:
    """The shape of such a tensor; CurateError that names the key where it is missing or has not `ndim` dimensions."""
    shape = list(tensor(state, key, path).shape)
    if len(shape) != ndim:
        raise CurateError(
            f"the weights {path.name} do not fit: {key} has shape {shape}, not of {ndim} dimensions",
            "is it this architecture?",
        )
    return shape


def count(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many numbered modules there are: keys `prefix` + number + `.` + anything."""
    return len({key[len(prefix) :].split(".")[0] for key in state if key.startswith(prefix)})


def averaged(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The moving averages of a Lightning checkpoint in place of the weights that were averaged.

    Latent diffusion's `LitEma`, and those who took it over, keep the average of `a.b.weight` as
    `model_ema.abweight`, and evaluate with these.
    """
    own = {key: value for key, value in state.items() if not key.startswith(("model_ema.", "loss."))}
    return {key: state.get(f"model_ema.{key.replace('.', '')}", value) for key, value in own.items()}


def grid_of(name: str, size: int, stride: int) -> tuple[int, int]:
    """The grid of ids of a square picture; CurateError where the stride does not divide the size."""
    if size <= 0 or size % stride:
        raise CurateError(f"{name} takes pictures whose side is a multiple of {stride}, not {size}")
    return size // stride, size // stride


def nearest(z: Tensor, codebook: Tensor, metric: str) -> Tensor:
    """Index of each row's code, fp32 `(rows, d)` and `(codes, d)` to int64 `(rows,)`; ties to the lowest.

    Args:
        metric: `euclid`: least |e|^2 - 2 z.e, which orders as |z - e|^2 does; `dot`: greatest z.e.
    """
    z, codebook = z.float(), codebook.float()
    bias = codebook.square().sum(1) / 2 if metric == "euclid" else torch.zeros(len(codebook), device=z.device)
    # 64 rows at once: against 2^18 codes that is 64 MiB of similarities.
    return torch.cat([(part @ codebook.T - bias).argmax(1) for part in torch.split(z, 64)])


def _one_file(source: str, patterns: Sequence[str]) -> Path:
    found = locate(source, patterns)
    first = [p for p in found if p.suffix == found[0].suffix]
    if len(first) > 1:
        raise CurateError(f"{source} has several weights: {', '.join(p.name for p in first)}", "say which by `file`")
    return first[0]


def _batch_difference(tokenizer: PictureTokenizer) -> float:
    """The share of ids that differ when 16 items of seeded noise are encoded one by one and all at once."""
    rng, shape = np.random.default_rng(0), (16, *tokenizer.item_shape)
    if tokenizer.item_dtype == np.uint8:
        items: NDArray[Any] = rng.integers(0, tokenizer.net.values, shape)
    else:
        items = rng.standard_normal(shape)
    items = items.astype(tokenizer.item_dtype)
    together = np.stack(tokenizer.encode(list(items)))
    alone = np.stack([tokenizer.encode([item])[0] for item in items])
    return difference_rate(together, alone)
