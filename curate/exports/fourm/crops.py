"""How places in an image become places in a crop of it (`curate.media.crops`)."""

from __future__ import annotations

from collections.abc import Sequence

Bounds = tuple[float, float, float, float]
"""x0, y0, x1, y1 in [0, 1] of the width and the height."""


def bounds_in_crop(bounds: Bounds, width: int, height: int, crop: Sequence[int]) -> Bounds | None:
    """A box of the image in the frame of a crop, cut at its edges and mirrored if the crop is; None: no area is left.

    Args:
        bounds: in [0, 1] of the image.
        crop: a row of `crop_settings`.
    """
    top, left, h, w, flip = (int(value) for value in crop)
    x0, x1 = (min(max((x * width - left) / w, 0.0), 1.0) for x in (bounds[0], bounds[2]))
    y0, y1 = (min(max((y * height - top) / h, 0.0), 1.0) for y in (bounds[1], bounds[3]))
    if x0 >= x1 or y0 >= y1:
        return None
    return (1 - x1, y0, 1 - x0, y1) if flip else (x0, y0, x1, y1)
