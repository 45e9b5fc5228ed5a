"""How much of a sound survives its round trip through an audio tokenizer."""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.signal import resample_poly

from curate.schema.codec import Quality
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer

log = logging.getLogger(__name__)


def si_sdr(reference: NDArray[np.floating], estimate: NDArray[np.floating]) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019, "SDR - half-baked or well done?").

    Args:
        reference, estimate: sounds `(n,)` of one length, not silent.

    Returns:
        `10 log10(|a s|^2 / |a s - e|^2)` with `a` the best scale of the reference `s`; infinity for a perfect
        estimate, minus infinity for one that has nothing of the reference.

    Raises:
        ValueError: shapes differ, or the reference is silent.
    """
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"two sounds of one length are needed, not {reference.shape} and {estimate.shape}")
    s, e = reference.astype(np.float64), estimate.astype(np.float64)
    energy = float(s @ s)
    if energy <= 0.0:
        raise ValueError("SI-SDR of a silent reference is not defined")
    target = (float(s @ e) / energy) * s
    noise = target - e
    kept, lost = float(target @ target), float(noise @ noise)
    if lost == 0.0:
        return math.inf if kept > 0.0 else -math.inf
    return 10.0 * math.log10(kept / lost) if kept > 0.0 else -math.inf


def wideband_pesq(reference: NDArray[np.float32], estimate: NDArray[np.float32]) -> float:
    """Wide-band PESQ (ITU-T P.862.2, MOS-LQO, 1 to 4.64) of speech at 16 kHz, by the package `pesq`.

    Args:
        reference, estimate: sounds `(n,)` in [-1, 1] of one length, at least a quarter of a second.

    Raises:
        CurateError: the package is not installed.
        ValueError: shapes differ, or it finds no speech in the reference.
    """
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"two sounds of one length are needed, not {reference.shape} and {estimate.shape}")
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
    """ViSQOL v3 (Chinen et al. 2020, MOS-LQO, 1 to 5) of a sound at 16 kHz, by the package `visqol-python`.

    Args:
        reference, estimate: sounds `(n,)` in [-1, 1] of one length, at least a second; the first 20 seconds are judged,
            which takes half a minute.
        speech: by its model of speech at 16 kHz; otherwise by that of all sound, with both resampled to 48.

    Raises:
        CurateError: the package is not installed.
        ValueError: shapes differ, or the sound is too short.
    """
    if reference.shape != estimate.shape or reference.ndim != 1:
        raise ValueError(f"two sounds of one length are needed, not {reference.shape} and {estimate.shape}")
    if len(reference) < 16000:
        raise ValueError(f"ViSQOL needs a second of sound, not {len(reference) / 16000:.2f} s")
    try:
        package = importlib.import_module("visqol")
    except ImportError as error:
        raise CurateError("ViSQOL needs the package `visqol-python`", "pip install 'curate-tokens[quality]'") from error
    pair = [x[: 20 * 16000].astype(np.float64) for x in (reference, estimate)]
    if not speech:
        pair = [resample_poly(x, 3, 1) for x in pair]
    judge = package.VisqolApi()
    judge.create(mode="speech" if speech else "audio")
    return float(judge.measure_from_arrays(*pair, 16000 if speech else 48000).moslqo)


def round_trip(tokenizer: Tokenizer, items: Sequence[NDArray[np.float32]], levels: int | None = None) -> list[float]:
    """SI-SDR in dB of each sound after encode and decode, with the first `levels` ids of a frame or with all."""
    ids = [x[:, :levels] for x in tokenizer.encode(items)]
    back = tokenizer.decode(ids, [len(x) for x in items])
    return [si_sdr(x, y) for x, y in zip(items, back, strict=True)]


def evaluate_audio(
    tokenizer: Tokenizer,
    items: Sequence[NDArray[np.float32]],
    media: str = "given sounds",
    speech: bool | None = None,
) -> Quality:
    """The measured round trip of sounds `(n,)` float32 at the card's rate.

    Args:
        media: what the sounds are, for the card.
        speech: whether they are speech, for PESQ and ViSQOL; None measures neither.

    Returns:
        Mean SI-SDR over sounds, and the share of all codes of all levels that occur (short media cannot use all). Mean
        PESQ and ViSQOL over the sounds that are long enough, where their packages are installed.
    """
    ids = tokenizer.encode(items)
    back = tokenizer.decode(ids, [len(x) for x in items])
    mean = float(np.mean([si_sdr(x, y) for x, y in zip(items, back, strict=True)]))
    levels = tokenizer.card.ids_per_frame
    together = np.concatenate(ids)
    used = sum(len(np.unique(together[:, level])) for level in range(levels))
    return Quality(
        media=media,
        items=len(items),
        psnr_db=None,
        ssim=None,
        si_sdr_db=round(mean, 2),
        pesq=_mean(wideband_pesq, items, back) if speech else None,
        visqol=None if speech is None else _mean(lambda x, y: visqol(x, y, speech), items, back),
        codebook_usage=round(used / (levels * tokenizer.card.vocabulary), 4),
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
