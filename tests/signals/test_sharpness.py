import numpy as np
import pytest
from PIL import ImageFilter
from signal_media import SKIMAGE, batch, images, jpeg, loaded, open_image


def score(*data):
    signal = loaded("sharpness")
    return [r["sharpness"] for r in signal(batch(signal, *(("image", d) for d in data)))]


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def test_an_image_loses_sharpness_with_each_step_of_blur(name):
    image = open_image(SKIMAGE / name)
    steps = [jpeg(image.filter(ImageFilter.GaussianBlur(r)), 95) for r in (0, 2, 4, 8)]
    values = score(*steps)
    assert values == sorted(values, reverse=True)
    assert values[0] > 10 * values[2]


def test_known_values():
    signal = loaded("sharpness")
    flat = np.full((224, 224, 3), 90, np.uint8)
    # a checkerboard of single pixels: each Laplacian is 4 x 255 up or down, the largest variance there is
    board = np.repeat((np.indices((224, 224)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    one_pixel = np.zeros((1, 1, 3), np.uint8)
    values = [r["sharpness"] for r in signal(images(signal, flat, board, one_pixel))]
    assert values == pytest.approx([0, 1020**2, 0], rel=1e-6)
    assert signal.gives[0].contains(values[1])
