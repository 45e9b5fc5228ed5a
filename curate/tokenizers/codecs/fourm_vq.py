"""4M's VQ tokenizers (Mizrahi et al. 2023, arXiv 2312.06647; 4M-21, Bachmann et al. 2024, 2406.09406): ViT encoder.

Pictures (RGB, normals, edges), class maps (COCO semantic segmentation), depth, masks, and maps of features (CLIP,
DINOv2, ImageBind), each with its own weights. VQ-VAEs have a ViT for a decoder; DiVAEs (RGB, depth, normals, edges)
a diffusion UNet, which `decode` calls `STEPS` times for each picture.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.models.weights import read_config
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.ddim import Diffusion
from curate.tokenizers.codecs.fourm_unet import PatchedUNet, UNetShape
from curate.tokenizers.codecs.taming import preprocessing
from curate.tokenizers.image_grids import PictureNet, PictureTokenizer, count, grid_of, nearest, sides
from curate.tokenizers.inputs import ARRAYS

HEAD = 64
KEPT = ("encoder.", "quant_proj.", "quantize._codebook.embed", "cls_emb.")
DECODER = ("decoder.", "post_quant_proj.")

STEPS = 25
"""Of diffusion, from ids to pictures: as many as ml-4m's `run_generation.py` takes."""

PUBLISHED = {"num_train_timesteps": 1000, "beta_schedule": "linear", "prediction_type": "sample"}
"""How ml-4m's own DiVAEs were trained (`cfgs/default/tokenization/divae`), for weights without a `config.json`."""
DEFAULTS = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"} | {
    "thresholding": True,
    "clip_sample": False,
    "zero_terminal_snr": True,
}
"""What ml-4m's class `DiVAE` takes for what its `config.json` does not say."""


@dataclass(frozen=True)
class ViTShape:
    """A transformer between a grid of patches and one of tokens: heads are 64 wide; `tanh` is the MLP after it."""

    width: int
    blocks: int
    side: int
    tanh: bool


MASKS = "sam_mask"
"""Domain of the tokenizer of SAM's masks: 0 and 1 in, the chance of 1 out."""


@dataclass(frozen=True)
class FourMShape:
    """Sizes of a 4M tokenizer.

    Attributes:
        domain: as ml-4m calls it, e.g. `rgb`.
        channels: of what the encoder takes; patch: pixels of a patch's side, 1 for maps of features.
        labels: classes of a class map, each embedded in `channels` numbers; 0: no class map.
        codes, code_width: the codebook; unit: whether search is by cosine.
        encoder, decoder: the transformers; decoder None: not a transformer.
        out: numbers that this decoder gives for each position.
        smooth: ConvNeXt blocks after its patches; 2 for masks, none for the others.
        unet, diffusion: the other decoder, and how it was trained; None: not that one.
    """

    domain: str
    channels: int
    patch: int
    labels: int
    codes: int
    code_width: int
    unit: bool
    encoder: ViTShape
    decoder: ViTShape | None
    out: int
    smooth: int = 0
    unet: UNetShape | None = None
    diffusion: Diffusion | None = None


class SelfAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, cells, width = x.shape
        q, k, v = self.qkv(x).reshape(n, cells, 3, width // HEAD, HEAD).permute(2, 0, 3, 1, 4)
        mixed = torch.softmax(q @ k.transpose(2, 3) * HEAD**-0.5, dim=3) @ v
        done: Tensor = self.proj(mixed.transpose(1, 2).reshape(n, cells, width))
        return done


class MLP(nn.Module):
    def __init__(self, width: int, act: nn.Module) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = act
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        done: Tensor = self.fc2(self.act(self.fc1(x)))
        return done


class Block(nn.Module):
    """Pre-norm transformer block (LayerNorm eps 1e-6, exact GELU)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        done: Tensor = x + self.mlp(self.norm2(x))
        return done


class ViT(nn.Module):
    """Places added, blocks, and the pointwise tanh MLP of ViT-VQGAN (Yu et al. 2021, arXiv 2110.04627)."""

    def __init__(self, shape: ViTShape) -> None:
        super().__init__()
        self.pos_emb = nn.Parameter(torch.zeros(1, shape.width, shape.side, shape.side), requires_grad=False)
        self.blocks = nn.ModuleList([Block(shape.width) for _ in range(shape.blocks)])
        if shape.tanh:
            self.norm_mlp = nn.LayerNorm(shape.width, eps=1e-6)
            self.post_mlp = MLP(shape.width, nn.Tanh())

    def mix(self, x: Tensor) -> Tensor:
        """`(n, width, h, w)` through the blocks to `(n, h * w, width)`; places are resized (bicubic) to h and w."""
        places = functional.interpolate(self.pos_emb, size=x.shape[2:], mode="bicubic", align_corners=False)
        x = (x + places).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x + self.post_mlp(self.norm_mlp(x)) if hasattr(self, "post_mlp") else x


class Encoder(ViT):
    def __init__(self, shape: FourMShape) -> None:
        super().__init__(shape.encoder)
        self.proj = nn.Conv2d(shape.channels, shape.encoder.width, shape.patch, stride=shape.patch)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        n, _, h, w = patches.shape
        return self.mix(patches).transpose(1, 2).reshape(n, -1, h, w)


class ConvNeXt(nn.Module):
    """The block of Liu et al. 2022 (arXiv 2201.03545), figure 4: depthwise 7 x 7, LayerNorm, two linear maps."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.pwconv1 = nn.Linear(width, 4 * width)
        self.pwconv2 = nn.Linear(4 * width, width)
        self.gamma = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        grown = self.pwconv2(functional.gelu(self.pwconv1(mixed))) * self.gamma
        done: Tensor = x + grown.permute(0, 3, 1, 2)
        return done


class Decoder(ViT):
    def __init__(self, shape: ViTShape, patch: int, out: int, smooth: int) -> None:
        super().__init__(shape)
        self.patch, self.out = patch, out
        self.out_proj = nn.Linear(shape.width, out * patch**2)
        if smooth:
            self.out_conv = nn.Sequential(*[ConvNeXt(out) for _ in range(smooth)])

    def forward(self, z: Tensor) -> Tensor:
        n, _, h, w = z.shape
        x = self.out_proj(self.mix(z)).reshape(n, h, w, self.out, self.patch, self.patch)
        done: Tensor = x.permute(0, 3, 1, 4, 2, 5).reshape(n, self.out, h * self.patch, w * self.patch)
        return self.out_conv(done) if hasattr(self, "out_conv") else done


class Lookup(nn.Module):
    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.zeros(codes, width))


