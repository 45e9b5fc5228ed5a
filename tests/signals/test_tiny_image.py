"""Copies have nearly the same thumbnail, other images have not."""

import numpy as np
import pytest
from PIL import Image
from signal_media import SKIMAGE, jpeg, open_image

from curate.media.decode import decode
from curate.signals.tiny_image import VIEW, thumbnail

IMAGES = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")


def vector(image: Image.Image, quality: int = 95) -> np.ndarray:
    found = thumbnail(decode(jpeg(image, quality), "image", [VIEW]).views[VIEW])
    assert found is not None
    return found


@pytest.mark.parametrize("name", IMAGES)
def test_a_small_bad_copy_is_above_the_threshold_and_others_are_far_below(name):
    image = open_image(SKIMAGE / name)
    small = image.resize((int(image.width * 0.6), int(image.height * 0.6)), Image.Resampling.LANCZOS)
    assert vector(image) @ vector(small, quality=30) > 0.99
    for other in IMAGES:
        if other != name:
            assert vector(image) @ vector(open_image(SKIMAGE / other)) < 0.8


def test_unit_length_and_zero_mean():
    found = vector(open_image(SKIMAGE / "coffee.png"))
    assert found.shape == (768,)
    assert found.dtype == np.float32
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-6)
    assert found.mean() == pytest.approx(0, abs=1e-6)


def test_a_flat_image_has_none():
    assert thumbnail(np.full((1, 224, 224, 3), 77, np.uint8)) is None
