import numpy as np
import pyarrow as pa
import pytest
from signal_media import BIKES, MUSIC, SPEECH, batch, hand_batch, loaded

from curate.media.requests import Energy

FULL = 0.5 * 10**0.0691  # K-weighted energy of a full-scale 997 Hz sine: -0.691 + 10 lg FULL = -3.01 (BS.1770-5)


def lufs(*energies):
    signal = loaded("loudness")
    return [r["loudness"] for r in signal(hand_batch(["audio"] * len(energies), {Energy(): list(energies)}))]


@pytest.mark.parametrize("target", [-40.0, -23.0, -3.01, 12.0])
def test_steady_audio_reads_its_level(target):
    assert lufs(np.full(50, FULL * 10 ** ((target + 3.01) / 10))) == pytest.approx([target], abs=0.01)


def test_pauses_are_gated_out():
    audio = np.full(40, FULL)
    alone, with_pause, with_hum = lufs(
        audio, np.concatenate([audio, np.zeros(80)]), np.concatenate([audio, np.full(80, FULL / 50)])
    )
    assert with_pause == pytest.approx(alone, abs=0.3)
    assert with_hum == pytest.approx(alone, abs=0.3)


def test_the_floor_is_stated_for_silence_and_for_what_is_too_short_to_measure():
    assert lufs(np.zeros(10), np.zeros(0), np.full(3, FULL), np.full(20, 1e-8)) == [-70, -70, -70, -70]
    assert lufs(np.full(4, FULL))[0] == pytest.approx(-3.01, abs=0.01)


def test_no_track_is_none_and_a_float_file_beyond_full_scale_is_in_range():
    nothing, beyond = lufs(None, np.full(10, FULL * 1e20))
    assert nothing is None
    assert beyond == pytest.approx(197, abs=0.1)
    assert loaded("loudness").gives[0].contains(beyond)


def test_real_media():
    """Music is loud; speech in a video is quieter, and a video without a sound track has none."""
    signal = loaded("loudness")
    song, voice, silent = (
        r["loudness"] for r in signal(batch(signal, ("audio", MUSIC), ("video", SPEECH, 0, 5), ("video", BIKES)))
    )
    assert song == pytest.approx(-14.8, abs=0.15)  # FFmpeg's ebur128
    assert -45 < voice < song
    assert silent is None


def test_the_field_is_a_float_whose_floor_can_be_a_threshold():
    field = loaded("loudness").gives[0]
    assert field.type == pa.float32()
    assert field.contains(-70)
    assert not field.contains(-71)
