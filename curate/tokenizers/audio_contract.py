"""What every audio tokenizer asks of the sounds and ids that it is given, said in one voice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

PEAK = 2.0  # lossy decoders and resamplers overshoot 1.0; what lies beyond this is not scaled to [-1, 1] at all


def check_sound(item: Any) -> None:
    """Raises ValueError for a sound that is not float32 `(n,)`, n > 0, finite and scaled to [-1, 1].

    Sounds come without their rate, which therefore cannot be checked here: the view of the media resamples to the
    card's `sample_rate` (`curate.tokenizers.views.view_of`).
    """
    if not isinstance(item, np.ndarray) or item.dtype != np.float32 or item.ndim != 1:
        raise ValueError("a sound must be a float32 array (samples,)")
    if not len(item):
        raise ValueError("a sound must have at least one sample")
    if not np.isfinite(item).all():
        raise ValueError("a sound must be finite: it has NaN or infinity")
    if float(np.abs(item).max()) > PEAK:
        raise ValueError(f"a sound must be scaled to [-1, 1]: its peak is {float(np.abs(item).max()):g}")


def check_ids(item: Any, levels: int, codes: int) -> None:
    """Raises ValueError for ids that are not integers `(frames, 1 to levels)` with 0 <= id < codes."""
    if not isinstance(item, np.ndarray) or item.ndim != 2 or item.dtype.kind not in "ui":
        raise ValueError("ids must be an integer array (frames, levels)")
    if not len(item) or not 1 <= item.shape[1] <= levels:
        raise ValueError(f"ids of shape {item.shape}: at least one frame, and 1 to {levels} levels")
    if int(item.max()) >= codes or int(item.min()) < 0:
        raise ValueError(f"ids must be 0 to {codes - 1}")


def wanted_lengths(ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None, hop: int) -> list[int]:
    """Samples that each item decodes to; without `lengths` the padding of the last frame stays.

    Args:
        hop: samples of a token frame.

    Raises:
        ValueError: another number of lengths than of items, or a length that its frames cannot be.
    """
    wanted = [len(item) * hop for item in ids] if lengths is None else list(lengths)
    if len(wanted) != len(ids):
        raise ValueError(f"{len(ids)} items of ids but {len(wanted)} lengths")
    for item, length in zip(ids, wanted, strict=True):
        if -(-length // hop) != len(item):
            raise ValueError(f"{len(item)} frames cannot be {length} samples")
    return wanted
