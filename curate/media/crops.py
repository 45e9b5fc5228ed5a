"""Which crops of an image are tokenized.

4M stores the crops of a sample as `crop_settings`, rows of top, left, height, width, flip in pixels of the original,
and makes the file when a stream is first tokenised: two streams begun side by side can disagree. Here a row is a
function of the sample's id and the row's number, so every stream finds the same crops with nothing to share.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from curate.schema.ids import key_of, unit_interval

_TRIES = 10


def crop_settings(
    sample_id: str,
    width: int,
    height: int,
    n_crops: int,
    min_scale: float = 0.8,
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> NDArray[np.int64]:
    """The crops of a sample: int64 `(n_crops, 5)`, rows of top, left, height, width, flip (0 or 1).

    Row 0 is the largest centred square, not flipped. The others are random resized crops (Szegedy et al. 2014,
    section 6, as torchvision's `RandomResizedCrop` draws them: an area uniform in [min_scale, 1] of the image, a
    shape width / height log-uniform in `ratio`, a place uniform among those inside; after ten that do not fit, the
    largest centred crop whose shape is in `ratio`), flipped with probability one half. Row i is the same whatever
    `n_crops` is.

    Raises:
        ValueError: a side or `n_crops` is below 1, or `min_scale` or `ratio` is not in range.
    """
    if min(width, height, n_crops) < 1:
        raise ValueError(f"{n_crops} crops of {width} x {height} pixels: each must be at least 1")
    if not (0 < min_scale <= 1 and 0 < ratio[0] <= ratio[1]):
        raise ValueError(f"min_scale {min_scale} must be in (0, 1], and ratio {ratio} from low to high above 0")
    side = min(width, height)
    rows = [((height - side) // 2, (width - side) // 2, side, side, 0)]
    rows += [_random_row(sample_id, row, width, height, min_scale, ratio) for row in range(1, n_crops)]
    return np.array(rows, np.int64)


def _random_row(
    sample_id: str, row: int, width: int, height: int, min_scale: float, ratio: tuple[float, float]
) -> tuple[int, int, int, int, int]:
    def drawn(what: str, attempt: int = 0) -> float:
        return unit_interval(0, key_of(["crop", sample_id, row, what, attempt]))

    flip = int(drawn("flip") < 0.5)
    for attempt in range(_TRIES):
        area = width * height * (min_scale + (1 - min_scale) * drawn("area", attempt))
        shape = ratio[0] * (ratio[1] / ratio[0]) ** drawn("shape", attempt)
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top = int(drawn("top", attempt) * (height - h + 1))
            left = int(drawn("left", attempt) * (width - w + 1))
            return top, left, h, w, flip
    w = min(width, max(round(height * ratio[1]), 1))
    h = min(height, max(round(width / ratio[0]), 1))
    return (height - h) // 2, (width - w) // 2, h, w, flip
