"""The VQ-VAE of van den Oord et al. (2017, arXiv 1711.00937, section 4.1): 4x4 pixels to one id, 256 px to 64x64.

Two convolutions of stride 2, one of 3x3, residual blocks, a 1x1 convolution to the codes' length, the nearest code, and
the mirror image of that on the way back. Weights that are known to be of it: `vqvae-512x128-f4` of
NimbleBoxAI/explore-weights (MIT), 512 codes of 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from curate.models.weights import infer_depth, required
from curate.tokenizers.grid import GridNet, Imported, nearest_code, square_grid

STRIDE = 4


class _Block(nn.Module):
    """relu(x) + f(x), f a 3x3 and a 1x1 convolution, each after a ReLU.

    The sum takes the rectified x, not x: the reference implementation's first ReLU works in place, and weights that
    were trained with it need the same (measured on photographs: 25.8 dB so, 22.3 dB with x itself).
    """

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        first, second = nn.Conv2d(width, narrow, 3, padding=1, bias=False), nn.Conv2d(narrow, width, 1, bias=False)
        self._block = nn.ModuleDict({"conv_1": first, "conv_2": second})

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        return cast(Tensor, x + self._block["conv_2"](functional.relu(self._block["conv_1"](x))))


class _Stack(nn.Module):
    """Residual blocks, and a ReLU after the last."""

    def __init__(self, width: int, narrow: int, blocks: int) -> None:
        super().__init__()
        self.residual_blocks = nn.ModuleDict({f"residual_{i}": _Block(width, narrow) for i in range(blocks)})

    def forward(self, x: Tensor) -> Tensor:
        for block in self.residual_blocks.values():
            x = block(x)
        return functional.relu(x)


class _Layers(nn.Module):
    """The modules of encoder or decoder, a ReLU after each that `rectified` names."""

    def __init__(self, rectified: tuple[str, ...], **layers: nn.Module) -> None:
        super().__init__()
        self.rectified = rectified
        self._blocks = nn.ModuleDict(layers)

    def forward(self, x: Tensor) -> Tensor:
        for name, layer in self._blocks.items():
            x = functional.relu(layer(x)) if name in self.rectified else layer(x)
        return x


class VQVAENet(GridNet):
    """Images in [-0.5, 0.5], float `(n, 3, H, W)`, to ids `(n, H/4, W/4)` and back.

    Args:
        codes, length: of the codebook.
        width: channels at 1/4 resolution; at 1/2 there are half as many.
        narrow: channels inside a residual block.
        blocks: residual blocks of the encoder and of the decoder.
    """

    std = (1.0, 1.0, 1.0)

    def __init__(self, codes: int, length: int, width: int, narrow: int, blocks: int) -> None:
        super().__init__()
        half = width // 2
        self.encoder = _Layers(
            ("conv_1", "conv_2"),
            conv_1=nn.Conv2d(3, half, 4, stride=2, padding=1),
            conv_2=nn.Conv2d(half, width, 4, stride=2, padding=1),
            conv_3=nn.Conv2d(width, width, 3, padding=1),
            residual=_Stack(width, narrow, blocks),
        )
        self.pre_vq_conv = nn.Conv2d(width, length, 1)
        self.vq_vae = nn.ModuleDict({"codebook": nn.Embedding(codes, length)})
        self.decoder = _Layers(
            ("conv_t_1",),
            conv_1=nn.Conv2d(length, width, 3, padding=1),
            residual=_Stack(width, narrow, blocks),
            conv_t_1=nn.ConvTranspose2d(width, half, 4, stride=2, padding=1),
            conv_t_2=nn.ConvTranspose2d(half, 3, 4, stride=2, padding=1),
        )

    @property
    def codebook(self) -> Tensor:
        """fp32 `(codes, length)`."""
        return cast(Tensor, self.vq_vae["codebook"].weight).float()

    def card_fields(self, size: int | None) -> dict[str, Any]:
        side = 256 if size is None else size
        return {
            "index_order": "index of the nearest code (Euclidean, ties to the lowest); cells in row-major order",
            "vocabulary": len(self.codebook),
            "grid": square_grid("vqvae", side, STRIDE),
            "input_size": side,
            "padding": "none; sides are multiples of 4",
            "valid_length": "the whole grid",
        }

    def ids(self, x: Tensor) -> Tensor:
        z = self.pre_vq_conv(self.encoder(x)).float()
        flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
        return nearest_code(flat, self.codebook, "euclid").view(len(z), *z.shape[2:])

    def images(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.codebook[ids].permute(0, 3, 1, 2)))


class VQVAE(Imported):
    """Sizes are read from the tensors; an image may have any side that 4 divides."""

    architecture = "vqvae"
    patterns = ("vqvae*.safetensors", "*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.bin")
    licence = "as its publisher states (explore-weights: MIT)"

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        codes, length = required(state, "vq_vae.codebook.weight", path).shape
        blocks = "encoder._blocks.residual.residual_blocks.residual_"
        return {
            "codes": codes,
            "length": length,
            "width": required(state, "encoder._blocks.conv_2.weight", path).shape[0],
            "narrow": required(state, f"{blocks}0._block.conv_1.weight", path).shape[0],
            "blocks": infer_depth(state, blocks),
        }

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> GridNet:
        return VQVAENet(**shape)
