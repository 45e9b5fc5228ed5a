"""The part of the audio tokenizer's loss that listens to spectra."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def relative_error(estimate: Tensor, reference: Tensor, floor: float) -> Tensor:
    """Mean over crops of ln(error / energy), of coefficients `(B, T, hop)`; `floor` is a mean square."""
    least = floor * reference[0].numel()
    error = (estimate - reference).square().sum((1, 2)) + least
    return torch.log(error / (reference.square().sum((1, 2)) + least)).mean()


def emphasis(hop: int, rate: int) -> Tensor:
    """Weights `(hop,)` of coefficients that rise by 6 dB an octave from 300 Hz to 4 kHz.

    Speech falls by as much, so all of the range that carries its words weighs alike.
    """
    hz = (torch.arange(hop) + 0.5) * rate / (2 * hop)
    return torch.sqrt(1 + (hz.clamp_max(4000.0) / 300.0).square())


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
