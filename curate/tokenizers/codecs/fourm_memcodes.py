"""4M-21's tokenizers of vectors: a bottleneck MLP and Memcodes (Bachmann et al. 2024, arXiv 2406.09406, appendix D).

Global features, the class tokens of DINOv2-B/14 (768 values) and ImageBind-H/14 (1280), become 16 ids of 8192 codes,
SMPL body poses (23 rotation matrices by rows, 207 values) 8 ids of 1024. `FourMMemcodes` takes such vectors,
`MemcodesOfImages` images, with the encoder before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from curate.models.batches import in_fp32
from curate.models.encoders import Encoder, encoder_of
from curate.models.weights import infer_depth, sizes_of
from curate.schema.codec import CodecCard, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.features import FeatureTokenizer, encoder_fields, stated_encoder
from curate.tokenizers.codecs.fourm_vq import domain_of
from curate.tokenizers.folders import WEIGHTS, open_weights, read_folder, write_folder, write_weights
from curate.tokenizers.grid import GridNet, Imported, nearest_code
from curate.tokenizers.inputs import ARRAY_INPUT
from curate.tokenizers.quantisers.difference import stack_difference

STREAMS = {
    "DINOv2-B14-global": "tok_dinov2_global",
    "ImageBind-H14-global": "tok_imagebind_global",
    "human_poses": "tok_pose",
}
"""Stream of each domain, as ml-4m calls both; of others it is `tok_` and the domain."""


class Bottleneck(nn.Module):
    """The inverted bottleneck of Bachmann, Anagnostidis and Hofmann 2023 (arXiv 2306.13575), exact GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        done: Tensor = self.block(x)
        return done


