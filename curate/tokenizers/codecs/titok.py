"""TiTok (Yu et al. 2024, arXiv 2406.07550): a 256-pixel picture as a row of 32 to 256 ids that have no place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from curate.models.weights import read_config
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.taming import Chain, Codebook, Residual, norm, preprocessing
from curate.tokenizers.image_grids import PictureNet, PictureTokenizer, count, sides

HEAD = 64


@dataclass(frozen=True)
class PixelShape:
    """Sizes of the MaskGIT-VQGAN decoder: as `taming.Shape`."""

    width: int
    multipliers: tuple[int, ...]
    blocks: int
    latent: int
    codes: int


@dataclass(frozen=True)
class TiTokShape:
    """Sizes of a TiTok.

    Attributes:
        side: of the grid of patches; patch: pixels of a patch's side.
        tokens: ids of a picture; codes, code_width: the codebook; unit: whether latents and codes are l2-normalised.
        encoder_width, encoder_blocks, decoder_width, decoder_blocks: of the transformers; heads are 64 wide.
        pixels: the decoder from proxy codes to pixels that the first checkpoints end in; None: the transformer's
            output is the pixels of a patch.
    """

    side: int
    patch: int
    tokens: int
    codes: int
    code_width: int
    unit: bool
    encoder_width: int
    encoder_blocks: int
    decoder_width: int
    decoder_blocks: int
    pixels: PixelShape | None


class Block(nn.Module):
    """Pre-norm transformer block, four times as wide inside, exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, width // HEAD, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        inner: Tensor = self.mlp["c_proj"](functional.gelu(self.mlp["c_fc"](self.ln_2(x))))
        return x + inner


