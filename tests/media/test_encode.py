"""The card's small encoders."""

from __future__ import annotations

import numpy as np
import pytest
from synth import noise, shipped

from curate.media.decode import decode
from curate.media.encode import encode_jpeg, encode_wav
from curate.media.images import decode_image
from curate.media.probe import probe
from curate.media.requests import Audio, Frames


def test_a_jpeg_of_a_photograph() -> None:
    view = Frames(128)
    pixels = decode(shipped("skimage", "data/astronaut.png"), "image", [view]).views[view][0]
    data = encode_jpeg(pixels, 90)
    assert data == encode_jpeg(pixels.copy(), 90)
    assert len(data) > len(encode_jpeg(pixels, 30))
    back = np.asarray(decode_image(data)).astype(int)
    assert np.abs(back - pixels).mean() < 5
    assert probe(encode_jpeg(pixels[..., 0])).width == 128


def test_a_wav_is_exact() -> None:
    samples = noise(0.25, 16000)
    data = encode_wav(samples, 16000)
    assert data == encode_wav(samples, 16000)
    assert np.array_equal(decode(data, "audio", [Audio(16000)]).views[Audio(16000)], samples)
    assert probe(encode_wav(np.stack([samples, samples], 1), 16000)).audio_rate == 16000


def test_other_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        encode_jpeg(np.zeros((4, 4, 3)))
    with pytest.raises(ValueError, match="int16"):
        encode_wav(np.zeros(4, np.float32), 16000)
