"""A method for near duplicates: pHash (Zauner 2010), the signs of an image's low frequencies, compared bit by bit."""

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dctn

from curate.decide.buckets import Buckets


class PHash(Buckets):
    """64 bits of the thumbnail that the signal `tiny_image` gives: the 8 x 8 lowest of its cosine transform, above
    their median or not. Images that share any quarter of them are compared; `threshold` is the share of equal bits, so
    0.9 lets six differ."""

    def buckets(self, vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
        return np.packbits(_bits(vectors), axis=1).view(np.uint16).astype(np.uint64)

    def similarity(self, a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
        return (_bits(a) == _bits(b)).mean(axis=1)


def _bits(vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    grey = vectors.reshape(-1, 16, 16, 3).mean(axis=3)
    low = dctn(grey, axes=(1, 2))[:, :8, :8].reshape(-1, 64)
    return low > np.median(low[:, 1:], axis=1, keepdims=True)