class BottleneckMLP(nn.Module):
    """fp32 `(n, inputs)` to `(n, outputs)`; each block is added to its LayerNormed (eps 1e-5) input's own.

    Args:
        blocks: from `width` to `hidden` and back, between a layer from `inputs` and one to `outputs` values.
    """

    def __init__(self, inputs: int, width: int, hidden: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList([Bottleneck(width, hidden) for _ in range(blocks)])
        self.layernorms = nn.ModuleList([nn.LayerNorm(width) for _ in range(blocks)])
        self.linear_out = nn.Linear(width, outputs)

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
        with in_fp32(codes):
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
        return torch.stack([nearest_code(parts[:, head], keys, "dot") for head, keys in enumerate(self.keys)], 1)

    def vectors(self, ids: Tensor) -> Tensor:
        """int64 `(n, heads)` to fp32 `(n, heads * width)`."""
        return torch.cat([functional.embedding(ids[:, h], values) for h, values in enumerate(self.values)], 1)


class MemcodesNet(GridNet):
    """Vectors as they are given to ids and back.

    Args:
        heads, codes, code_width: the codebook has `heads` times `codes` rows of `code_width` values.
        encoder, decoder: sizes of `BottleneckMLP`.
    """

    def __init__(
        self,
        domain: str,
        heads: int,
        codes: int,
        code_width: int,
        encoder: Mapping[str, int],
        decoder: Mapping[str, int],
    ) -> None:
        super().__init__()
        self.domain, self.sizes, self.wide = domain, (heads, codes, code_width), encoder["inputs"]
        self.encoder = BottleneckMLP(**encoder)
        self.quant_proj = nn.Conv2d(encoder["outputs"], heads * code_width, 1)
        self.quantize = Memcodes(heads, codes, code_width)
        self.post_quant_proj = nn.Conv2d(heads * code_width, decoder["inputs"], 1)
        self.decoder = BottleneckMLP(**decoder)

    def card_fields(self, size: int | None) -> dict[str, Any]:
        heads, codes, width = self.sizes
        if size is not None:
            raise CurateError(f"4M's {self.domain} tokenizer takes vectors, which have no size", "leave `size` out")
        return {
            "modality": "array",
            "stream": STREAMS.get(self.domain, f"tok_{self.domain}"),
            "quantiser": "pq",
            "levels": [codes] * heads,
            "index_order": (
                f"id of head h = row of codebook h whose key has the greatest inner product with values "
                f"{width}h to {width}h + {width - 1} of the latent, ties to the lowest"
            ),
            "vocabulary": codes,
            "grid": (heads,),
            "channels": self.wide,
            "input_size": None,
            "preprocessing": None,
            "input": (
                f"float32 ({self.wide},) or a stack of them, as its publisher's encoder gives it, not normalised"
                f"{ARRAY_INPUT}"
            ),
            "chunking": "a vector at a time; ids of a vector do not depend on others",
            "padding": "none",
            "valid_length": "all ids are valid",
        }

    def item(self, card: CodecCard) -> tuple[tuple[int, ...], np.dtype[Any]]:
        return (self.wide,), np.dtype(np.float32)

    def to_input(self, items: Tensor) -> Tensor:
        return items

    def to_items(self, images: Tensor) -> Tensor:
        return images

    def ids(self, x: Tensor) -> Tensor:
        z: Tensor = self.quant_proj(self.encoder(x)[:, :, None, None])
        return self.quantize.ids(z.flatten(1))

    def images(self, ids: Tensor) -> Tensor:
        taken: Tensor = self.post_quant_proj(self.quantize.vectors(ids)[:, :, None, None])
        done: Tensor = self.decoder(taken.flatten(1))
        return done


class FourMMemcodes(Imported):
    """`EPFL-VILAB/4M_tokenizers_{DINOv2-B14,ImageBind-H14}-global_8k_16_224` and `..._human-poses_1k_8`.

    An item is one vector, float32 `(d,)`, or a stack `(n, d)`; ids are `(heads,)` or `(n, heads)`. Global features were
    trained on with a cosine loss: of what `decode` gives, the direction alone counts.
    """

    architecture = "4m-memcodes"
    patterns = ("*.safetensors", "*.pth")
    licence = "Sample Code License (EPFL and Apple), non-commercial, as its publisher states"

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        heads, codes, code_width = sizes_of(state, "quantize.codes", 3, path)
        encoder, decoder = (_mlp_shape(state, name, path) for name in ("encoder", "decoder"))
        domain = domain_of(path, f"vector{encoder['inputs']}")
        sizes = {"heads": heads, "codes": codes, "code_width": code_width}
        return {"domain": domain, "encoder": encoder, "decoder": decoder} | sizes

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return MemcodesNet(**shape)


class MemcodesOfImages(FeatureTokenizer):
    """A frozen encoder's global feature of an image, as ids of `FourMMemcodes` (a `Tokenizer`).

    An item is uint8 sRGB of the encoder's size, `(H, W, 3)` or a stack of them; `decode` gives features, since a
    feature does not say its image. The encoder normalises as its own configuration says, ImageNet's mean and
    deviation for DINOv2: 4M's tokenizer was trained so, but ml-4m's script for ids gives mean and deviation 0.5.
    """

    architecture = "4m-memcodes-pictures"

    def __init__(
        self,
        card: CodecCard,
        encoder: Encoder,
        net: GridNet,
        device: str = "cpu",
        dtype: str = "float32",
        batch: int | None = None,
    ) -> None:
        of_vectors = card.model_copy(update={"input_size": None, "preprocessing": None})
        self._vectors = FourMMemcodes(of_vectors, net, device, dtype, batch)
        takes = self._vectors.item_shape[0]
        if encoder.grid != (1,) or encoder.width != takes:
            raise CurateError(
                f"{encoder.name} gives {encoder.width} values in a grid {encoder.grid}, and the tokenizer takes one "
                f"vector of {takes}",
                "give the encoder that it was trained on, with kind global",
            )
        if card.input_size != encoder.size:
            raise CurateError(f"the card of {card.name}, its encoder and its weights do not belong together")
        super().__init__(card, encoder)

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
        path, state = FourMMemcodes.read(source, file)
        shape = FourMMemcodes.shape_of(state, path)
        net = FourMMemcodes.net_with(shape, state, path.name)
        words = {"trained_on": f"{path.name}: as its publisher states", "licence": FourMMemcodes.licence}
        raw = write_weights(state, words | {"shape": shape, "encoder": spec, "encoder_digest": made.digest})
        own = {
            "name": folder.name,
            "architecture": cls.architecture,
            "dtype": smallest_unsigned(shape["codes"]),
            "weights_digest": digest(raw),
            "parameters": sum(p.numel() for p in net.parameters()) + made.parameters,
            "trained_on": f"{words['trained_on']}; encoder: see {made.name}",
            "licence": FourMMemcodes.licence,
        }
        card = CodecCard.model_validate(net.card_fields(None) | encoder_fields(made, "as it is") | own)
        tokenizer = cls(card, made, net)
        noise = np.random.default_rng(0).integers(0, 256, (16, made.size, made.size, 3), np.uint8)
        card = card.model_copy(update={"batch_invariance": stack_difference(tokenizer, noise)})
        write_folder(folder, card, {WEIGHTS: raw})
        return card

    @classmethod
    def load(
        cls, folder: Path, device: str = "cpu", dtype: str = "float32", batch: int | None = None
    ) -> MemcodesOfImages:
        """Reads `card.json` and `weights.safetensors` (the quantiser, and in its header which encoder).

        Raises:
            CurateError: a file is missing or not the card's, or the encoder's weights are not those it was made with.
        """
        card, raw = read_folder(folder)
        words, state = open_weights(raw)
        net = FourMMemcodes.net_with(words["shape"], state, card.name)
        return cls(card, stated_encoder(words, card.name, device, dtype, batch), net, device, dtype, batch)

    def quantise(self, features: NDArray[np.float32]) -> NDArray[np.generic]:
        """Ids `(n, heads)`."""
        [ids] = self._vectors.encode([features])
        return ids

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        """Ids to float32 features `(d,)` or `(n, d)`."""
        return self._vectors.decode(ids)


def _mlp_shape(state: Mapping[str, Tensor], name: str, path: Path) -> dict[str, int]:
    width, inputs = sizes_of(state, f"{name}.linear_in.weight", 2, path)
    hidden, _ = sizes_of(state, f"{name}.blocks.0.block.0.weight", 2, path)
    outputs, _ = sizes_of(state, f"{name}.linear_out.weight", 2, path)
    blocks = infer_depth(state, f"{name}.blocks.")
    return {"inputs": inputs, "width": width, "hidden": hidden, "blocks": blocks, "outputs": outputs}
