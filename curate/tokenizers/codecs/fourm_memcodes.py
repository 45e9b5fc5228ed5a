"""4M-21's tokenizers of vectors: a bottleneck MLP and Memcodes (Bachmann et al. 2024, arXiv 2406.09406, appendix D).

Global features, the class tokens of DINOv2-B/14 (768 values) and ImageBind-H/14 (1280), become 16 ids of 8192 codes,
SMPL body poses (23 rotation matrices by rows, 207 values) 8 ids of 1024. `FourMMemcodes` takes such vectors,
`MemcodesOfPictures` pictures, with the encoder before it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn
from torch.nn import functional

from curate.models.encoders import Encoder, encoder_of
from curate.models.weights import read_config
from curate.schema.codec import CodecCard, Preprocessing
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.feature_images import stack_of
from curate.tokenizers.folders import WEIGHTS, header, read_files, read_folder, words_of, write_folder
from curate.tokenizers.image_grids import PictureNet, PictureTokenizer, count, nearest, sides
from curate.tokenizers.inputs import ARRAYS, PICTURES
from curate.tokenizers.quantisers.difference import difference_rate

STREAMS = {
    "DINOv2-B14-global": "tok_dinov2_global",
    "ImageBind-H14-global": "tok_imagebind_global",
    "human_poses": "tok_pose",
}
"""Stream of each domain, as ml-4m calls both; of others it is `tok_` and the domain."""


@dataclass(frozen=True)
class MLPShape:
    """`blocks` blocks from `width` to `hidden` and back, between a layer from `inputs` and one to `outputs` values."""

    inputs: int
    width: int
    hidden: int
    blocks: int
    outputs: int


@dataclass(frozen=True)
class MemcodesShape:
    """Sizes of a tokenizer of vectors: the codebook has `heads` times `codes` rows of `code_width` values."""

    domain: str
    heads: int
    codes: int
    code_width: int
    encoder: MLPShape
    decoder: MLPShape


class Bottleneck(nn.Module):
    """The inverted bottleneck of Bachmann, Anagnostidis and Hofmann 2023 (arXiv 2306.13575), exact GELU."""

    def __init__(self, shape: MLPShape) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Linear(shape.width, shape.hidden), nn.GELU(), nn.Linear(shape.hidden, shape.width)
        )

    def forward(self, x: Tensor) -> Tensor:
        done: Tensor = self.block(x)
        return done


class BottleneckMLP(nn.Module):
    """fp32 `(n, inputs)` to `(n, outputs)`; each block is added to its LayerNormed (eps 1e-5) input's own."""

    def __init__(self, shape: MLPShape) -> None:
        super().__init__()
        self.linear_in = nn.Linear(shape.inputs, shape.width)
        self.blocks = nn.ModuleList([Bottleneck(shape) for _ in range(shape.blocks)])
        self.layernorms = nn.ModuleList([nn.LayerNorm(shape.width) for _ in range(shape.blocks)])
        self.linear_out = nn.Linear(shape.width, shape.outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear_in(x)
        for block, norm in zip(self.blocks, self.layernorms, strict=True):
            x = x + block(norm(x))
        done: Tensor = self.linear_out(x)
        return done


class Projection(nn.Module):
    """A square matrix for each head."""

    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(heads, width, width))

    def forward(self, codes: Tensor) -> Tensor:
        return codes.float() @ self.weight.float()


class Memcodes(nn.Module):
    """`curate.tokenizers.quantisers.memcodes` in torch, always in fp32 (law 8)."""

    def __init__(self, heads: int, codes: int, width: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(heads, codes, width))
        self.to_k = Projection(heads, width)
        self.to_v = Projection(heads, width)

    # Ten times the work of the rest of the encoder, and the same for every vector.
    @cached_property
    def keys(self) -> Tensor:
        """`(heads, codes, width)`."""
        found: Tensor = self.to_k(self.codes)
        return found

    @cached_property
    def values(self) -> Tensor:
        """`(heads, codes, width)`."""
        found: Tensor = self.to_v(self.codes)
        return found

    def ids(self, z: Tensor) -> Tensor:
        """Latents `(n, heads * width)` to int64 `(n, heads)`."""
        heads, _, width = self.codes.shape
        parts = z.float().reshape(len(z), heads, width) * width**-0.5
        return torch.stack([nearest(parts[:, head], keys, "dot") for head, keys in enumerate(self.keys)], 1)

    def vectors(self, ids: Tensor) -> Tensor:
        """int64 `(n, heads)` to fp32 `(n, heads * width)`."""
        return torch.cat([functional.embedding(ids[:, h], values) for h, values in enumerate(self.values)], 1)


