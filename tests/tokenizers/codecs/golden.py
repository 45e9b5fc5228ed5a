"""The one table of published image codecs: golden ids, and pixels that come back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from published import formula

from curate.tokenizers.codecs.fourm_vq import FourMVQ
from curate.tokenizers.codecs.llamagen import LlamaGenVQ
from curate.tokenizers.codecs.open_magvit2 import OpenMagvit2
from curate.tokenizers.codecs.titok import TiTok
from curate.tokenizers.codecs.vqgan import IBQ, TamingVQGAN
from curate.tokenizers.grid import Imported

VQGAN = {"width": 32, "multipliers": (1, 1, 2, 2, 4), "blocks": 2, "latent": 64, "codes": 512}
PIXELS = {"width": 32, "multipliers": (1, 1, 2, 2, 4), "blocks": 2, "latent": 256, "codes": 1024}
TITOK = {"side": 4, "patch": 16, "tokens": 8, "codes": 256, "code_width": 12} | {
    f"{part}_{key}": value for part in ("encoder", "decoder") for key, value in (("width", 512), ("blocks", 2))
}
VIT = {"width": 128, "blocks": 2, "tanh": True}
FOURM = {"patch": 16, "codes": 256, "code_width": 32, "unit": True}
UNET = {"width": 32, "levels": [32, 64, 64, 64], "blocks": 1, "attends": [False, False, True, True]} | {
    "patch": 4,
    "channels": 3,
    "code_width": 32,
}


@dataclass(frozen=True)
class Case:
    """A codec of this shape and seeded weights, ids of the sample image, and four pixels that come back of them."""

    adapter: type[Imported]
    shape: dict[str, Any]
    grid: tuple[int, ...]
    dtype: str
    golden: list[int]
    pixels: list[list[int]]
    config: dict[str, Any] | None = None

    def state(self) -> dict[str, torch.Tensor]:
        held = self.adapter.net_of(self.shape).state_dict()
        return {name: formula(name, value.shape) for name, value in held.items()}


CASES = {
    "llamagen": Case(
        LlamaGenVQ,
        VQGAN | {"code_width": 8},
        (4, 4),
        "uint16",
        [414, 276, 292, 357, 434, 147, 112, 244, 431, 112, 288, 79, 325, 472, 307, 152],
        [[112, 222, 149], [0, 144, 32], [135, 173, 78], [157, 116, 135]],
    ),
    "taming": Case(
        TamingVQGAN,
        VQGAN | {"code_width": 32},
        (4, 4),
        "uint16",
        [126, 321, 459, 10, 128, 20, 10, 459, 10, 10, 492, 20, 10, 128, 444, 20],
        [[107, 208, 96], [14, 0, 196], [51, 179, 183], [54, 60, 115]],
    ),
    "ibq": Case(
        IBQ,
        VQGAN | {"code_width": 32},
        (4, 4),
        "uint16",
        [355, 321, 271, 428, 56, 46, 428, 66, 321, 56, 83, 152, 92, 56, 21, 499],
        [[8, 137, 101], [71, 5, 108], [116, 192, 50], [162, 255, 158]],
    ),
    "open-magvit2": Case(
        OpenMagvit2,
        {"width": 32, "multipliers": (1, 1, 2, 2, 4), "blocks": 2, "bits": 18},
        (4, 4),
        "uint32",
        [
            *(8946, 13462, 212574, 168422, 176662, 155199, 89336, 147888),
            *(171202, 88118, 247920, 179377, 224999, 219578, 138438, 212759),
        ],
        [[118, 144, 154], [116, 246, 206], [0, 181, 255], [47, 152, 145]],
    ),
    "titok-legacy": Case(
        TiTok,
        TITOK | {"unit": True, "pixels": PIXELS},
        (8,),
        "uint8",
        [38, 233, 214, 212, 116, 171, 128, 149],
        [[137, 106, 25], [61, 0, 0], [255, 0, 72], [20, 107, 0]],
        {"model": {"vq_model": {"use_l2_norm": True}}},
    ),
    "titok": Case(
        TiTok,
        TITOK | {"unit": False, "pixels": None},
        (8,),
        "uint8",
        [63, 163, 86, 200, 213, 58, 17, 171],
        [[184, 0, 0], [255, 0, 0], [43, 153, 0], [0, 0, 0]],
        {"model": {"vq_model": {"use_l2_norm": False, "quantize_mode": "vq"}}},
    ),
    "4m-divae": Case(
        FourMVQ,
        FOURM
        | {"domain": "rgb", "channels": 3, "labels": 0, "out": 0, "decoder": None, "encoder": VIT | {"side": 8}}
        | {"unet": UNET, "diffusion": {}},
        (4, 4),
        "uint8",
        [196, 74, 74, 84, 74, 186, 155, 140, 222, 185, 196, 74, 251, 97, 74, 186],
        [[58, 60, 0], [101, 151, 87], [0, 151, 202], [128, 163, 188]],
    ),
    "4m-vqvae": Case(
        FourMVQ,
        FOURM
        | {"domain": "rgb", "channels": 3, "labels": 0, "out": 3}
        | {"encoder": VIT | {"side": 4}, "decoder": VIT | {"side": 4}},
        (4, 4),
        "uint8",
        [97, 74, 186, 84, 74, 186, 155, 140, 222, 185, 196, 74, 251, 97, 74, 186],
        [[0, 255, 59], [196, 222, 79], [0, 0, 72], [79, 0, 228]],
    ),
}
