"""4M's VQ tokenizers (Mizrahi et al. 2023, arXiv 2312.06647; 4M-21, Bachmann et al. 2024, 2406.09406): ViT encoder.

Images (RGB, normals, edges), class maps (COCO semantic segmentation), depth, masks, and maps of features (CLIP,
DINOv2, ImageBind), each with its own weights. VQ-VAEs have a ViT for a decoder; DiVAEs (RGB, depth, normals, edges)
a diffusion UNet, which `decode` calls `STEPS` times for each image. Blocks are `timm`'s; heads are 64 wide.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import infer_depth, read_beside, rename_state, sizes_of
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.fourm_unet import PatchedUNet, diffusion_of, sample, scheduler_of, unet_shape
from curate.tokenizers.grid import GridNet, Imported, nearest_code, square_grid
from curate.tokenizers.inputs import ARRAY_INPUT

HEAD = 64
KEPT = ("encoder.", "quant_proj.", "quantize._codebook.embed", "cls_emb.")
DECODER = ("decoder.", "post_quant_proj.")

STEPS = 25
"""Of diffusion, from ids to images: as many as ml-4m's `run_generation.py` takes."""

DEFAULTS = {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"} | {
    "thresholding": True,
    "clip_sample": False,
    "zero_terminal_snr": True,
}
"""What ml-4m's class `DiVAE` takes for what its `config.json` does not say."""
PUBLISHED = {"num_train_timesteps": 1000, "beta_schedule": "linear", "prediction_type": "sample"}
"""How ml-4m's own DiVAEs were trained (`cfgs/default/tokenization/divae`), for weights without a `config.json`."""

MASKS = "sam_mask"
"""Domain of the tokenizer of SAM's masks: 0 and 1 in, the chance of 1 out."""

_CONVNEXT = {"conv_dw": "dwconv", "mlp.fc1": "pwconv1", "mlp.fc2": "pwconv2"}


