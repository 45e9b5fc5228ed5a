"""The main colours of an image: k-means started from a median cut, so that nothing is drawn by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from curate.schema.ids import digest
from curate.signals.base import Batch
from curate.signals.labels import LabelOptions, LabelSignal, label_field, middle, number

MOST = 7
SIDE = 64
ROUNDS = 30


class PaletteOptions(LabelOptions):
    """Options of `palette`.

    Attributes:
        colours: how many; None: 1 to 7, drawn from the digest of the frame's bytes as 4M draws it by chance.
    """

    colours: int | None = Field(MOST, ge=1, le=MOST)


class Palette(LabelSignal):
    """One to seven colours of the whole image, by share of its area.

    The image is reduced to at most 64 pixels a side (mean of the pixels covered). Median cut (Heckbert, SIGGRAPH 1982:
    the box of the widest channel is halved at its median) gives the first centres, Lloyd's k-means on sRGB values the
    last ones. An image of fewer distinct colours gets those.
    """

    name = "palette"
    kind = "palette"
    whole = True
    gives = (
        label_field("palette", "palette", "Main colours of the middle frame, sRGB, the most frequent first."),
        number("palette_colours", "count", MOST, "How many main colours there are."),
    )
    Options = PaletteOptions
    options: PaletteOptions

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        frame = middle(frames)
        count = self.options.colours or 1 + int(digest(frame.tobytes())[:8], 16) % MOST
        colours = [dict(zip(("red", "green", "blue"), colour, strict=True)) for colour in palette_of(frame, count)]
        return {"palette": colours, "palette_colours": len(colours)}


def palette_of(image: NDArray[np.uint8], count: int) -> tuple[tuple[int, int, int], ...]:
    """At most `count` colours of uint8 `(H, W, 3)`, the most frequent first; equal shares by colour."""
    import cv2

    scale = SIDE / max(image.shape[:2])
    if scale < 1:
        height, width = (max(1, round(side * scale)) for side in image.shape[:2])
        small = cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_AREA)
        image = np.asarray(small, np.uint8)
    pixels, shares = np.unique(image.reshape(-1, 3), axis=0, return_counts=True)
    values, weights = pixels.astype(np.float64), shares.astype(np.float64)
    centres = _median_cut(values, weights, count)
    for _ in range(ROUNDS):
        nearest = _nearest(values, centres)
        # An emptied cluster keeps its centre.
        moved = np.stack(
            [
                np.average(values[nearest == i], axis=0, weights=weights[nearest == i]) if (nearest == i).any() else c
                for i, c in enumerate(centres)
            ]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    area = np.bincount(_nearest(values, centres), weights, len(centres))
    found: dict[tuple[int, int, int], float] = {}
    for centre, share in zip(np.rint(centres).astype(int), area, strict=True):
        colour = (int(centre[0]), int(centre[1]), int(centre[2]))
        found[colour] = found.get(colour, 0.0) + float(share)
    return tuple(sorted((c for c in found if found[c] > 0), key=lambda c: (-found[c], c)))


def _nearest(values: NDArray[np.float64], centres: NDArray[np.float64]) -> NDArray[np.intp]:
    return np.asarray(((values[:, None] - centres) ** 2).sum(-1).argmin(1))


def _median_cut(values: NDArray[np.float64], weights: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Means `(k, 3)` of at most `count` boxes; the box with the widest channel is cut each time."""
    boxes = [np.arange(len(values))]
    while len(boxes) < count:
        widths = [np.ptp(values[box], axis=0) for box in boxes]
        widest = max(range(len(boxes)), key=lambda i: widths[i].max())
        if widths[widest].max() == 0:
            break
        box = boxes.pop(widest)
        ordered = box[np.argsort(values[box, int(widths[widest].argmax())], kind="stable")]
        total = weights[ordered].cumsum()
        cut = min(max(1, int(np.searchsorted(total, total[-1] / 2)) + 1), len(ordered) - 1)
        boxes += [ordered[:cut], ordered[cut:]]
    return np.stack([np.average(values[box], axis=0, weights=weights[box]) for box in boxes])
