"""The modified discrete cosine transform, critically sampled and orthonormal.

Princen & Bradley 1986, "Analysis/synthesis filter bank design based on time domain aliasing cancellation", in the
lapped-transform form (Malvar 1990): rotations across each boundary between two blocks, then a DCT-IV of each block.
That equals an MDCT with a sine window of twice the block, and because the outer edges of a signal have no neighbour to
rotate with, a signal of F blocks gives exactly F frames (no extra frame for the lead-in). The whole map is an
orthogonal matrix, so a squared error of coefficients is the same squared error of the waveform.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=8)
def _tables(hop: int) -> tuple[Tensor, Tensor, Tensor]:
    """DCT-IV matrix `(hop, hop)` and the rotation's cosine and sine `(hop / 2,)`, float64 on the CPU."""
    n = torch.arange(hop, dtype=torch.float64) + 0.5
    dct = math.sqrt(2.0 / hop) * torch.cos(math.pi / hop * torch.outer(n, n))
    # distance from the boundary, 0.5 .. hop/2 - 0.5; the sine window at that distance on either side of it
    distance = torch.arange(hop // 2, dtype=torch.float64) + 0.5
    angle = math.pi / (2 * hop) * (hop / 2 + distance)
    return dct, torch.sin(angle), torch.cos(angle)


def _rotate(blocks: Tensor, hop: int, sign: float) -> Tensor:
    """Rotates the half blocks on both sides of every inner boundary; `sign` -1 undoes it."""
    _, near, far = _tables(hop)
    c, s = near.to(blocks), sign * far.to(blocks)
    half = hop // 2
    left = blocks[:, :-1, half:].flip(-1)  # by distance from the boundary
    right = blocks[:, 1:, :half]
    new_left = (c * left - s * right).flip(-1)
    new_right = c * right + s * left
    first = torch.cat([blocks[:, :1, :half], new_right], dim=1)
    second = torch.cat([new_left, blocks[:, -1:, half:]], dim=1)
    return torch.cat([first, second], dim=-1)


def mdct(samples: Tensor, hop: int) -> Tensor:
    """Samples `(B, n)` to coefficients `(B, ceil(n / hop), hop)`, low frequencies first; the end is zero-padded.

    Coefficient k covers the band around `(k + 0.5) * rate / (2 * hop)` Hz. float32 and float64 keep their type.
    """
    if hop < 2 or hop % 2:
        raise ValueError(f"the hop must be even and at least 2, not {hop}")
    frames = -(-samples.shape[-1] // hop)
    padded = torch.nn.functional.pad(samples, (0, frames * hop - samples.shape[-1]))
    blocks = _rotate(padded.reshape(samples.shape[0], frames, hop), hop, 1.0)
    return blocks @ _tables(hop)[0].to(blocks)


def imdct(coefficients: Tensor) -> Tensor:
    """Coefficients `(B, F, hop)` back to samples `(B, F * hop)`: the transpose of `mdct`, which is its inverse."""
    batch, frames, hop = coefficients.shape
    blocks = coefficients @ _tables(hop)[0].to(coefficients)  # a DCT-IV is its own inverse
    return _rotate(blocks, hop, -1.0).reshape(batch, frames * hop)
