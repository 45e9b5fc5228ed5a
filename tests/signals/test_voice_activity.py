import numpy as np
import pytest
from signal_media import loaded, music, recordings, sine, speech

from curate.models.onnx_session import cpu_session
from curate.models.package_files import package_file


def ratios(*pcm):
    signal = loaded("voice_activity")
    return [r["speech_ratio"] for r in signal(recordings(signal, *pcm))]


def test_speech_is_told_from_music_noise_tone_and_silence():
    noise = np.random.default_rng(0).integers(-8000, 8000, 16000 * 5).astype(np.int16)
    talk, song, hiss, tone, silence = ratios(speech(), music(), noise, sine(440, 0.5, 5), np.zeros(80000, np.int16))
    assert talk > 0.5
    assert max(song, hiss, tone, silence) < 0.05


def test_speech_followed_by_as_much_silence_halves_the_share():
    talk = speech()
    alone, padded = ratios(talk, np.concatenate([talk, np.zeros_like(talk)]))
    assert padded == pytest.approx(alone / 2, abs=0.05)


def test_the_whole_sequence_at_once_equals_the_streaming_model_window_by_window():
    pcm = np.tile(speech(), 4)  # 23 s: more than one block of the sequence model
    got = loaded("voice_activity").probabilities(pcm)
    streaming = cpu_session(package_file("silero_vad", "data/silero_vad.onnx", "silero-vad"))
    state, context, expected = np.zeros((2, 1, 128), np.float32), np.zeros((1, 64), np.float32), []
    samples = np.zeros(-(-len(pcm) // 512) * 512, np.float32)
    samples[: len(pcm)] = pcm / np.float32(32768)
    for window in samples.reshape(-1, 1, 512):
        x = np.concatenate([context, window], axis=1)
        p, state = streaming.run(None, {"input": x, "state": state, "sr": np.array(16000, np.int64)})
        context = x[:, -64:]
        expected.append(float(p[0, 0]))
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_no_track_is_none_and_no_samples_is_no_speech():
    assert ratios(None, np.zeros(0, np.int16), np.zeros(1, np.int16)) == [None, 0, 0]
