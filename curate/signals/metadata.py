"""Metadata that can be computed: sizes, counts in the caption, and statistics of the pixels, as 4M-21 names them."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from curate.signals import base
from curate.signals.base import Batch
from curate.signals.labels import LabelOptions, LabelSignal, label_field, middle, number

_SENTENCE_END = re.compile(r"[.!?。！？]+(?=\s|$)|[。！？]+")

NUMBERS = (
    number("metadata_caption_n_chars", "count", None, "Characters of the caption; null where there is none."),
    number("metadata_caption_n_words", "count", None, "Words of the caption; null where there is none."),
    number("metadata_caption_n_sentences", "count", None, "Sentences of the caption; null where there is none."),
    number("metadata_n_humans", "count", None, "Boxes of the field that `people` names; null without that option."),
    number("metadata_colorfulness", "colourfulness", 469, "Hasler and Suesstrunk's colourfulness; 0 is grey."),
    number("metadata_brightness", "luma 0-255", 255, "Mean of luma."),
    number("metadata_contrast", "luma 0-255", 127.5, "Standard deviation of luma."),
    number("metadata_saturation", "saturation 0-255", 255, "Mean saturation."),
    number("metadata_entropy", "bits", 8, "Entropy of the histogram of luma."),
)


class MetadataOptions(LabelOptions):
    """Options of `metadata`.

    Attributes:
        people: the field of boxes of another signal (`faces`, with `whole: true`), whose count becomes `n_humans`;
            empty: the entry is absent.
    """

    people: str = ""


class Metadata(LabelSignal):
    """Numbers of a sample: the entries of 4M-21 that follow from the pixels of the whole middle frame, the size of the
    original, and the caption that is tokenized. `pixel_statistics` and `caption_statistics` say what they are."""

    name = "metadata"
    kind = "metadata"
    whole = True
    gives = (
        label_field("metadata", "metadata", "Figures of the image and its caption, by the names that 4M-21 has."),
        *NUMBERS,
    )
    Options = MetadataOptions
    options: MetadataOptions

    def __init__(self, options: base.Options | None = None) -> None:
        super().__init__(options)
        self._people = self.options.people
        self.after = ("caption", "width", "height", *([self._people] if self._people else []))

    def of(self, frames: NDArray[np.uint8], batch: Batch, i: int) -> dict[str, Any]:
        columns = batch.columns
        size, text = (columns["width"][i], columns["height"][i]), columns["caption"][i]
        values: dict[str, float | int] = {}
        if None not in size:
            values |= {"original_width": int(size[0]), "original_height": int(size[1])}
        if text is not None:
            values |= caption_statistics(text)
        if self._people and (boxes := columns[self._people][i]) is not None:
            values["n_humans"] = len(boxes)
        values |= pixel_statistics(middle(frames))
        label = [{"name": name, "value": value} for name, value in values.items()]
        return {"metadata": label} | {f"metadata_{name}": value for name, value in values.items()}


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


def pixel_statistics(image: NDArray[np.uint8]) -> dict[str, float | int]:
    """Statistics of uint8 sRGB `(H, W, 3)`.

    colorfulness: Hasler and Suesstrunk, "Measuring colourfulness in natural images", SPIE 5007 (2003), section 6: with
        rg = R - G and yb = (R + G)/2 - B, sqrt(var rg + var yb) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2); 0 grey, 109 and
        more extremely colourful.
    brightness, contrast: mean (0 to 255) and standard deviation (0 to 127.5) of luma, ITU-R BT.601 weights.
    saturation: mean of (max - min)/max of the channels, times 255; 0 for black.
    entropy: Shannon's, of the 256-bin histogram of luma, in bits, 0 to 8.
    """
    import cv2

    red, green, blue = (image[..., i].astype(np.float64) for i in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    luma = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    top, low = image.max(-1).astype(np.float64), image.min(-1).astype(np.float64)
    odds = np.bincount(luma.ravel(), minlength=256) / luma.size
    odds = odds[odds > 0]
    return {
        "colorfulness": float(np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())),
        "brightness": float(luma.mean(dtype=np.float64)),
        "contrast": float(luma.std(dtype=np.float64)),
        "saturation": float(np.divide(top - low, top, out=np.zeros_like(top), where=top > 0).mean() * 255),
        "entropy": float(max(0.0, -(odds * np.log2(odds)).sum())),
    }
