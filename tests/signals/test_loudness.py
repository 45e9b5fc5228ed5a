import numpy as np
import pytest
from signal_media import loaded, music, sine, sounds


def lufs(*pcm):
    signal = loaded("loudness")
    return [r["loudness"] for r in signal(sounds(signal, *pcm))]


@pytest.mark.parametrize("target", [-40.0, -23.0, -3.01])
def test_a_997_hz_sine_reads_as_bs1770_says(target):
    # Annex 1: full scale in one channel is -3.01 LKFS, so peak = 10 ** ((target + 3.01) / 20); 0.1 LU is allowed.
    assert lufs(sine(997, 10 ** ((target + 3.01) / 20), 5)) == pytest.approx([target], abs=0.1)


def test_pauses_are_gated_out():
    tone = sine(997, 0.1, 4)
    spaced = np.concatenate([tone, np.zeros(16000 * 8, np.int16)])
    alone, with_pause = lufs(tone, spaced)
    assert with_pause == pytest.approx(alone, abs=0.3)


def test_the_floor_is_stated_for_silence_and_for_what_is_too_short_to_measure():
    assert lufs(np.zeros(16000, np.int16), np.zeros(0, np.int16), sine(997, 1, 0.39)) == [-70, -70, -70]
    assert lufs(sine(997, 1, 0.41))[0] > -4


def test_music_is_loud_no_track_is_none_and_the_loudest_square_wave_is_in_range():
    square = np.where(sine(3000, 1, 1) >= 0, 32767, -32768).astype(np.int16)
    song, nothing, loudest = lufs(music(), None, square)
    assert -30 < song < -10
    assert nothing is None
    assert loaded("loudness").gives[0].contains(loudest)
