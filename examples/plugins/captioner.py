"""A captioner: the shape of an image and its main colours, in words. Weak text, but true, and it costs nothing."""

import numpy as np
from matplotlib.colors import CSS4_COLORS, to_rgb
from numpy.typing import NDArray
from PIL import Image

from curate.signals.captioner import Captioner

NAMES = list(CSS4_COLORS)
VALUES = np.array([to_rgb(CSS4_COLORS[name]) for name in NAMES]) * 255


class ColourWords(Captioner):
    """`A wide image of black, peru and wheat.`: the three largest of eight colours (median cut), by nearest name."""

    def __call__(self, frame: NDArray[np.uint8]) -> str:
        height, width, _ = frame.shape
        shape = "wide" if width > 1.2 * height else "tall" if height > 1.2 * width else "square"
        reduced = Image.fromarray(frame).quantize(8)
        palette = np.reshape(reduced.getpalette(), (-1, 3))
        largest = [index for _, index in sorted(reduced.getcolors(), reverse=True)]
        names = list(dict.fromkeys(NAMES[np.square(VALUES - palette[i]).sum(axis=1).argmin()] for i in largest))[:3]
        return f"A {shape} image of {', '.join(names[:-1])} and {names[-1]}." if names[1:] else f"All {names[0]}."
