"""How much of audio survives its round trip through a tokenizer."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import Quality
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.measures.usage import CodebookUsage

log = logging.getLogger(__name__)


def si_sdr(reference: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, arXiv 1811.02508, equation 4).

    As torchmetrics gives it, also for a perfect estimate; a test compares them. It is not called, for that imports
    torchvision and transformers: three seconds at the end of every run with audio.

    Args:
        reference, estimate: audio `(n,)` of one length, not silent.

    Returns:
        At most some 150 dB, for a perfect estimate; minus infinity for a silent one.

    Raises:
        ValueError: shapes differ, or the reference is silent.
    """
    _check_pair(reference, estimate)
    if not reference.any():
        raise ValueError("SI-SDR of a silent reference is not defined")
    if not estimate.any():  # which torchmetrics gives 0 dB
        return -math.inf
    target, found = reference.astype(np.float64), estimate.astype(np.float64)
    least = np.finfo(np.float64).eps
    scaled = (found @ target + least) / (target @ target + least) * target
    noise = scaled - found
    return 10 * math.log10((scaled @ scaled + least) / (noise @ noise + least))


def wideband_pesq(reference: NDArray[np.float32], estimate: NDArray[np.float32]) -> float:
    """Wide-band PESQ (ITU-T P.862.2, MOS-LQO, 1 to 4.64) of speech at 16 kHz, by the package `pesq`.

    Args:
        reference, estimate: audio `(n,)` in [-1, 1] of one length, at least a quarter of a second.

    Raises:
        CurateError: the package is not installed.
        ValueError: shapes differ, or it finds no speech in the reference.
    """
    _check_pair(reference, estimate)
    try:
        package = importlib.import_module("pesq")
    except ImportError as error:
        raise CurateError(
            "PESQ needs the package `pesq`", "pip install 'curate-tokens[quality]'; it is compiled while it installs"
        ) from error
    try:
        return float(package.pesq(16000, reference, estimate, "wb"))
    except package.PesqError as error:
        raise ValueError(f"PESQ cannot be computed: {error}") from error


def visqol(reference: NDArray[np.float32], estimate: NDArray[np.float32], speech: bool) -> float:
    """ViSQOL v3 (Chinen et al. 2020, MOS-LQO, 1 to 5) of audio at 16 kHz, by the package `visqol-python`.

    Args:
        reference, estimate: audio `(n,)` in [-1, 1] of one length, at least a second; the first 20 seconds are judged,
            which takes half a minute.
        speech: by its model of speech at 16 kHz; otherwise by that of all audio, with both resampled to 48.

    Raises:
        CurateError: the package is not installed.
        ValueError: shapes differ, or the audio is too short.
    """
    _check_pair(reference, estimate)
    if len(reference) < 16000:
        raise ValueError(f"ViSQOL needs a second of audio, not {len(reference) / 16000:.2f} s")
    try:
        package = importlib.import_module("visqol")
    except ImportError as error:
        raise CurateError("ViSQOL needs the package `visqol-python`", "pip install 'curate-tokens[quality]'") from error
    pair = [x[: 20 * 16000].astype(np.float64) for x in (reference, estimate)]
    if not speech:
        from scipy.signal import resample_poly  # a second

        pair = [resample_poly(x, 3, 1) for x in pair]
    judge = package.VisqolApi()
    judge.create(mode="speech" if speech else "audio")
    return float(judge.measure_from_arrays(*pair, 16000 if speech else 48000).moslqo)


def evaluate_audio(
    tokenizer: Tokenizer,
    items: Sequence[NDArray[np.float32]],
    media: str = "given audio",
    speech: bool | None = None,
) -> Quality:
    """The measured round trip of audio `(n,)` float32 at the card's rate.

    Args:
        media: what it is, for the card.
        speech: True if it is speech, for PESQ and ViSQOL; None measures neither.

    Returns:
        Mean SI-SDR over items, and the share of all codes of all levels that occur (short media cannot use all). Mean
        PESQ and ViSQOL over the items that are long enough, where their packages are installed.
    """
    ids = tokenizer.encode(items)
    back = tokenizer.decode(ids, [len(x) for x in items])
    mean = float(np.mean([si_sdr(x, y) for x, y in zip(items, back, strict=True)]))
    usage = CodebookUsage(tokenizer.card.vocabulary, tokenizer.card.ids_per_frame)
    for item in ids:
        usage.add(item)
    return Quality(
        media=media,
        items=len(items),
        psnr_db=None,
        ssim=None,
        si_sdr_db=round(mean, 2),
        pesq=_mean(wideband_pesq, items, back) if speech else None,
        visqol=None if speech is None else _mean(lambda x, y: visqol(x, y, speech), items, back),
        codebook_usage=round(usage.share, 4),
        lossless=None,
    )


def _mean(
    measure: Callable[[NDArray[np.float32], NDArray[np.float32]], float],
    items: Sequence[NDArray[np.float32]],
    back: Sequence[NDArray[np.float32]],
) -> float | None:
    """Over the pairs for which it is defined; None where there are none, or its package is not installed."""
    found = []
    for x, y in zip(items, back, strict=True):
        try:
            found.append(measure(x, y))
        except ValueError as error:
            log.info("left out: %s", error)
        except CurateError as error:
            log.warning("not measured: %s", error)
            return None
    return round(float(np.mean(found)), 2) if found else None


def _check_pair(reference: NDArray[np.floating], estimate: NDArray[np.floating]) -> None:
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"two arrays (n,) of one length are needed, not {reference.shape} and {estimate.shape}")
