"""TiTok (Yu et al. 2024, arXiv 2406.07550): a 256-pixel image as a row of 32 to 256 ids that have no place.

Its transformer blocks are `open_clip`'s, as in its publisher's code; heads are 64 wide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import infer_depth, read_config, sizes_of
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.vqgan import Chain, Codebook, Residual
from curate.tokenizers.grid import GridNet, Imported

HEAD = 64


class _Transformer(nn.Module):
    """What encoder and decoder share: places of a class token, patches and tokens, and the blocks between two norms."""

    def __init__(self, width: int, blocks: int, side: int, tokens: int) -> None:
        super().__init__()
        ensure_torchvision()
        from open_clip.transformer import ResidualAttentionBlock

        self.class_embedding = nn.Parameter(torch.zeros(1, width))
        self.positional_embedding = nn.Parameter(torch.zeros(side**2 + 1, width))
        self.latent_token_positional_embedding = nn.Parameter(torch.zeros(tokens, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = nn.ModuleList(ResidualAttentionBlock(width, width // HEAD) for _ in range(blocks))
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
    def __init__(self, width: int, blocks: int, side: int, tokens: int, patch: int, code_width: int, legacy: bool):
        super().__init__(width, blocks, side, tokens)
        self.patch_embed = nn.Conv2d(3, width, patch, stride=patch)
        self.conv_out = nn.Conv2d(width, code_width, 1)
        self.legacy = legacy

    def forward(self, x: Tensor, latent_tokens: Tensor) -> Tensor:
        """`(n, 3, H, W)` to `(n, code_width, 1, tokens)`."""
        n = len(x)
        _, tokens = self.mix(self.patch_embed(x).flatten(2).transpose(1, 2), latent_tokens.expand(n, -1, -1))
        count, width = tokens.shape[1:]
        # The first checkpoints were trained with rows read as columns here: memory of (tokens, width) taken as
        # (width, tokens), without a transposition.
        rows = tokens.reshape(n, width, count) if self.legacy else tokens.transpose(1, 2)
        z: Tensor = self.conv_out(rows[..., None])
        return z.reshape(n, -1, 1, count)


class Decoder(_Transformer):
    """Args: proxies: codes of the decoder from proxy codes to pixels; 0: the output is the pixels of a patch."""

    def __init__(self, width: int, blocks: int, side: int, tokens: int, patch: int, code_width: int, proxies: int):
        super().__init__(width, blocks, side, tokens)
        self.side, self.patch = side, patch
        self.decoder_embed = nn.Linear(code_width, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width))
        if proxies:
            self.ffn = nn.Sequential(nn.Conv2d(width, 2 * width, 1), nn.Tanh(), nn.Conv2d(2 * width, proxies, 1))
        else:
            self.ffn = nn.Sequential(nn.Conv2d(width, 3 * patch**2, 1))
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
        super().__init__(wide_in, wide_out)
        if wide_in != wide_out:
            self.nin_shortcut = nn.Conv2d(wide_out, wide_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        shortcut: Tensor = self.nin_shortcut(inner) if hasattr(self, "nin_shortcut") else x
        return inner + shortcut


def pixel_decoder(width: int, multipliers: Sequence[int], blocks: int, latent: int) -> Chain:
    """The decoder of MaskGIT's VQGAN (Chang et al. 2022, arXiv 2202.04200): no attention; images in [0, 1].

    Sizes are those of `VQGAN`.
    """
    chain, wide = Chain(), width * multipliers[-1]
    chain.step("conv_in", nn.Conv2d(latent, wide, 3, padding=1))
    for j in range(blocks):
        chain.step(f"mid.{j}", MaskGITResidual(wide, wide))
    for i in reversed(range(len(multipliers))):
        for j in range(blocks):
            chain.step(f"up.{i}.block.{j}", MaskGITResidual(wide, width * multipliers[i]))
            wide = width * multipliers[i]
        if i:
            chain.order.append(nn.Upsample(scale_factor=2.0, mode="nearest"))
            chain.step(f"up.{i}.upsample_conv", nn.Conv2d(wide, wide, 3, padding=1))
    chain.end(wide, nn.Conv2d(wide, 3, 3, padding=1))
    return chain


class TiTokNet(GridNet):
    """Images in [0, 1] to `tokens` ids and back.

    Args:
        side: of the grid of patches; patch: pixels of a patch's side.
        tokens: ids of an image; codes, code_width: the codebook; unit: True if latents and codes are l2-normalised.
        encoder_width, encoder_blocks, decoder_width, decoder_blocks: of the transformers.
        pixels: sizes of the decoder from proxy codes to pixels that the first checkpoints end in; None: the
            transformer's output is the pixels of a patch.
    """

    mean = (0.0, 0.0, 0.0)
    std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        side: int,
        patch: int,
        tokens: int,
        codes: int,
        code_width: int,
        unit: bool,
        encoder_width: int,
        encoder_blocks: int,
        decoder_width: int,
        decoder_blocks: int,
        pixels: Mapping[str, Any] | None,
    ) -> None:
        super().__init__()
        self.size, self.unit, proxies = side * patch, unit, dict(pixels or {})
        sizes = (side, tokens, patch, code_width)
        self.latent_tokens = nn.Parameter(torch.zeros(tokens, encoder_width))
        self.encoder = Encoder(encoder_width, encoder_blocks, *sizes, legacy=bool(proxies))
        self.decoder = Decoder(decoder_width, decoder_blocks, *sizes, proxies=proxies.get("codes", 0))
        self.quantize = Codebook(codes, code_width, "cosine" if unit else "euclid")
        if proxies:
            self.pixel_quantize = Codebook(proxies.pop("codes"), proxies["latent"], "euclid")
            self.pixel_decoder = pixel_decoder(**proxies)

    def card_fields(self, size: int | None) -> dict[str, Any]:
        if size not in (None, self.size):
            raise CurateError(f"this TiTok takes images of {self.size}x{self.size}, not {size}")
        unit = ", latent and codes l2-normalised" if self.unit else ""
        return {
            "index_order": f"id = row of the codebook of the nearest code{unit}; ids in the order of the latent tokens",
            "vocabulary": self.quantize.embedding.num_embeddings,
            "grid": (len(self.latent_tokens),),
            "input_size": self.size,
        }

    def ids(self, x: Tensor) -> Tensor:
        return self.quantize.ids(self.encoder(x, self.latent_tokens))[:, 0]

    def images(self, ids: Tensor) -> Tensor:
        x: Tensor = self.decoder(self.quantize.vectors(ids[:, None]))
        if not hasattr(self, "pixel_decoder"):
            return x
        # Not the likeliest proxy code but the mean of all, weighted by their probabilities.
        proxies = torch.einsum("nkhw,kd->ndhw", x.softmax(1), self.pixel_quantize.table())
        done: Tensor = self.pixel_decoder(proxies)
        return done


class TiTok(Imported):
    """`yucornetto/tokenizer_titok_*_imagenet` with VQ: l32, b64, s128 (4096 codes), bl64, bl128, sl256 (8192 codes).

    `config.json` beside the weights says whether codes are l2-normalised, which no tensor tells. The VAE variants give
    no ids, and TA-TiTok's decoder needs a text: neither fits.
    """

    architecture = "titok"
    patterns = ("*.safetensors", "tokenizer_titok*.bin", "pytorch_model.bin")
    licence = "Apache-2.0 (bytedance/1d-tokenizer)"
    packages = ("torch", "open_clip_torch")

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        patches, encoder_width = sizes_of(state, "encoder.positional_embedding", 2, path)
        codes, code_width = sizes_of(state, "quantize.embedding.weight", 2, path)
        return {
            "side": isqrt(patches - 1),
            "patch": sizes_of(state, "encoder.patch_embed.weight", 4, path)[-1],
            "tokens": sizes_of(state, "latent_tokens", 2, path)[0],
            "codes": codes,
            "code_width": code_width,
            "unit": _unit_codes(path),
            "encoder_width": encoder_width,
            "encoder_blocks": infer_depth(state, "encoder.transformer."),
            "decoder_width": sizes_of(state, "decoder.positional_embedding", 2, path)[1],
            "decoder_blocks": infer_depth(state, "decoder.transformer."),
            "pixels": None if "decoder.conv_out.weight" in state else _pixel_shape(state, path),
        }

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return TiTokNet(**shape)


def _pixel_shape(state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
    width = sizes_of(state, "pixel_decoder.norm_out.weight", 1, path)[0]
    codes, latent = sizes_of(state, "pixel_quantize.embedding.weight", 2, path)
    levels = range(infer_depth(state, "pixel_decoder.up."))
    wide = [sizes_of(state, f"pixel_decoder.up.{i}.block.0.conv1.weight", 4, path)[0] for i in levels]
    blocks = infer_depth(state, "pixel_decoder.mid.")
    multipliers = [w // width for w in wide]
    return {"width": width, "multipliers": multipliers, "blocks": blocks, "latent": latent, "codes": codes}


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
