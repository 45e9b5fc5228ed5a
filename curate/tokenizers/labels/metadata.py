"""Metadata that can be computed: sizes, counts in the caption, and statistics of the pixels, as 4M-21 names them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.ids import key_of
from curate.tokenizers.labels.base import Boxes, Metadata, check_pictures
from curate.tokenizers.labels.registry import labeler_of

_SENTENCE_END = re.compile(r"[.!?。！？]+(?=\s|$)|[。！？]+")


class MetadataLabeler:
    """Numbers of a sample, for each picture of it; the entries of 4M-21 that follow from pixels, size and caption.

    Args:
        people: the name of a labeler that gives boxes; their count becomes `n_humans`. None: the entry is absent.
        people_options: its options.
    """

    name = "metadata"
    needs: tuple[Literal["text", "size"], ...] = ("text", "size")

    def __init__(self, people: str | None = None, people_options: Mapping[str, Any] | None = None) -> None:
        self._people = None if people is None else labeler_of(people, people_options or {})
        if self._people is not None and not callable(self._people):
            raise CurateError(f"the labeler `{people}` needs more than pictures", "count people with one of pictures")
        self.digest = key_of(["metadata", 1, None if self._people is None else self._people.digest])

    def of_sample(
        self, pictures: NDArray[np.uint8], text: str | None, size: tuple[int, int] | None
    ) -> Sequence[Metadata]:
        check_pictures(pictures)
        shared: dict[str, float | int] = {}
        if size is not None:
            shared |= {"original_width": int(size[0]), "original_height": int(size[1])}
        if text is not None:
            shared |= caption_statistics(text)
        labels = [None] * len(pictures) if self._people is None else self._people(pictures)
        return [
            Metadata(shared | _people(label) | pixel_statistics(p)) for p, label in zip(pictures, labels, strict=True)
        ]


def _people(label: object) -> dict[str, float | int]:
    if label is None:
        return {}
    if not isinstance(label, Boxes):
        raise ValueError(f"n_humans is counted from Boxes, the labeler gave {type(label).__name__}")
    return {"n_humans": len(label.boxes)}


def caption_statistics(text: str) -> dict[str, float | int]:
    """Characters (code points), words (parted by white space), and sentences of a caption.

    A sentence ends with one or more of `.!?` before white space or the end; what follows the last end counts too.
    """
    stripped = text.strip()
    parts = [part for part in _SENTENCE_END.split(stripped) if part.strip()]
    return {
        "caption_n_chars": len(text),
        "caption_n_words": len(stripped.split()),
        "caption_n_sentences": len(parts),
    }


def pixel_statistics(picture: NDArray[np.uint8]) -> dict[str, float | int]:
    """Statistics of uint8 sRGB `(H, W, 3)`.

    colorfulness: Hasler and Suesstrunk, "Measuring colourfulness in natural images", SPIE 5007 (2003), section 6: with
        rg = R - G and yb = (R + G)/2 - B, sqrt(var rg + var yb) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2); 0 grey, 109 and
        more extremely colourful.
    brightness, contrast: mean (0 to 255) and standard deviation (0 to 127.5) of luma, ITU-R BT.601 weights.
    saturation: mean of (max - min)/max of the channels, times 255; 0 for black.
    entropy: Shannon's, of the 256-bin histogram of luma, in bits, 0 to 8.
    """
    red, green, blue = (picture[..., i].astype(np.float64) for i in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    luma = cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_RGB2GRAY)
    top, low = picture.max(-1).astype(np.float64), picture.min(-1).astype(np.float64)
    odds = np.bincount(luma.ravel(), minlength=256) / luma.size
    odds = odds[odds > 0]
    return {
        "colorfulness": float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())),
        "brightness": float(luma.mean(dtype=np.float64)),
        "contrast": float(luma.std(dtype=np.float64)),
        "saturation": float(np.divide(top - low, top, out=np.zeros_like(top), where=top > 0).mean() * 255),
        "entropy": float(max(0.0, -(odds * np.log2(odds)).sum())),
    }
