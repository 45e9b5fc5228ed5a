"""How disturbed speech sounds, as a loss: the model of hearing of PESQ (ITU-T P.862, 2001), differentiable.

Both sounds become loudness in Bark bands every 16 ms; what differs beyond what is masked is the disturbance, and what
was added counts more than what is missing (section 10.2 of the recommendation). Martín-Doñas et al. 2018, "A deep
learning loss function based on the perceptual evaluation of the speech quality", showed that such a loss trains speech
enhancement. Here bands follow the Bark scale of Wang, Sekey and Gersho 1992 and the threshold of hearing is Terhardt's
(1979), in place of the recommendation's tables, and nothing is aligned in time, for a codec moves nothing.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

SIZE = 512  # 32 ms at 16 kHz
BANDS = 48
SHORTEST = 20 * SIZE // 2  # samples: the fewest that fill one of the pieces of `_over_time`
# Above the 79 dB of section 10.2.1, because the recommendation's threshold lies lower than Terhardt's: of 79 to 100 in
# steps of 5 this order of degraded sounds agrees with the package `pesq` the better the higher, and little beyond 95.
LEVEL_DB = 95.0


def disturbance(estimate: Tensor, reference: Tensor, rate: int = 16000) -> Tensor:
    """What PESQ takes from its best score of 4.5, about, of each sound, `(B,)`; 0 for equal sounds, unit MOS.

    Args:
        estimate, reference: sounds `(B, n)`, n at least `SHORTEST`, at `rate` Hz.
    """
    inside, threshold, exponent, width = (x.to(reference) for x in _tables(rate))
    heard = [_powers(x, inside, rate) for x in (reference, estimate)]
    # A filter's colour and slow changes of level disturb little: the reference is coloured like the estimate, and the
    # estimate is given the reference's level, both within limits.
    audible = [torch.where(x > 1e2 * threshold, x, 0.0) for x in heard]
    colour = ((audible[1].mean(1) + 1e3) / (audible[0].mean(1) + 1e3)).clamp(1e-2, 1e2)
    ref = heard[0] * colour[:, None]
    total = [torch.where(x > threshold, x, 0.0).sum(-1) + 5e3 for x in (ref, heard[1])]
    gain = total[0] / total[1]
    gain = torch.cat([gain[:, :1], 0.8 * gain[:, 1:] + 0.2 * gain[:, :-1]], 1).clamp(3e-4, 5.0)
    est = heard[1] * gain[..., None]
    loud = [_loudness(x, threshold, exponent) for x in (ref, est)]
    difference = loud[1] - loud[0]
    beyond = F.relu(difference.abs() - 0.25 * torch.minimum(loud[0], loud[1]))  # the rest is masked
    added = ((est + 50) / (ref + 50)).pow(1.2)
    added = torch.where(added < 3, 0.0, added.clamp_max(12.0))
    quiet = ((torch.where(ref > threshold, ref, 0.0).sum(-1) + 1e5) / 1e7).pow(0.04)
    symmetric = ((beyond * width).square().sum(-1) * width.sum() + 1e-12).sqrt() / quiet
    asymmetric = (beyond * added * width).sum(-1) / quiet
    return 0.1 * _over_time(symmetric.clamp_max(45.0)) + 0.0309 * _over_time(asymmetric.clamp_max(45.0))


def _powers(x: Tensor, inside: Tensor, rate: int) -> Tensor:
    """Power in each band, `(B, frames, bands)`; the mean power of 325 to 3250 Hz is that of `LEVEL_DB`."""
    window = torch.hann_window(SIZE, device=x.device)
    spectrum = torch.stft(x, SIZE, SIZE // 2, window=window, return_complex=True)
    power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
    hz = torch.arange(SIZE // 2 + 1, device=x.device) * rate / SIZE
    telephone = power[..., (hz >= 325) & (hz <= 3250)].sum(-1).mean(-1)
    return power @ inside * (10 ** (LEVEL_DB / 10) / (telephone + 1e-9))[:, None, None]


def _loudness(power: Tensor, threshold: Tensor, exponent: Tensor) -> Tensor:
    """Zwicker's law (P.862, section 10.2.6), in sone: 1 for 40 dB at 1 kHz."""
    above = (0.5 + 0.5 * power / threshold).pow(exponent) - 1
    return 0.144 * (threshold / 0.5).pow(exponent) * F.relu(above)


def _over_time(frames: Tensor) -> Tensor:
    """L6 over 20 frames, 320 ms, which overlap by half, and L2 over these (section 10.2.9): the worst moments weigh."""
    pieces = frames.unfold(1, 20, 10)
    syllables = (pieces + 1e-6).pow(6).mean(-1).pow(1 / 6)
    return (syllables.square().mean(-1) + 1e-12).sqrt()


@lru_cache(maxsize=4)
def _tables(rate: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Bins of a band `(bins, bands)`, threshold of hearing as a power, exponent of loudness, and width in Bark."""
    hz = torch.arange(SIZE // 2 + 1, dtype=torch.float64) * rate / SIZE
    top = 6 * math.asinh(rate / 1200)
    which = (6 * torch.asinh(hz / 600) / top * BANDS).long().clamp_max(BANDS - 1)
    inside = F.one_hot(which, BANDS).double()
    inside[hz < 60] = 0  # not heard through a telephone
    inside = inside[:, inside.sum(0) > 0]
    middle = (inside * hz[:, None]).sum(0) / inside.sum(0) / 1000
    decibel = 3.64 * middle.pow(-0.8) - 6.5 * torch.exp(-0.6 * (middle - 3.3).square()) + 1e-3 * middle.pow(4)
    bark = 6 * torch.asinh(middle / 0.6)
    # Zwicker's power rises towards low frequencies (section 10.2.6)
    exponent = 0.23 * torch.where(bark < 4, 6 / (bark + 2), 1.0).clamp(1.0, 2.0).pow(0.15)
    edges = torch.cat([bark[:1] * 0, (bark[1:] + bark[:-1]) / 2, torch.tensor([top], dtype=torch.float64)])
    return tuple(x.float() for x in (inside, 10 ** (decibel.clamp_max(70) / 10), exponent, edges.diff()))  # type: ignore[return-value]
