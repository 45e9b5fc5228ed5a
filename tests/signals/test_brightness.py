import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from signal_media import hand_batch, images, loaded


def test_tones_of_known_luma():
    signal = loaded("brightness")
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    half = np.concatenate([black, white])
    green = black.copy()
    green[..., 1] = 255
    results = signal(images(signal, black, white, half, green))
    assert [r["brightness"] for r in results] == pytest.approx([0, 255, 127.5, 0.7152 * 255])  # Rec. 709
    assert [r["contrast"] for r in results] == pytest.approx([0, 0, 127.5, 0])


def test_flicker_between_flat_frames_is_not_contrast():
    signal = loaded("brightness")
    clip = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)])
    result = signal(hand_batch(["video"], {signal.needs[0]: [clip]}))[0]
    assert (result["brightness"], result["contrast"]) == (127.5, 0)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
@settings(max_examples=50, deadline=None)
def test_any_image_lies_in_the_declared_range(frame):
    signal = loaded("brightness")
    result = signal(images(signal, frame))[0]
    assert all(field.contains(result[field.name]) for field in signal.gives)