class MemcodesNet(PictureNet):
    """Vectors as they are given to ids and back."""

    def __init__(self, shape: MemcodesShape) -> None:
        super().__init__()
        self.shape = shape
        latent = shape.heads * shape.code_width
        self.encoder = BottleneckMLP(shape.encoder)
        self.quant_proj = nn.Conv2d(shape.encoder.outputs, latent, 1)
        self.quantize = Memcodes(shape.heads, shape.codes, shape.code_width)
        self.post_quant_proj = nn.Conv2d(latent, shape.decoder.inputs, 1)
        self.decoder = BottleneckMLP(shape.decoder)

    def facts(self, size: int | None) -> dict[str, Any]:
        shape = self.shape
        if size is not None:
            raise CurateError(f"4M's {shape.domain} tokenizer takes vectors, which have no size", "leave `size` out")
        wide = shape.encoder.inputs
        return {
            "modality": "array",
            "stream": STREAMS.get(shape.domain, f"tok_{shape.domain}"),
            "quantiser": "pq",
            "levels": [shape.codes] * shape.heads,
            "index_order": (
                f"id of head h = row of codebook h whose key has the greatest inner product with values "
                f"{shape.code_width}h to {shape.code_width}h + {shape.code_width - 1} of the latent, ties to the lowest"
            ),
            "vocabulary": shape.codes,
            "grid": (shape.heads,),
            "channels": wide,
            "input_size": None,
            "input": (
                f"float32 ({wide},) or a stack of them, as its publisher's encoder gives it, not normalised{ARRAYS}"
            ),
            "chunking": "a vector at a time; ids of a vector do not depend on others",
            "padding": "none",
            "valid_length": "all ids are valid",
        }

    def item(self, card: CodecCard) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (self.shape.encoder.inputs,), np.dtype(np.float32)

    def to_input(self, items: Tensor) -> Tensor:
        return items

    def to_items(self, pictures: Tensor) -> Tensor:
        return pictures

    def ids(self, x: Tensor) -> Tensor:
        z: Tensor = self.quant_proj(self.encoder(x)[:, :, None, None])
        return self.quantize.ids(z.flatten(1))

    def pictures(self, ids: Tensor) -> Tensor:
        taken: Tensor = self.post_quant_proj(self.quantize.vectors(ids)[:, :, None, None])
        done: Tensor = self.decoder(taken.flatten(1))
        return done


class FourMMemcodes(PictureTokenizer):
    """`EPFL-VILAB/4M_tokenizers_{DINOv2-B14,ImageBind-H14}-global_8k_16_224` and `..._human-poses_1k_8`.

    An item is one vector, float32 `(d,)`, or a stack `(n, d)`; ids are `(heads,)` or `(n, heads)`. Global features were
    trained on with a cosine loss: of what `decode` gives, the direction alone counts.
    """

    architecture = "4m-memcodes"
    patterns = ("*.safetensors", "*.pth")
    licence = "Sample Code License (EPFL and Apple), non-commercial, as its publisher states"

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        heads, rows, width = sides(state, "quantize.codes", 3, path)
        encoder, decoder = (_mlp_shape(state, name, path) for name in ("encoder", "decoder"))
        return asdict(MemcodesShape(_domain(path, encoder.inputs), heads, rows, width, encoder, decoder))

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        return MemcodesNet(MemcodesShape(**{**shape, **{k: MLPShape(**shape[k]) for k in ("encoder", "decoder")}}))