class ViT(nn.Module):
    """Places added, blocks, and the pointwise tanh MLP of ViT-VQGAN (Yu et al. 2021, arXiv 2110.04627).

    Args:
        side: of the grid of places; tanh: True if there is that MLP after the blocks.
    """

    def __init__(self, width: int, blocks: int, side: int, tanh: bool) -> None:
        super().__init__()
        ensure_torchvision()
        from timm.layers.mlp import Mlp
        from timm.models.vision_transformer import Block

        norm: Any = partial(nn.LayerNorm, eps=1e-6)
        self.pos_emb = nn.Parameter(torch.zeros(1, width, side, side), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, width // HEAD, qkv_bias=True, norm_layer=norm) for _ in range(blocks))
        if tanh:
            self.norm_mlp = norm(width)
            self.post_mlp = Mlp(width, 4 * width, act_layer=nn.Tanh)

    def mix(self, x: Tensor) -> Tensor:
        """`(n, width, h, w)` through the blocks to `(n, h * w, width)`; places are resized (bicubic) to h and w."""
        places = functional.interpolate(self.pos_emb, size=x.shape[2:], mode="bicubic", align_corners=False)
        x = (x + places).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return x + self.post_mlp(self.norm_mlp(x)) if hasattr(self, "post_mlp") else x


class Encoder(ViT):
    def __init__(self, channels: int, patch: int, width: int, **sizes: Any) -> None:
        super().__init__(width, **sizes)
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        patches: Tensor = self.proj(x)
        n, _, h, w = patches.shape
        return self.mix(patches).transpose(1, 2).reshape(n, -1, h, w)


class Decoder(ViT):
    def __init__(self, patch: int, out: int, smooth: int, width: int, **sizes: Any) -> None:
        super().__init__(width, **sizes)
        from timm.models.convnext import ConvNeXtBlock

        self.patch, self.out = patch, out
        self.out_proj = nn.Linear(width, out * patch**2)
        if smooth:
            self.out_conv = nn.Sequential(*[ConvNeXtBlock(out, ls_init_value=1e-6) for _ in range(smooth)])
            rename_state(self.out_conv, _convnext_name)

    def forward(self, z: Tensor) -> Tensor:
        n, _, h, w = z.shape
        x = self.out_proj(self.mix(z)).reshape(n, h, w, self.out, self.patch, self.patch)
        done: Tensor = x.permute(0, 3, 1, 4, 2, 5).reshape(n, self.out, h * self.patch, w * self.patch)
        return self.out_conv(done) if hasattr(self, "out_conv") else done


def _convnext_name(key: str) -> str:
    for own, theirs in _CONVNEXT.items():
        key = key.replace(f".{own}.", f".{theirs}.")
    return key


class Lookup(nn.Module):
    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.embed = nn.Parameter(torch.zeros(codes, width))


class FourMNet(GridNet):
    """RGB, normals and edges in [-1, 1]; class maps as classes; everything else as the numbers it is given.

    Args:
        domain: as ml-4m calls it, e.g. `rgb`.
        channels: of what the encoder takes; patch: pixels of a patch's side, 1 for maps of features.
        labels: classes of a class map, each embedded in `channels` numbers; 0: no class map.
        codes, code_width: the codebook; unit: True if search is by cosine.
        encoder, decoder: sizes of `ViT`; decoder None: not a transformer.
        out: numbers that this decoder gives for each position.
        smooth: ConvNeXt blocks after its patches (Liu et al. 2022, arXiv 2201.03545); 2 for masks, none for others.
        unet, diffusion: sizes of the other decoder, and what `scheduler_of` takes; None: not that one.
    """

    def __init__(
        self,
        domain: str,
        channels: int,
        patch: int,
        labels: int,
        codes: int,
        code_width: int,
        unit: bool,
        encoder: Mapping[str, Any],
        decoder: Mapping[str, Any] | None,
        out: int,
        smooth: int = 0,
        unet: Mapping[str, Any] | None = None,
        diffusion: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.domain, self.channels, self.patch, self.labels, self.unit = domain, channels, patch, labels, unit
        self.values = labels or 256
        self.size = encoder["side"] * patch
        self.encoder = Encoder(channels, patch, **encoder)
        self.quant_proj = nn.Conv2d(encoder["width"], code_width, 1)
        self.quantize = nn.ModuleDict({"_codebook": Lookup(codes, code_width)})
        if labels:
            self.cls_emb = nn.Embedding(labels, channels)
        if decoder is not None:
            self.post_quant_proj = nn.Conv2d(code_width, decoder["width"], 1)
            self.decoder: Decoder | PatchedUNet = Decoder(patch, out, smooth, **decoder)
        elif unet is not None:
            self.decoder = PatchedUNet(**unet)
            self.scheduler = scheduler_of(**(diffusion or {}))

    @property
    def colours(self) -> bool:
        """True if items are RGB images; else they are class maps or float32."""
        return self.channels == 3 and self.patch > 1 and not self.labels

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size = self.size if size is None else size
        unit = ", latent and code l2-normalised" if self.unit else ""
        fields: dict[str, Any] = {
            "stream": f"tok_{self.domain}@{size}",
            "index_order": f"id = row of the codebook of the nearest code{unit}; cells in row-major order",
            "vocabulary": len(self._codes()),
            "grid": square_grid(f"4M's {self.domain} tokenizer", size, self.patch),
            "input_size": size,
        }
        if self.colours:
            return fields
        if self.labels:
            said = (
                f"uint8 classes ({size}, {size}) below {self.labels}: COCO's plus 1, 0 where there is none{ARRAY_INPUT}"
            )
        else:
            how = "0 outside and 1 inside" if self.domain == MASKS else "normalised as its publisher trained it"
            said = f"float32 ({size}, {size}, {self.channels}), {how}{ARRAY_INPUT}"
        channels = 1 if self.labels else self.channels
        return fields | {"modality": "array", "preprocessing": None, "channels": channels, "input": said}

    def item(self, card: CodecCard) -> tuple[tuple[int, ...], np.dtype[Any]]:
        side = card.input_size or 0
        if self.colours:
            return super().item(card)
        if self.labels:
            return (side, side), np.dtype(np.uint8)
        return (side, side, self.channels), np.dtype(np.float32)

    def to_input(self, items: Tensor) -> Tensor:
        if self.colours:
            return super().to_input(items)
        embedded: Tensor = self.cls_emb(items.long()) if self.labels else items
        return embedded.permute(0, 3, 1, 2).float()

    def to_items(self, images: Tensor) -> Tensor:
        if self.colours:
            return super().to_items(images)
        if self.labels:
            return images.argmax(1).to(torch.uint8)
        if self.domain == MASKS:  # trained by cross entropy: what comes out are logits
            images = torch.sigmoid(images)
        return images.permute(0, 2, 3, 1)

    def ids(self, x: Tensor) -> Tensor:
        z = self.quant_proj(self.encoder(x)).float()
        n, d, h, w = z.shape
        rows, codes = z.permute(0, 2, 3, 1).reshape(-1, d), self._codes()
        if self.unit:
            rows, codes = functional.normalize(rows, dim=1), functional.normalize(codes, dim=1)
        return nearest_code(rows, codes, "dot" if self.unit else "euclid").reshape(n, h, w)

    def images(self, ids: Tensor) -> Tensor:
        # The codes as they are stored: only the search is by direction.
        vectors = functional.embedding(ids, self._codes()).permute(0, 3, 1, 2)
        if not hasattr(self, "decoder"):
            raise CurateError(
                f"ids of 4M's {self.domain} tokenizer cannot be decoded here: its weights have neither a ViT "
                "nor a patched UNet for a decoder",
                "decode them with ml-4m, from the same checkpoint",
            )
        if isinstance(self.decoder, PatchedUNet):
            item = (self.channels, *(side * self.patch for side in ids.shape[1:]))
            return sample(self.scheduler, lambda x, t: self.decoder(x, t, vectors), item, STEPS, to=vectors)
        done: Tensor = self.decoder(self.post_quant_proj(vectors))
        return done

    def _codes(self) -> Tensor:
        lookup = self.quantize["_codebook"]
        assert isinstance(lookup, Lookup)
        return lookup.embed.float()


class FourMVQ(Imported):
    """`EPFL-VILAB/4M_tokenizers_*` with a ViT encoder, as safetensors.

    Pass `size` for the checkpoints of several sizes: `@224` and `@448` ids come from the same weights. ml-4m's own
    script fed RGB with mean and std 0.5 to the teachers of its feature tokenizers, other than in training; here a map
    of features is taken as it is, and how it was made is its stream's business. The global and pose tokenizers (MLP
    and Memcodes) are `fourm_memcodes`.

    A DiVAE's `decode` starts from one seeded noise for every image and calls a UNet of 196 million parameters `STEPS`
    times; sides are multiples of 32 then.
    """

    architecture = "4m-vq"
    patterns = ("*.safetensors", "*.pth")
    licence = "Sample Code License (EPFL and Apple), as its publisher states"
    packages = ("torch", "timm", "diffusers")

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        kept = (*KEPT, *DECODER) if _has_vit_decoder(state) or _has_unet(state) else KEPT
        return {k: v for k, v in state.items() if k.startswith(kept) and k != "quantize._codebook.embed_avg"}

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        proj = sizes_of(state, "encoder.proj.weight", 4, path)
        codes, code_width = sizes_of(state, "quantize._codebook.embed", 2, path)
        labels = state["cls_emb.weight"].shape[0] if "cls_emb.weight" in state else 0
        shape = {
            "domain": domain_of(path, "semseg" if labels else "rgb" if proj[1] == 3 else f"map{proj[1]}"),
            "channels": proj[1],
            "patch": proj[-1],
            "labels": labels,
            "codes": codes,
            "code_width": code_width,
            # Only the Euclidean codebook keeps an average beside its codes.
            "unit": "quantize._codebook.embed_avg" not in state,
            "encoder": _vit_shape(state, "encoder", path),
            "decoder": None,
            "out": 0,
            "smooth": 0,
            "unet": None,
            "diffusion": None,
        }
        if _has_vit_decoder(state):
            shape["decoder"] = _vit_shape(state, "decoder", path)
            shape["out"] = sizes_of(state, "decoder.out_proj.weight", 2, path)[0] // proj[-1] ** 2
            shape["smooth"] = infer_depth(state, "decoder.out_conv.")
        if _has_unet(state):
            shape["unet"] = unet_shape(state, "decoder.", proj[1], code_width, path)
            shape["diffusion"] = diffusion_of(read_beside(path) or PUBLISHED, DEFAULTS)
        return shape

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return FourMNet(**shape)


def _has_vit_decoder(state: Mapping[str, Tensor]) -> bool:
    return all(key in state for key in ("decoder.pos_emb", "decoder.out_proj.weight"))


def _has_unet(state: Mapping[str, Tensor]) -> bool:
    """4M has decoders of a third kind too (UViT, ControlNet), of which nothing was published."""
    return all(key in state for key in ("decoder.time_embed.0.weight", "decoder.input_blocks.0.0.weight"))


def _vit_shape(state: Mapping[str, Tensor], name: str, path: Path) -> dict[str, Any]:
    _, width, side, _ = sizes_of(state, f"{name}.pos_emb", 4, path)
    depth, tanh = infer_depth(state, f"{name}.blocks."), f"{name}.post_mlp.fc1.weight" in state
    return {"width": width, "blocks": depth, "side": side, "tanh": tanh}


def domain_of(path: Path, otherwise: str) -> str:
    """What `config.json` beside the weights says; `otherwise` where it says none that a stream's name can have."""
    said = read_beside(path).get("domain")
    if isinstance(said, str) and said.replace("_", "").replace("-", "").isalnum():
        return said
    return otherwise
