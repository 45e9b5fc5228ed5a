"""How places in a picture become places in a crop of it (`curate.media.crops`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Bounds = tuple[float, float, float, float]
"""x0, y0, x1, y1 in [0, 1] of the width and the height."""


def bounds_in_crop(bounds: Bounds, width: int, height: int, crop: Sequence[int]) -> Bounds | None:
    """A box of the picture in the frame of a crop, cut at its edges and mirrored if the crop is; None: no area is left.

    Args:
        bounds: in [0, 1] of the picture.
        crop: a row of `crop_settings`.
    """
    top, left, h, w, flip = (int(value) for value in crop)
    x0, x1 = (min(max((x * width - left) / w, 0.0), 1.0) for x in (bounds[0], bounds[2]))
    y0, y1 = (min(max((y * height - top) / h, 0.0), 1.0) for y in (bounds[1], bounds[3]))
    if x0 >= x1 or y0 >= y1:
        return None
    return (1 - x1, y0, 1 - x0, y1) if flip else (x0, y0, x1, y1)


def points_in_crop(points: NDArray[np.floating], crop: Sequence[int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Points of the picture in the frame of a crop, mirrored if the crop is.

    Args:
        points: `(n, 2)`, x and y in pixels of the original; pixel i covers i to i + 1.
        crop: a row of `crop_settings`.

    Returns:
        float64 `(n, 2)`, x and y in [0, 1] of the crop for points inside it, and bool `(n,)`: whether they are.
    """
    top, left, h, w, flip = (int(value) for value in crop)
    found = (np.asarray(points, np.float64) - (left, top)) / (w, h)
    if flip:
        found[:, 0] = 1 - found[:, 0]
    inside: NDArray[np.bool_] = np.all((found >= 0) & (found <= 1), axis=1)
    return found, inside
