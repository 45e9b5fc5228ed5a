"""LlamaGen's VQ tokenizers (Sun et al. 2024, arXiv 2406.06525): 16384 codes of 8, l2-normalised, stride 16 or 8."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from curate.models.weights import sizes_of
from curate.tokenizers.codecs.vqgan import VQGAN, vqgan_shape
from curate.tokenizers.grid import GridNet, Imported

_MIDDLE = {"block_1": "0", "attn_1": "1", "block_2": "2"}


def published(key: str) -> str:
    """LlamaGen's name of a tensor of `transformers`' `JanusVQVAE`, whose network is LlamaGen's."""
    key = re.sub(r"\.(down|up)\.(\d+)\.", r".conv_blocks.\2.", key).replace(".block.", ".res.")
    return re.sub(r"\.mid\.(\w+)", lambda m: f".mid.{_MIDDLE[m[1]]}", key)


class LlamaGenVQ(Imported):
    """`vq_ds16_c2i.pt`, `vq_ds8_c2i.pt` (ImageNet) and `vq_ds16_t2i.pt` (LAION-COCO), as safetensors or as they are.

    An image may have any side that the stride divides: 256, 384 and 512 are published with figures.
    """

    architecture = "llamagen-vq"
    patterns = ("*.safetensors", "vq_ds*.pt", "*.bin")
    licence = "MIT (FoundationVision/LlamaGen)"
    packages = ("torch", "transformers")

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if key != "quantize.codebook_used"}

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        codes, code_width = sizes_of(state, "quantize.embedding.weight", 2, path)
        return vqgan_shape(state, path, "conv_blocks", "res") | {"codes": codes, "code_width": code_width}

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return VQGAN(published, "cosine", **shape)