class _Transformer(nn.Module):
    """What encoder and decoder share: places of a class token, patches and tokens, and the blocks between two norms."""

    def __init__(self, width: int, blocks: int, shape: TiTokShape) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(1, width))
        self.positional_embedding = nn.Parameter(torch.zeros(shape.side**2 + 1, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(shape.tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList([Block(width) for _ in range(blocks)])
        self.ln_post = nn.LayerNorm(width)

    def mix(self, patches: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`(n, side^2, width)` and `(n, tokens, width)` through the blocks; both again."""
        n, cells = len(patches), patches.shape[1]
        placed = torch.cat([self.class_embedding.expand(n, 1, -1), patches], 1) + self.positional_embedding
        x = self.ln_pre(torch.cat([placed, tokens + self.latent_token_positional_embedding], 1))
        for block in self.transformer:
            x = block(x)
        return self.ln_post(x[:, 1 : 1 + cells]), self.ln_post(x[:, 1 + cells :])


class Encoder(_Transformer):
    def __init__(self, shape: TiTokShape) -> None:
        super().__init__(shape.encoder_width, shape.encoder_blocks, shape)
        self.patch_embed = nn.Conv2d(3, shape.encoder_width, shape.patch, stride=shape.patch)
        self.conv_out = nn.Conv2d(shape.encoder_width, shape.code_width, 1)
        self.legacy = shape.pixels is not None

    def forward(self, x: Tensor, latent_tokens: Tensor) -> Tensor:
        """`(n, 3, H, W)` to `(n, code_width, 1, tokens)`."""
        n = len(x)
        _, tokens = self.mix(self.patch_embed(x).flatten(2).transpose(1, 2), latent_tokens.expand(n, -1, -1))
        count_, width = tokens.shape[1:]
        # The first checkpoints were trained with rows read as columns here: memory of (tokens, width) taken as
        # (width, tokens), without a transposition.
        rows = tokens.reshape(n, width, count_) if self.legacy else tokens.transpose(1, 2)
        z: Tensor = self.conv_out(rows[..., None])
        return z.reshape(n, -1, 1, count_)


class Decoder(_Transformer):
    def __init__(self, shape: TiTokShape) -> None:
        wide = shape.decoder_width
        super().__init__(wide, shape.decoder_blocks, shape)
        self.side, self.patch = shape.side, shape.patch
        self.decoder_embed = nn.Linear(shape.code_width, wide)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, wide))
        if shape.pixels is not None:
            self.ffn = nn.Sequential(
                nn.Conv2d(wide, 2 * wide, 1), nn.Tanh(), nn.Conv2d(2 * wide, shape.pixels.codes, 1)
            )
        else:
            self.ffn = nn.Sequential(nn.Conv2d(wide, 3 * shape.patch**2, 1))
            self.conv_out = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """`(n, code_width, 1, tokens)` to logits of proxy codes `(n, codes, side, side)`, or to `(n, 3, H, W)`."""
        n, g, p = len(z), self.side, self.patch
        tokens = self.decoder_embed(z[:, :, 0].transpose(1, 2))
        patches, _ = self.mix(self.mask_token.expand(n, g * g, -1), tokens)
        x: Tensor = self.ffn(patches.transpose(1, 2).reshape(n, -1, g, g))
        if hasattr(self, "conv_out"):
            x = x.reshape(n, p, p, 3, g, g).permute(0, 3, 4, 1, 5, 2).reshape(n, 3, g * p, g * p)
            x = self.conv_out(x)
        return x


class MaskGITResidual(Residual):
    """MaskGIT's block: where the width changes, the shortcut is a 1x1 convolution of the block's own result."""

    def __init__(self, wide_in: int, wide_out: int) -> None:
        super().__init__(wide_in, wide_out, bias=False)
        if wide_in != wide_out:
            self.nin_shortcut = nn.Conv2d(wide_out, wide_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        shortcut: Tensor = self.nin_shortcut(inner) if hasattr(self, "nin_shortcut") else x
        return inner + shortcut


def pixel_decoder(shape: PixelShape) -> Chain:
    """The decoder of MaskGIT's VQGAN (Chang et al. 2022, arXiv 2202.04200): no attention; pictures in [0, 1]."""
    chain, wide = Chain(), shape.width * shape.multipliers[-1]
    chain.step("conv_in", nn.Conv2d(shape.latent, wide, 3, padding=1))
    for j in range(shape.blocks):
        chain.step(f"mid.{j}", MaskGITResidual(wide, wide))
    for i in reversed(range(len(shape.multipliers))):
        for j in range(shape.blocks):
            chain.step(f"up.{i}.block.{j}", MaskGITResidual(wide, shape.width * shape.multipliers[i]))
            wide = shape.width * shape.multipliers[i]
        if i:
            chain.order.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
            chain.step(f"up.{i}.upsample_conv", nn.Conv2d(wide, wide, 3, padding=1))
    chain.step("norm_out", norm(wide))
    chain.order.append(nn.SiLU())
    chain.step("conv_out", nn.Conv2d(wide, 3, 3, padding=1))
    return chain


class TiTokNet(PictureNet):
    """Pictures in [0, 1] to `tokens` ids and back."""

    mean = 0.0
    std = 1.0

    def __init__(self, shape: TiTokShape) -> None:
        super().__init__()
        self.shape = shape
        self.latent_tokens = nn.Parameter(torch.zeros(shape.tokens, shape.encoder_width))
        self.encoder = Encoder(shape)
        self.decoder = Decoder(shape)
        self.quantize = Codebook(shape.codes, shape.code_width, "cosine" if shape.unit else "euclid")
        if shape.pixels is not None:
            self.pixel_quantize = Codebook(shape.pixels.codes, shape.pixels.latent, "euclid")
            self.pixel_decoder = pixel_decoder(shape.pixels)

    def facts(self, size: int | None) -> dict[str, Any]:
        own = self.shape.side * self.shape.patch
        if size not in (None, own):
            raise CurateError(f"this TiTok takes pictures of {own}x{own}, not {size}")
        unit = ", latent and codes l2-normalised" if self.shape.unit else ""
        return {
            "quantiser": "vq",
            "index_order": f"id = row of the codebook of the nearest code{unit}; ids in the order of the latent tokens",
            "vocabulary": self.shape.codes,
            "grid": (self.shape.tokens,),
            "input_size": own,
            "preprocessing": preprocessing(self.mean, self.std),
        }

    def ids(self, x: Tensor) -> Tensor:
        return self.quantize.ids(self.encoder(x, self.latent_tokens))[:, 0]

    def pictures(self, ids: Tensor) -> Tensor:
        x: Tensor = self.decoder(self.quantize.vectors(ids[:, None]))
        if self.shape.pixels is None:
            return x
        # Not the likeliest proxy code but the mean of all, weighted by their probabilities.
        proxies = torch.einsum("nkhw,kd->ndhw", x.softmax(1), self.pixel_quantize.table())
        done: Tensor = self.pixel_decoder(proxies)
        return done


class TiTok(PictureTokenizer):
    """`yucornetto/tokenizer_titok_*_imagenet` with VQ: l32, b64, s128 (4096 codes), bl64, bl128, sl256 (8192 codes).

    `config.json` beside the weights says whether codes are l2-normalised, which no tensor tells. The VAE variants give
    no ids, and TA-TiTok's decoder needs a text: neither fits.
    """

    architecture = "titok"
    patterns = ("*.safetensors", "tokenizer_titok*.bin", "pytorch_model.bin")
    licence = "Apache-2.0 (bytedance/1d-tokenizer)"

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        patches, encoder_width = sides(state, "encoder.positional_embedding", 2, path)
        codes, code_width = sides(state, "quantize.embedding.weight", 2, path)
        shape = TiTokShape(
            side=isqrt(patches - 1),
            patch=sides(state, "encoder.patch_embed.weight", 4, path)[-1],
            tokens=sides(state, "latent_tokens", 2, path)[0],
            codes=codes,
            code_width=code_width,
            unit=_unit_codes(path),
            encoder_width=encoder_width,
            encoder_blocks=count(state, "encoder.transformer."),
            decoder_width=sides(state, "decoder.positional_embedding", 2, path)[1],
            decoder_blocks=count(state, "decoder.transformer."),
            pixels=None if "decoder.conv_out.weight" in state else _pixel_shape(state, path),
        )
        return asdict(shape)

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        pixels = shape["pixels"]
        if pixels is not None:
            pixels = PixelShape(**{**pixels, "multipliers": tuple(pixels["multipliers"])})
        return TiTokNet(TiTokShape(**{**shape, "pixels": pixels}))


def _pixel_shape(state: Mapping[str, Tensor], path: Path) -> PixelShape:
    width = sides(state, "pixel_decoder.norm_out.weight", 1, path)[0]
    codes, latent = sides(state, "pixel_quantize.embedding.weight", 2, path)
    levels = range(count(state, "pixel_decoder.up."))
    wide = [sides(state, f"pixel_decoder.up.{i}.block.0.conv1.weight", 4, path)[0] for i in levels]
    return PixelShape(width, tuple(w // width for w in wide), count(state, "pixel_decoder.mid."), latent, codes)


def _unit_codes(path: Path) -> bool:
    config = read_config(path.parent / "config.json")
    try:
        held = config["model"]["vq_model"]
        mode, unit = held.get("quantize_mode", "vq"), held["use_l2_norm"]
    except (KeyError, TypeError, AttributeError) as error:
        raise CurateError(f"config.json beside {path.name} has no model.vq_model.use_l2_norm") from error
    if mode != "vq":
        raise CurateError(f"{path.name} is a TiTok with quantize_mode {mode}: it gives no ids")
    return bool(unit)
