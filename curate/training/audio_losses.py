"""The part of the audio tokenizer's loss that listens to spectra."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def spectral_loss(estimate: Tensor, reference: Tensor) -> Tensor:
    """Mean absolute difference of log band spectra at two resolutions, in natural log units, of samples `(B, n)`.

    Waveform error alone gives muffled sound: what cannot be matched in phase is better absent. This asks for the
    right amount of energy in each band instead. Bands 45 dB below the crop's mean band count as silent, so that the
    measure is the same for quiet and for loud sounds.
    """
    total = reference.new_zeros(())
    for size, bands in ((1024, 64), (256, 32)):
        window = torch.hann_window(size, device=reference.device)
        matrix = _mel_matrix(size, bands).to(reference.device)
        powers = []
        for x in (estimate, reference):
            spectrum = torch.stft(x, size, size // 2, window=window, return_complex=True)
            powers.append(torch.matmul(matrix, spectrum.real.square() + spectrum.imag.square()) / size)
        floor = 3e-5 * powers[1].mean((1, 2), keepdim=True) + 1e-9
        total = total + 0.5 * (torch.log(powers[0] + floor) - torch.log(powers[1] + floor)).abs().mean()
    return total / 2


def envelope_error(
    estimate: Tensor, level: Tensor, reference: Tensor, floor: float, rate: int = 16000, bands: int = 32
) -> Tensor:
    """Mean absolute difference of log band levels, in natural log units of amplitude, of coefficients `(B, T, hop)`.

    What comes out has the power `estimate**2 + level**2` whatever the noise is, so this needs no drawing of noise, and
    asks for the level of each band of each moment: what is heard where the waveform is not kept. `bands` are of equal
    width in Bark, over three frames. Bands 40 dB below the crop's mean band count as silent.
    """
    inside = bark_bands(reference.shape[-1], rate, bands).to(reference)
    powers = []
    for power in (estimate.square() + level.square(), reference.square()):
        banded = (power @ inside / inside.sum(0)).transpose(1, 2)
        powers.append(F.avg_pool1d(banded, 3, 1, 1, count_include_pad=False))
    least = 1e-4 * powers[1].mean((1, 2), keepdim=True) + floor
    return 0.5 * (torch.log(powers[0] + least) - torch.log(powers[1] + least)).abs().mean()


def relative_error(estimate: Tensor, reference: Tensor, floor: float) -> Tensor:
    """Mean over crops of ln(error / energy), of coefficients `(B, T, hop)`; `floor` is a mean square."""
    least = floor * reference[0].numel()
    error = (estimate - reference).square().sum((1, 2)) + least
    return torch.log(error / (reference.square().sum((1, 2)) + least)).mean()


def weighted_error(
    estimate: Tensor, reference: Tensor, floor: float, gamma: float, rate: int = 16000, bands: int = 21
) -> Tensor:
    """Like `relative_error`, of errors divided by the reference's own power nearby, to the power of `gamma`.

    Error is heard less where the sound is strong at that time and pitch (Schroeder, Atal and Hall 1979, "Optimizing
    digital speech coders by exploiting masking properties of the human ear"). At 0 this is the plain error; at 1 each
    band of each moment weighs alike, however faint. Power is that of `bands` bands of equal width in Bark, over three
    frames.

    Args:
        estimate, reference: coefficients `(B, T, hop)`.
        floor: a mean square, below which an error is not worth bits.
    """
    inside = bark_bands(reference.shape[-1], rate, bands).to(reference)
    power = F.avg_pool1d(
        (reference.square() @ inside / inside.sum(0)).transpose(1, 2), 3, 1, 1, count_include_pad=False
    )
    least = 1e-4 * power.mean((1, 2), keepdim=True) + floor
    weight = (power + least).pow(-gamma).transpose(1, 2) @ inside.T
    silent = floor * weight.sum((1, 2))
    error = ((estimate - reference).square() * weight).sum((1, 2)) + silent
    return torch.log(error / ((reference.square() * weight).sum((1, 2)) + silent)).mean()


def bark_bands(hop: int, rate: int, bands: int) -> Tensor:
    """Which coefficient is in which band, 0 or 1, `(hop, bands)`; bands without a coefficient are left out.

    The scale is 6 asinh(f / 600) of Wang, Sekey and Gersho 1992.
    """
    hz = (torch.arange(hop) + 0.5) * rate / (2 * hop)
    bark = torch.asinh(hz / 600.0)
    which = (bark / math.asinh(rate / 1200.0) * bands).long().clamp_max(bands - 1)
    inside = F.one_hot(which, bands).float()
    return inside[:, inside.sum(0) > 0]


def _mel_matrix(size: int, bands: int, rate: int = 16000) -> Tensor:
    """Triangular filters `(bands, size / 2 + 1)` on the mel scale of O'Shaughnessy 1987 (2595 log10(1 + f / 700))."""
    top = 2595 * math.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (torch.linspace(0, top, bands + 2) / 2595) - 1)
    # a filter narrower than two bins would see nothing
    low, mid, high = (e[:, None] for e in (edges[:-2], edges[1:-1], edges[2:]))
    step = rate / size
    low, high = torch.minimum(low, mid - step), torch.maximum(high, mid + step)
    hz = torch.arange(size // 2 + 1)[None] * step
    return torch.minimum((hz - low) / (mid - low), (high - hz) / (high - mid)).clamp_min(0)