class FourMNet(PictureNet):
    """RGB, normals and edges in [-1, 1]; class maps as classes; everything else as the numbers it is given."""

    def __init__(self, shape: FourMShape) -> None:
        super().__init__()
        self.shape = shape
        self.values = shape.labels or 256
        self.encoder = Encoder(shape)
        self.quant_proj = nn.Conv2d(shape.encoder.width, shape.code_width, 1)
        self.quantize = nn.ModuleDict({"_codebook": Lookup(shape.codes, shape.code_width)})
        if shape.labels:
            self.cls_emb = nn.Embedding(shape.labels, shape.channels)
        if shape.decoder is not None:
            self.post_quant_proj = nn.Conv2d(shape.code_width, shape.decoder.width, 1)
            self.decoder: Decoder | PatchedUNet = Decoder(shape.decoder, shape.patch, shape.out, shape.smooth)
        elif shape.unet is not None:
            self.decoder = PatchedUNet(shape.unet)

    @property
    def colours(self) -> bool:
        """Whether items are RGB pictures; else class maps or float32."""
        return self.shape.channels == 3 and self.shape.patch > 1 and not self.shape.labels

    def facts(self, size: int | None) -> dict[str, Any]:
        shape = self.shape
        size = shape.encoder.side * shape.patch if size is None else size
        unit = ", latent and code l2-normalised" if shape.unit else ""
        facts: dict[str, Any] = {
            "stream": f"tok_{shape.domain}@{size}",
            "quantiser": "vq",
            "index_order": f"id = row of the codebook of the nearest code{unit}; cells in row-major order",
            "vocabulary": shape.codes,
            "grid": grid_of(f"4M's {shape.domain} tokenizer", size, shape.patch),
            "input_size": size,
        }
        if self.colours:
            return facts | {"preprocessing": preprocessing(self.mean, self.std)}
        if shape.labels:
            said = f"uint8 classes ({size}, {size}) below {shape.labels}: COCO's plus 1, 0 where there is none{ARRAYS}"
            return facts | {"modality": "array", "channels": 1, "input": said}
        how = "0 outside and 1 inside" if shape.domain == MASKS else "normalised as its publisher trained it"
        said = f"float32 ({size}, {size}, {shape.channels}), {how}{ARRAYS}"
        return facts | {"modality": "array", "channels": shape.channels, "input": said}

    def item(self, card: CodecCard) -> tuple[tuple[int, ...], np.dtype[Any]]:
        side = card.input_size or 0
        if self.colours:
            return super().item(card)
        if self.shape.labels:
            return (side, side), np.dtype(np.uint8)
        return (side, side, self.shape.channels), np.dtype(np.float32)

    def to_input(self, items: Tensor) -> Tensor:
        if self.colours:
            return super().to_input(items)
        embedded: Tensor = self.cls_emb(items.long()) if self.shape.labels else items
        return embedded.permute(0, 3, 1, 2).float()

    def to_items(self, pictures: Tensor) -> Tensor:
        if self.colours:
            return super().to_items(pictures)
        if self.shape.labels:
            return pictures.argmax(1).to(torch.uint8)
        if self.shape.domain == MASKS:  # trained by cross entropy: what comes out are logits
            pictures = torch.sigmoid(pictures)
        return pictures.permute(0, 2, 3, 1)

    def ids(self, x: Tensor) -> Tensor:
        z = self.quant_proj(self.encoder(x)).float()
        n, d, h, w = z.shape
        rows, codes = z.permute(0, 2, 3, 1).reshape(-1, d), self._codes()
        if self.shape.unit:
            rows, codes = functional.normalize(rows, dim=1), functional.normalize(codes, dim=1)
        return nearest(rows, codes, "dot" if self.shape.unit else "euclid").reshape(n, h, w)

    def pictures(self, ids: Tensor) -> Tensor:
        # The codes as they are stored: only the search is by direction.
        vectors = functional.embedding(ids, self._codes()).permute(0, 3, 1, 2)
        if self.shape.unet is not None and self.shape.diffusion is not None:
            item = (self.shape.channels, *(side * self.shape.patch for side in ids.shape[1:]))
            return self.shape.diffusion.sample(lambda x, t: self.decoder(x, t, vectors), item, STEPS, to=vectors)
        if self.shape.decoder is None:
            raise CurateError(
                f"ids of 4M's {self.shape.domain} tokenizer cannot be decoded here: its weights have neither a ViT "
                "nor a patched UNet for a decoder",
                "decode them with ml-4m, from the same checkpoint",
            )
        done: Tensor = self.decoder(self.post_quant_proj(vectors))
        return done

    def _codes(self) -> Tensor:
        lookup = self.quantize["_codebook"]
        assert isinstance(lookup, Lookup)
        return lookup.embed.float()


