"""Chords for training: recorded media hold few pure tones, and a codec that never met one cannot send it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LOW, HIGH = 50.0, 0.48
"""Lowest pitch in Hz, and highest as a share of the sampling rate."""


def chord(length: int, rate: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """One to eight sinusoids, float32 `(length,)` with its peak at 1.

    Half of the chords are the partials of one pitch, as of an instrument; in the others each sinusoid has its own.
    Pitches are uniform in log frequency; a third of the chords glide, half begin or decay within the crop.
    """
    top = HIGH * rate
    pitches: NDArray[np.float64] = LOW * (top / LOW) ** rng.random(int(rng.integers(1, 9)))
    loudness: NDArray[np.float64] = 10 ** rng.uniform(-1.5, 0, len(pitches))
    if rng.random() < 0.5:
        partials = np.arange(1.0, len(pitches) + 1)
        pitches, loudness = float(pitches[0]) * partials, partials ** -float(rng.uniform(0, 2))
    glide = rng.normal(0, 0.1) if rng.random() < 1 / 3 else 0.0  # octaves a second
    t = np.arange(length) / rate
    times = t if glide == 0 else np.expm1(np.log(2) * glide * t) / (np.log(2) * glide)
    bent = 2.0 ** (max(glide, 0.0) * t[-1])  # how far a partial rises: what passes the top would alias
    kept = pitches * bent < top
    phases = rng.uniform(0, 2 * np.pi, len(pitches))
    out = np.zeros(length)
    for pitch, level, phase in zip(pitches[kept], loudness[kept], phases[kept], strict=True):
        out += level * np.sin(2 * np.pi * pitch * times + phase)
    if rng.random() < 0.5:
        since = t - rng.uniform(-0.5, 0.7) * t[-1]
        decay = np.exp(-np.maximum(since, 0) / 10 ** rng.uniform(-1.5, 0.5))
        out *= np.clip(since / 0.005, 0, 1) * decay
    return (out / max(float(np.abs(out).max()), 1e-9)).astype(np.float32)