class MemcodesOfPictures:
    """A frozen encoder's global feature of a picture, as ids of `FourMMemcodes` (a `Tokenizer`).

    An item is uint8 sRGB of the encoder's size, `(H, W, 3)` or a stack of them; `decode` gives features, since a
    feature does not say its picture. The encoder normalises as its own configuration says, ImageNet's mean and
    deviation for DINOv2: 4M's tokenizer was trained so, but ml-4m's script for ids gives mean and deviation 0.5.
    """

    architecture = "4m-memcodes-pictures"

    def __init__(self, card: CodecCard, encoder: Encoder, vectors: FourMMemcodes) -> None:
        if encoder.grid != (1,) or vectors.item_shape != (encoder.width,):
            raise CurateError(
                f"{encoder.name} gives {encoder.width} values in a grid {encoder.grid}, and the tokenizer takes one "
                f"vector of {vectors.item_shape[0]}",
                "give the encoder that it was trained on, with kind global",
            )
        if card.grid != vectors.grid or card.input_size != encoder.size:
            raise CurateError(f"the card of {card.name}, its encoder and its weights do not belong together")
        self.card, self._encoder, self._vectors = card, encoder, vectors

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, encoder: str, file: str | None = None) -> CodecCard:
        """Writes `weights.safetensors` and `card.json` to `folder`, whose name becomes the tokenizer's.

        Args:
            source, file: as `FourMMemcodes.import_checkpoint` takes them.
            encoder: JSON of what `encoder_of` takes; for DINOv2 `{"library": "timm", "kind": "global", "size": 224,
                "model": "vit_base_patch14_dinov2.lvd142m", "options": {"dynamic_img_size": true}}`.

        Raises:
            CurateError: as `FourMMemcodes.import_checkpoint`; or there is no such encoder, or its features do not fit.
        """
        try:
            spec = json.loads(encoder)
        except ValueError as error:
            raise CurateError(f"the encoder is to be a JSON object, not {encoder!r}: {error}") from error
        if not isinstance(spec, dict):
            raise CurateError(f"the encoder is to be a JSON object, not {encoder!r}")
        made = encoder_of(spec)
        with tempfile.TemporaryDirectory() as room:
            alone = Path(room) / folder.name
            inner = FourMMemcodes.import_checkpoint(source, alone, file=file)
            [held] = read_files(alone, [WEIGHTS])
        words = words_of(held) | {"encoder": spec, "encoder_digest": made.digest}
        raw = save_tensors(load_tensors(held), header(words))
        size = made.size
        card = CodecCard.model_validate(
            inner.model_dump()
            | {
                "architecture": cls.architecture,
                "modality": "image",
                "input_size": size,
                "channels": 3,
                "input": (
                    f"uint8 sRGB ({size}, {size}, 3) or a stack of them, to {made.name}; its feature as it is{PICTURES}"
                ),
                "preprocessing": Preprocessing(
                    resize="short_side", resample="lanczos", crop="centre", mean=list(made.mean), std=list(made.std)
                ),
                "chunking": "a picture at a time; ids of a picture do not depend on others",
                "weights_digest": digest(raw),
                "parameters": inner.parameters + made.parameters,
                "trained_on": f"{inner.trained_on}; encoder: see {made.name}",
            }
        )
        tokenizer = cls(card, made, _vectors(card, raw, "cpu"))
        noise = np.random.default_rng(0).integers(0, 256, (16, size, size, 3), np.uint8)
        alone_ids = np.stack([tokenizer.encode([one])[0] for one in noise])
        card = card.model_copy(update={"batch_invariance": difference_rate(tokenizer.encode([noise])[0], alone_ids)})
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> MemcodesOfPictures:
        """Reads `card.json` and `weights.safetensors` (the quantiser, and in its header which encoder).

        Raises:
            CurateError: a file is missing or not the card's, or the encoder's weights are not those it was made with.
        """
        card, raw = read_folder(folder)
        words = words_of(raw)
        encoder = encoder_of(words["encoder"], device)
        if encoder.digest != words["encoder_digest"]:
            raise CurateError(
                f"{encoder.name} has other weights than those that {folder.name} was made with",
                f"it was made with BLAKE3 {words['encoder_digest']}, these have {encoder.digest}",
            )
        return cls(card, encoder, _vectors(card, raw, device))

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        """Pictures or stacks to ids `(heads,)` or `(n, heads)`; ValueError for a wrong item."""
        features = [self._encoder(stack_of(item, self.card.name, self._encoder.size)) for item in items]
        every = self._vectors.encode(features)
        return [ids[0] if item.ndim == 3 else ids for ids, item in zip(every, items, strict=True)]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to float32 features `(d,)` or `(n, d)`."""
        return self._vectors.decode(ids)


def _vectors(card: CodecCard, raw: bytes, device: str) -> FourMMemcodes:
    net = FourMMemcodes.net_of(words_of(raw)["shape"])
    net.load_state_dict(load_tensors(raw))
    return FourMMemcodes(card.model_copy(update={"modality": "array", "input_size": None}), net.float(), device)


def _mlp_shape(state: Mapping[str, Tensor], name: str, path: Path) -> MLPShape:
    width, inputs = sides(state, f"{name}.linear_in.weight", 2, path)
    hidden, _ = sides(state, f"{name}.blocks.0.block.0.weight", 2, path)
    outputs, _ = sides(state, f"{name}.linear_out.weight", 2, path)
    return MLPShape(inputs, width, hidden, count(state, f"{name}.blocks."), outputs)


def _domain(path: Path, width: int) -> str:
    """What `config.json` beside the weights says; without one, the length of a vector."""
    beside = path.parent / "config.json"
    said = read_config(beside).get("domain") if beside.is_file() else None
    if isinstance(said, str) and said.replace("_", "").replace("-", "").isalnum():
        return said
    return f"vector{width}"
