"""What the audio tokenizer's training listens to."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from curate.tokenizers.codecs.audio_rvq import imdct, mdct
from curate.tokenizers.measures.audio import visqol, wideband_pesq
from curate.training.audio_losses import bark_bands, envelope_error, relative_error, weighted_error
from curate.training.audio_media import decode_audio
from curate.training.pesq_loss import disturbance

FLOOR = 3e-7
HOP = 320


def _sentence() -> Tensor:
    """google/lyra's sample1, 3.4 s of speech, `(n,)` at 16 kHz."""
    shared = Path(__file__).resolve().parents[3] / "shared" / "weights"
    path = Path(os.environ.get("CURATE_TEST_WEIGHTS", shared)) / "sample1_16kHz.wav"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in CURATE_TEST_WEIGHTS or ../shared/weights")
    return torch.from_numpy(decode_audio(path, 16000))


def test_without_masking_the_weighted_error_is_the_plain_one() -> None:
    torch.manual_seed(0)
    reference = torch.randn(3, 12, HOP) * 0.1
    estimate = reference + 0.02 * torch.randn_like(reference)
    plain = relative_error(estimate, reference, FLOOR)
    assert float(weighted_error(estimate, reference, FLOOR, 0.0)) == pytest.approx(float(plain), abs=1e-5)


def test_the_same_error_weighs_less_where_the_audio_is_loud() -> None:
    """A partial at 250 Hz over faint noise, and an error of one power at the partial or at 4 kHz."""
    torch.manual_seed(0)
    reference = 0.01 * torch.randn(1, 12, HOP)
    reference[..., 10] = 1.0
    low, high = reference.clone(), reference.clone()
    low[..., 10] += 0.05
    high[..., 160] += 0.05
    plain = [float(relative_error(x, reference, FLOOR)) for x in (low, high)]
    heard = [float(weighted_error(x, reference, FLOOR, 1.0)) for x in (low, high)]
    assert plain[0] == pytest.approx(plain[1], abs=1e-3)
    assert heard[1] > heard[0] + 2


def test_every_coefficient_is_in_one_band_and_bands_rise() -> None:
    inside = bark_bands(HOP, 16000, 21)
    assert (inside.sum(1) == 1).all()
    place = inside.argmax(1)
    assert (place.diff() >= 0).all()
    assert inside.sum(0)[0] < inside.sum(0)[-1]  # in Hz bands widen upwards


def test_equal_audio_does_not_disturb_and_audio_s_figure_is_its_own() -> None:
    torch.manual_seed(0)
    reference = 0.1 * torch.randn(3, 16000)
    estimate = reference + 0.03 * torch.randn_like(reference)
    assert float(disturbance(reference, reference).max()) < 1e-4
    together = disturbance(estimate, reference)
    alone = torch.cat([disturbance(e[None], r[None]) for e, r in zip(estimate, reference, strict=True)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_its_gradient_is_finite_also_where_there_is_silence() -> None:
    reference = torch.zeros(2, 16000)
    reference[0, 4000:9000] = 0.1 * torch.sin(torch.arange(5000) * 0.1)
    estimate = (reference * 0.5).requires_grad_()
    disturbance(estimate, reference).sum().backward()  # type: ignore[no-untyped-call]
    assert estimate.grad is not None
    assert estimate.grad.isfinite().all()


def _degraded(audio: Tensor) -> list[Tensor]:
    """Cut above a frequency, noise in proportion to each band, white noise: 16 of them, from hardly to all spoilt."""
    torch.manual_seed(0)
    coefficients = mdct(audio[None], HOP)
    bands = coefficients.square().reshape(1, -1, 20, 16).mean(-1).sqrt().repeat_interleave(16, -1)
    out = []
    for hz in (500, 1000, 2000, 4000):
        cut = coefficients.clone()
        cut[..., hz // 25 :] = 0
        filled = cut.clone()
        filled[..., hz // 25 :] = (torch.randn_like(bands) * bands)[..., hz // 25 :]
        out += [imdct(cut)[0], imdct(filled)[0]]
    for db in (0, 5, 10, 20):
        out.append(imdct(coefficients + 10 ** (-db / 20) * bands * torch.randn_like(bands))[0])
    for db in (10, 20, 30, 40):
        out.append(audio + 10 ** (-db / 20) * audio.std() * torch.randn_like(audio))
    return [x[: len(audio)] for x in out]


def test_it_puts_degraded_speech_in_the_order_of_pesq() -> None:
    pytest.importorskip("pesq", reason="the package pesq is not installed")
    audio = _sentence()
    several = _degraded(audio)
    rated = [wideband_pesq(audio.numpy(), x.numpy().astype(np.float32)) for x in several]
    disturbed = [float(disturbance(x[None], audio[None])[0]) for x in several]
    assert max(rated) - min(rated) > 2
    assert spearmanr(rated, disturbed).statistic < -0.85


def test_visqol_gives_a_perfect_copy_the_best_score_and_noise_a_low_one() -> None:
    pytest.importorskip("visqol", reason="the package visqol-python is not installed")
    audio = _sentence().numpy()
    noisy = (audio + 0.1 * np.random.default_rng(0).standard_normal(len(audio))).astype(np.float32)
    assert visqol(audio, audio, speech=True) > 4.5
    assert visqol(audio, noisy, speech=True) < 2.5
    with pytest.raises(ValueError, match="a second of audio"):
        visqol(audio[:8000], audio[:8000], speech=True)


def test_noise_of_the_right_level_has_no_envelope_error_whatever_it_is() -> None:
    torch.manual_seed(0)
    reference = 0.1 * torch.randn(2, 12, HOP)
    nothing = torch.zeros_like(reference)
    assert float(envelope_error(reference, nothing, reference, FLOOR)) == 0
    assert float(envelope_error(nothing, reference.abs(), reference, FLOOR)) == pytest.approx(0, abs=1e-6)
    half = reference * 0.5**0.5
    assert float(envelope_error(half, half, reference, FLOOR)) == pytest.approx(0, abs=1e-6)


def test_half_the_amplitude_everywhere_is_an_error_of_ln_2_and_silence_is_none() -> None:
    torch.manual_seed(0)
    reference = 0.1 * torch.randn(2, 12, HOP)
    nothing = torch.zeros_like(reference)
    assert float(envelope_error(reference / 2, nothing, reference, FLOOR)) == pytest.approx(math.log(2), abs=1e-3)
    faint = torch.cat([reference[..., :160], 1e-5 * reference[..., 160:]], -1)
    only_low = torch.cat([reference[..., :160], nothing[..., 160:]], -1)
    assert float(envelope_error(only_low, nothing, faint, FLOOR)) == pytest.approx(0, abs=1e-3)
