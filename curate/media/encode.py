"""Small encoders for the card: an image as JPEG, audio as WAV. The same input gives the same bytes."""

from __future__ import annotations

import wave
from io import BytesIO

import numpy as np
from numpy.typing import NDArray


def encode_jpeg(pixels: NDArray[np.uint8], quality: int = 85) -> bytes:
    """uint8 `(h, w, 3)` sRGB (or `(h, w)` grey) to a baseline JPEG; quality 1 to 95.

    Raises ValueError for another dtype or shape.
    """
    from PIL import Image

    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"a JPEG needs uint8 (h, w, 3) or (h, w), got {pixels.dtype} {pixels.shape}")
    out = BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def encode_wav(samples: NDArray[np.int16], rate: int) -> bytes:
    """int16 `(n,)` mono, or `(n, channels)`, to a PCM WAV file. Raises ValueError for another dtype or shape."""
    if samples.dtype != np.int16 or samples.ndim not in (1, 2):
        raise ValueError(f"a WAV needs int16 (n,) or (n, channels), got {samples.dtype} {samples.shape}")
    out = BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1 if samples.ndim == 1 else samples.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2", copy=False).tobytes())
    return out.getvalue()
