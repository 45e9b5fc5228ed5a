import numpy as np
import pytest
from signal_media import SKIMAGE, SPEECH, batch, hand_batch, loaded, open_image, video

WALL = np.asarray(open_image(SKIMAGE / "gravel.png").resize((900, 900)))


def pan(px_per_s):
    """A window of 320 x 240 (400 px across the diagonal) that slides over gravel."""
    return video(lambda t: WALL[100:340, int(px_per_s * t) : int(px_per_s * t) + 320], seconds=2)


def measure(*clips, seconds=2.0):
    signal = loaded("motion")
    return [
        r["motion"]
        for r in signal(batch(signal, *(("video", c, 0, seconds) for c in clips), duration=[seconds] * len(clips)))
    ]


def test_a_pan_of_known_speed_reads_in_diagonals_per_second():
    still, slow, fast = measure(pan(0), pan(40), pan(80))
    assert still < 0.002
    assert slow == pytest.approx(40 / 400, rel=0.15)
    assert fast == pytest.approx(80 / 400, rel=0.15)


def test_the_same_movement_shown_in_half_the_time_is_twice_as_fast():
    signal = loaded("motion")
    frames = np.stack([WALL[:72, 2 * k : 2 * k + 96] for k in range(4)])
    views = {signal.needs[0]: [frames, frames]}
    # 1 s picks 4 frames; so does anything from 0.875 s on: the steps in time differ, the frames do not
    slow, fast = signal(hand_batch(["video"] * 2, views, duration=[1.0, 0.9]))
    assert fast["motion"] == pytest.approx(slow["motion"] / 0.9, rel=1e-6)


def test_a_small_moving_square_counts_by_its_share_of_the_frame():
    def square(side):
        def frame(t):
            out = np.full((240, 320, 3), 128, np.uint8)
            x = int(20 + 60 * t)
            out[80 : 80 + side, x : x + side] = WALL[:side, :side]
            return out

        return video(frame, seconds=2)

    small, large = measure(square(40), square(100))
    assert 0.002 < small < large < 60 / 400


def test_a_talking_head_hardly_moves_and_images_have_no_motion():
    signal = loaded("motion")
    talking = signal(batch(signal, ("video", SPEECH, 0, 5.6), duration=[5.6]))[0]["motion"]
    assert 0 < talking < 0.02
    image = signal(batch(signal, ("image", SKIMAGE / "coffee.png"), duration=[None]))[0]
    assert image == {"motion": None}


def test_a_clip_too_short_for_two_frames_has_none_and_wrong_counts_are_an_error():
    signal = loaded("motion")
    one = np.zeros((1, 54, 96, 3), np.uint8)
    short, wrong = signal(hand_batch(["video"] * 2, {signal.needs[0]: [one, one]}, duration=[0.2, 2.0]))
    assert short == {"motion": None}
    assert "1 frames for a clip of 2 s, 8 expected" in wrong.message
