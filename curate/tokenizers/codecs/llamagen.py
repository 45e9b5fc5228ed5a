"""LlamaGen's VQ tokenizers (Sun et al. 2024, arXiv 2406.06525): 16384 codes of 8, l2-normalised, stride 16 or 8."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from curate.tokenizers.codecs.taming import VQGAN, Names, shape_from, vqgan_shape
from curate.tokenizers.image_grids import PictureNet, PictureTokenizer

LLAMAGEN = Names("conv_blocks", "conv_blocks", "res", ("0", "1", "2"), deepest_first=True)


class LlamaGenVQ(PictureTokenizer):
    """`vq_ds16_c2i.pt`, `vq_ds8_c2i.pt` (ImageNet) and `vq_ds16_t2i.pt` (LAION-COCO), as safetensors or as they are.

    A picture may have any side that the stride divides: 256, 384 and 512 are published with figures.
    """

    architecture = "llamagen-vq"
    patterns = ("*.safetensors", "vq_ds*.pt", "*.bin")
    licence = "MIT (FoundationVision/LlamaGen)"

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in state.items() if key != "quantize.codebook_used"}

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        return vqgan_shape(state, path, LLAMAGEN)

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        return VQGAN(shape_from(shape), LLAMAGEN, "cosine")
