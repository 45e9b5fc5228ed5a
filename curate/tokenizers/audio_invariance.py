"""How far the ids of a sound depend on what lies around it: other items of a batch, and the rest of the sound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from curate.tokenizers.base import Tokenizer


def batch_invariance(tokenizer: Tokenizer, items: Sequence[NDArray[np.float32]]) -> float:
    """Share of ids that differ between each item alone and batches of 16."""
    differ = total = 0
    for start in range(0, len(items), 16):
        batch = items[start : start + 16]
        for together, item in zip(tokenizer.encode(batch), batch, strict=True):
            differ += int((together != tokenizer.encode([item])[0]).sum())
            total += together.size
    return differ / total


def chunk_difference(tokenizer: Tokenizer, sound: NDArray[np.float32], samples: int) -> float:
    """Share of ids, in [0, 1], that differ when a sound is encoded in parts instead of whole.

    Args:
        sound: float32 `(n,)` at the card's rate.
        samples: of a part; a multiple of the samples of a token frame, so that parts hold the same frames.

    Raises:
        ValueError: the parts do not give as many frames as the whole.
    """
    (whole,) = tokenizer.encode([sound])
    parts = np.concatenate(tokenizer.encode([sound[i : i + samples] for i in range(0, len(sound), samples)]))
    if parts.shape != whole.shape:
        raise ValueError(f"parts of {samples} samples give {len(parts)} frames, the whole {len(whole)}")
    return float(np.mean(parts != whole))


def probe_sounds(rate: int, seconds: float = 4.0, count: int = 4) -> list[NDArray[np.float32]]:
    """Sounds on which invariance is measured where no media are at hand, float32 `(n,)`, peak 0.5, always the same.

    Eleven harmonics under a gliding pitch of 80 to 240 Hz, noise bursts four times a second, no two of one length.
    """
    out = []
    for which in range(count):
        t = np.arange(round(rate * seconds * (1 - 0.1 * which))) / rate
        pitch = 160 + 80 * np.sin(2 * np.pi * (0.7 + 0.2 * which) * t + which)
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        tone = sum(np.sin(k * phase) / k for k in range(1, 12))
        noise = np.random.default_rng(which).standard_normal(len(t)) * np.exp(-20 * (t % 0.25))
        sound = tone + 0.5 * noise
        out.append((0.5 * sound / np.abs(sound).max()).astype(np.float32))
    return out
