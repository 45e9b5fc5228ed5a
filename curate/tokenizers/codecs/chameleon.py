"""Chameleon's image tokenizer (Chameleon Team 2024, arXiv 2405.09818, section 2.1): 512 px to 32x32 of 8192 ids.

The encoder is `transformers`' `ChameleonVQVAE`. Whole checkpoints on the hub (`facebook/chameleon-7b`) hold it under
`model.vqmodel.` and without a decoder. Meta's own `vqgan.ckpt` (keys without prefix) holds the decoder too.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from curate.models.batches import finite, in_fp32
from curate.models.torchvision_shim import ensure_torchvision
from curate.models.weights import read_beside, read_part, rename_state
from curate.schema.errors import CurateError
from curate.tokenizers.codecs.vqgan import finest_first
from curate.tokenizers.grid import GridNet, Imported, square_grid

ANCHOR = "quantize.embedding.weight"
NEAREST = (
    "id = row of the codebook vector nearest to the latent (squared Euclidean distance in fp32, the lowest row of "
    "equals); cells in row-major order"
)
# `rescale_factor` 0.0078 and `image_mean` 1 of the processor of the whole checkpoints, on values in [0, 1]: nearly,
# but not exactly, the [-1, 1] of Meta's own tokenizer.
HUB_SCALE = 1 / (0.0078 * 255)


def config_of(kind: type[Any], told: Mapping[str, Any]) -> Any:
    """A configuration of `transformers` from what a `config.json` says of the fields that it has."""
    names = kind().to_dict().keys() - {"model_type", "transformers_version", "_name_or_path"}
    return kind(**{name: value for name, value in told.items() if name in names})


def normalisation(weights: Path, otherwise: float) -> dict[str, list[float]]:
    """Mean and std on values in [0, 1] of the `preprocessor_config.json` beside weights; else `otherwise` for each.

    Its own are applied after a multiplication of bytes with `rescale_factor`, which need not be 1/255.
    """
    processor = read_beside(weights, "preprocessor_config.json")
    scale = float(processor.get("rescale_factor", 1 / 255)) * 255
    means, stds = processor.get("image_mean"), processor.get("image_std")
    if means is None or stds is None:
        return {"mean": [otherwise] * 3, "std": [otherwise] * 3}
    return {"mean": [float(m) / scale for m in means], "std": [float(s) / scale for s in stds]}


def vqgan_decoder(config: Any) -> nn.Module:
    """VQGAN's decoder, the encoder's mirror with one block more a level; parameters are named as in `vqgan.ckpt`.

    Latents `(n, z, h, w)` to images `(n, 3, h 2^(levels - 1), ...)`. It is that of `transformers`' `JanusVQVAE`, with
    attention where this configuration has it.
    """
    ensure_torchvision()
    from transformers import JanusVQVAEConfig
    from transformers.models.janus import modeling_janus

    janus: Any = modeling_janus

    decoder: Any = janus.JanusVQVAEDecoder(config_of(JanusVQVAEConfig, config.to_dict()))
    vanilla, levels = config.attn_type == "vanilla", len(decoder.up)
    for i, up in enumerate(decoder.up):
        width = config.base_channels * config.channel_multiplier[levels - 1 - i]
        here = vanilla and config.resolution // 2 ** (levels - 1 - i) in (config.attn_resolutions or [])
        up.attn = nn.ModuleList(janus.JanusVQVAEAttnBlock(width) for _ in up.block if here)
    if not vanilla:
        decoder.mid.attn_1 = nn.Identity()
    rename_state(decoder, finest_first(levels))
    return cast(nn.Module, decoder)


class ChameleonNet(GridNet):
    """Args: config: fields of `ChameleonVQVAEConfig`; decoder: True if there is one; mean, std: see `GridNet`."""

    def __init__(self, config: Mapping[str, Any], decoder: bool, mean: Any = (), std: Any = ()) -> None:
        super().__init__()
        ensure_torchvision()
        from transformers import ChameleonVQVAE, ChameleonVQVAEConfig

        self.config = config_of(ChameleonVQVAEConfig, config)
        self.stride = 2 ** (len(self.config.channel_multiplier) - 1)
        self.mean, self.std = mean, std
        net: Any = ChameleonVQVAE(self.config)
        self.encoder, self.quantize = net.encoder, net.quantize
        self.quant_conv, self.post_quant_conv = net.quant_conv, net.post_quant_conv
        if decoder:
            self.decoder = vqgan_decoder(self.config)

    def card_fields(self, size: int | None) -> dict[str, Any]:
        size = int(self.config.resolution) if size is None else size
        return {
            "index_order": f"{NEAREST}. Not the ids of Chameleon's language model, which are permuted",
            "vocabulary": self.config.num_embeddings,
            "grid": square_grid("Chameleon's tokenizer", size, self.stride),
            "input_size": size,
        }

    def ids(self, x: Tensor) -> Tensor:
        latents = finite(self.quant_conv(self.encoder(x)))
        with in_fp32(latents):
            return cast(Tensor, self.quantize(latents)[2].view(len(x), *latents.shape[2:]))

    def images(self, ids: Tensor) -> Tensor:
        """Raises CurateError where the weights came without a decoder."""
        if not hasattr(self, "decoder"):
            raise CurateError(
                "these weights cannot decode: checkpoints of the whole model leave the decoder out",
                "import Meta's tokenizer/vqgan.ckpt, which holds it",
            )
        return cast(Tensor, self.decoder(self.post_quant_conv(self.quantize.embedding(ids).permute(0, 3, 1, 2))))


class ChameleonVQ(Imported):
    """Chameleon's VQ: that part of `facebook/chameleon-*`, the part alone, or Meta's `vqgan.ckpt`.

    `config.json` (`vq_config` in that of a whole model) and `preprocessor_config.json` beside the weights are used
    where there are such, the published values otherwise.
    """

    architecture = "chameleon-vq"
    patterns = ("*.safetensors", "*.ckpt", "*.bin")
    packages = ("torch", "transformers")

    @classmethod
    def read(cls, source: str, file: str | None) -> tuple[Path, dict[str, Tensor]]:
        return read_part(source, ANCHOR, ("model.vqmodel.", "vqmodel.", ""), (file,) if file else cls.patterns)

    @classmethod
    def select(cls, state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {k: v for k, v in state.items() if not k.startswith("loss.")}

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        ensure_torchvision()
        from transformers import ChameleonVQVAEConfig

        told, decodes = read_beside(path), "decoder.conv_in.weight" in state
        config = config_of(ChameleonVQVAEConfig, told.get("vq_config", told)).to_diff_dict()
        return {"config": config, "decoder": decodes} | normalisation(path, 0.5 if decodes else HUB_SCALE)

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return ChameleonNet(**shape)