class FourMVQ(PictureTokenizer):
    """`EPFL-VILAB/4M_tokenizers_*` with a ViT encoder, as safetensors.

    Pass `size` for the checkpoints of several sizes: `@224` and `@448` ids come from the same weights. ml-4m's own
    script fed RGB with mean and std 0.5 to the teachers of its feature tokenizers, other than in training; here a map
    of features is taken as it is, and how it was made is its stream's business. The global and pose tokenizers (MLP
    and Memcodes) are `fourm_memcodes`.

    A DiVAE's `decode` starts from one seeded noise for every picture and calls a UNet of 196 million parameters `STEPS`
    times; sides are multiples of 32 then.
    """

    architecture = "4m-vq"
    patterns = ("*.safetensors", "*.pth")
    licence = "Sample Code License (EPFL and Apple), as its publisher states"

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = (*KEPT, *DECODER) if _has_vit_decoder(state) or _has_unet(state) else KEPT
        return {k: v for k, v in state.items() if k.startswith(kept) and k != "quantize._codebook.embed_avg"}

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        proj = sides(state, "encoder.proj.weight", 4, path)
        codes, code_width = sides(state, "quantize._codebook.embed", 2, path)
        labels = state["cls_emb.weight"].shape[0] if "cls_emb.weight" in state else 0
        decoder, out = None, 0
        if _has_vit_decoder(state):
            decoder = _vit_shape(state, "decoder", path)
            out = sides(state, "decoder.out_proj.weight", 2, path)[0] // proj[-1] ** 2
        unet = diffusion = None
        if _has_unet(state):
            unet = UNetShape.of_state(state, "decoder.", proj[1], code_width, path)
            beside = path.parent / "config.json"
            diffusion = Diffusion.of_config(read_config(beside) if beside.is_file() else PUBLISHED, DEFAULTS)
        shape = FourMShape(
            domain=_domain(path, proj[1], labels),
            channels=proj[1],
            patch=proj[-1],
            labels=labels,
            codes=codes,
            code_width=code_width,
            # Only the Euclidean codebook keeps an average beside its codes.
            unit="quantize._codebook.embed_avg" not in state,
            encoder=_vit_shape(state, "encoder", path),
            decoder=decoder,
            out=out,
            smooth=count(state, "decoder.out_conv.") if decoder is not None else 0,
            unet=unet,
            diffusion=diffusion,
        )
        return asdict(shape)

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        vits = {k: ViTShape(**shape[k]) if shape[k] is not None else None for k in ("encoder", "decoder")}
        more: dict[str, Any] = {}
        if shape.get("unet") is not None:
            unet: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in shape["unet"].items()}
            more = {"unet": UNetShape(**unet), "diffusion": Diffusion(**shape["diffusion"])}
        return FourMNet(FourMShape(**{**shape, **vits, **more}))


def _has_vit_decoder(state: Mapping[str, Tensor]) -> bool:
    return all(key in state for key in ("decoder.pos_emb", "decoder.out_proj.weight"))


def _has_unet(state: Mapping[str, Tensor]) -> bool:
    """4M has decoders of a third kind too (UViT, ControlNet), of which nothing was published."""
    return all(key in state for key in ("decoder.time_embed.0.weight", "decoder.input_blocks.0.0.weight"))


def _vit_shape(state: Mapping[str, Tensor], name: str, path: Path) -> ViTShape:
    _, width, side, _ = sides(state, f"{name}.pos_emb", 4, path)
    return ViTShape(width, count(state, f"{name}.blocks."), side, f"{name}.post_mlp.fc1.weight" in state)


def _domain(path: Path, channels: int, labels: int) -> str:
    """What `config.json` beside the weights says; without one, what the shapes tell."""
    beside = path.parent / "config.json"
    said = read_config(beside).get("domain") if beside.is_file() else None
    if isinstance(said, str) and said.replace("_", "").replace("-", "").isalnum():
        return said
    return "semseg" if labels else "rgb" if channels == 3 else f"map{channels}"
