"""The VQ-VAE of van den Oord et al. (2017, arXiv 1711.00937, section 4.1): 4x4 pixels to one id, 256 px to 64x64.

Two convolutions of stride 2, one of 3x3, residual blocks, a 1x1 convolution to the codes' length, the nearest code, and
the mirror image of that on the way back. Weights that are known to be of it: `vqvae-512x128-f4` of
NimbleBoxAI/explore-weights (MIT), 512 codes of 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional

from curate.tokenizers.image_grids import PictureNet, PictureTokenizer, count, grid_of, nearest, tensor

STRIDE = 4


@dataclass(frozen=True)
class Shape:
    """Sizes of a VQ-VAE.

    Attributes:
        codes, length: of the codebook.
        width: channels at 1/4 resolution; at 1/2 there are half as many.
        narrow: channels inside a residual block.
        blocks: residual blocks of the encoder and of the decoder.
    """

    codes: int = 512
    length: int = 128
    width: int = 128
    narrow: int = 64
    blocks: int = 2


class _Block(nn.Module):
    """relu(x) + f(x), f a 3x3 and a 1x1 convolution, each after a ReLU.

    The sum takes the rectified x, not x: the reference implementation's first ReLU works in place, and weights that
    were trained with it need the same (measured on photographs: 25.8 dB so, 22.3 dB with x itself).
    """

    def __init__(self, width: int, narrow: int) -> None:
        super().__init__()
        self._block = nn.ModuleDict(
            {
                "conv_1": nn.Conv2d(width, narrow, 3, padding=1, bias=False),
                "conv_2": nn.Conv2d(narrow, width, 1, bias=False),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(x)
        return cast(Tensor, x + self._block["conv_2"](functional.relu(self._block["conv_1"](x))))


class _Stack(nn.Module):
    """Residual blocks, and a ReLU after the last."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.residual_blocks = nn.ModuleDict(
            {f"residual_{i}": _Block(shape.width, shape.narrow) for i in range(shape.blocks)}
        )

    def forward(self, x: Tensor) -> Tensor:
        for block in self.residual_blocks.values():
            x = block(x)
        return functional.relu(x)


class _Encoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._blocks = nn.ModuleDict(
            {
                "conv_1": nn.Conv2d(3, shape.width // 2, 4, stride=2, padding=1),
                "conv_2": nn.Conv2d(shape.width // 2, shape.width, 4, stride=2, padding=1),
                "conv_3": nn.Conv2d(shape.width, shape.width, 3, padding=1),
                "residual": _Stack(shape),
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        layers = self._blocks
        y = functional.relu(layers["conv_2"](functional.relu(layers["conv_1"](x))))
        return cast(Tensor, layers["residual"](layers["conv_3"](y)))


class _Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self._blocks = nn.ModuleDict(
            {
                "conv_1": nn.Conv2d(shape.length, shape.width, 3, padding=1),
                "residual": _Stack(shape),
                "conv_t_1": nn.ConvTranspose2d(shape.width, shape.width // 2, 4, stride=2, padding=1),
                "conv_t_2": nn.ConvTranspose2d(shape.width // 2, 3, 4, stride=2, padding=1),
            }
        )

    def forward(self, codes: Tensor) -> Tensor:
        layers = self._blocks
        y = layers["residual"](layers["conv_1"](codes))
        return cast(Tensor, layers["conv_t_2"](functional.relu(layers["conv_t_1"](y))))


class VQVAENet(PictureNet):
    """Pictures in [-0.5, 0.5], float `(n, 3, H, W)`, to ids `(n, H/4, W/4)` and back."""

    mean, std = 0.5, 1.0

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = _Encoder(shape)
        self.pre_vq_conv = nn.Conv2d(shape.width, shape.length, 1)
        self.vq_vae = nn.ModuleDict({"codebook": nn.Embedding(shape.codes, shape.length)})
        self.decoder = _Decoder(shape)

    @property
    def codebook(self) -> Tensor:
        """fp32 `(codes, length)`."""
        return cast(Tensor, self.vq_vae["codebook"].weight).float()

    def facts(self, size: int | None) -> dict[str, Any]:
        side = size or 256
        return {
            "quantiser": "vq",
            "levels": [],
            "index_order": "index of the nearest code (Euclidean, ties to the lowest); cells in row-major order",
            "vocabulary": self.shape.codes,
            "grid": grid_of("vqvae", side, STRIDE),
            "input_size": side,
            "preprocessing": {
                "resize": "short_side",
                "resample": "lanczos",
                "crop": "centre",
                "mean": [self.mean] * 3,
                "std": [self.std] * 3,
            },
            "padding": "none; sides are multiples of 4",
            "valid_length": "the whole grid",
        }

    def ids(self, x: Tensor) -> Tensor:
        z = self.pre_vq_conv(self.encoder(x)).float()
        flat = z.permute(0, 2, 3, 1).reshape(-1, self.shape.length)
        return nearest(flat, self.codebook, "euclid").view(len(z), *z.shape[2:])

    def pictures(self, ids: Tensor) -> Tensor:
        return cast(Tensor, self.decoder(self.codebook[ids].permute(0, 3, 1, 2)))


class VQVAE(PictureTokenizer):
    """Sizes are read from the tensors; a picture may have any side that 4 divides."""

    architecture = "vqvae"
    patterns = ("vqvae*.safetensors", "*.safetensors", "*.pt", "*.pth", "*.ckpt", "*.bin")
    licence = "as its publisher states (explore-weights: MIT)"

    @classmethod
    def shape_of(cls, state: Mapping[str, Tensor], path: Path) -> dict[str, Any]:
        codes, length = tensor(state, "vq_vae.codebook.weight", path).shape
        blocks = "encoder._blocks.residual.residual_blocks.residual_"
        return asdict(
            Shape(
                codes,
                length,
                tensor(state, "encoder._blocks.conv_2.weight", path).shape[0],
                tensor(state, f"{blocks}0._block.conv_1.weight", path).shape[0],
                count(state, blocks),
            )
        )

    @classmethod
    def net_of(cls, shape: dict[str, Any]) -> PictureNet:
        return VQVAENet(Shape(**shape))
