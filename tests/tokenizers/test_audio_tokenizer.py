"""From a file of any rate and layout to the samples, and ids, that an audio tokenizer is made for."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from curate.media.decode import decode
from curate.schema.package_data import data_folder
from curate.tokenizers.audio import check_audio, chunk_difference, probe_audio, wanted_lengths
from curate.tokenizers.codecs.audio_rvq import AudioRVQ
from curate.tokenizers.quantisers.difference import batch_difference
from curate.tokenizers.views import items_of, view_of

SEVEN_ONE = ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR")


@pytest.fixture(scope="module")
def codec() -> AudioRVQ:
    torch.set_num_threads(1)
    return AudioRVQ.load(data_folder("tokenizers") / "audio-rvq-4kbps")


def wav(channels: NDArray[np.float64], rate: int, layout: str) -> bytes:
    """A PCM WAV file of `(channels, n)` in [-1, 1], written by FFmpeg."""
    out = io.BytesIO()
    with av.open(out, "w", format="wav") as container:
        stream = container.add_stream("pcm_s16le", rate=rate, layout=layout)
        packed = np.round(channels.T * 32767).astype(np.int16).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
        frame.rate = rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    return out.getvalue()


def tone(hertz: float, level: float, seconds: float, rate: int) -> NDArray[np.float64]:
    return level * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def sounding(data: bytes, codec: AudioRVQ) -> NDArray[np.float32]:
    """What the pipeline would hand to the tokenizer."""
    view = view_of(codec.card)
    assert view is not None
    (item,) = items_of(codec.card, [decode(data, "audio", [view]).views[view]])
    return np.asarray(item)


def pitch_and_level(audio: NDArray[np.float32], rate: int) -> tuple[float, float]:
    """The strongest frequency in Hz, and the amplitude of a tone of the whole energy; ends left out."""
    inside = audio[rate // 10 : -rate // 10]
    power = np.abs(np.fft.rfft(inside * np.hanning(len(inside))))
    return float(power.argmax()) * rate / len(inside), float(np.sqrt(2 * np.mean(np.square(inside))))


def test_telephone_audio_keeps_pitch_and_level(codec: AudioRVQ) -> None:
    audio = sounding(wav(tone(1000, 0.5, 1.0, 8000)[None], 8000, "mono"), codec)
    assert audio.shape == (16000,)
    pitch, level = pitch_and_level(audio, 16000)
    assert pitch == pytest.approx(1000, abs=2)
    assert level == pytest.approx(0.5, rel=0.02)


def test_seven_one_is_mixed_after_bs_775(codec: AudioRVQ) -> None:
    """Front 0.5, centre 0.7071, the four of surround 0.3536; what is in LFE is not heard."""
    channels = np.stack([tone(300 if name != "LFE" else 60, 0.2, 1.0, 48000) for name in SEVEN_ONE])
    audio = sounding(wav(channels, 48000, "7.1"), codec)
    pitch, level = pitch_and_level(audio, 16000)
    assert audio.shape == (16000,)
    assert pitch == pytest.approx(300, abs=2)
    assert level == pytest.approx(0.2 * (2 * 0.5 + 0.7071 + 4 * 0.3536), rel=0.02)
    centre = np.where(np.array(SEVEN_ONE)[:, None] == "FC", channels, 0.0)
    pitch, level = pitch_and_level(sounding(wav(centre, 48000, "7.1"), codec), 16000)
    assert pitch == pytest.approx(300, abs=2)
    assert level == pytest.approx(0.2 * 0.7071, rel=0.02)


def test_the_pitch_survives_the_tokens(codec: AudioRVQ) -> None:
    audio = sounding(wav(tone(440, 0.3, 1.0, 8000)[None], 8000, "mono"), codec)
    (back,) = codec.decode(codec.encode([audio]), [len(audio)])
    assert pitch_and_level(back, 16000)[0] == pytest.approx(440, abs=5)


def test_stereo_and_64_bit_samples_are_no_audio_for_a_tokenizer() -> None:
    for bad in (np.zeros((100, 2), np.float32), np.zeros(100), np.zeros(0, np.float32)):
        with pytest.raises(ValueError, match="audio must"):
            check_audio(bad)
    check_audio(np.array([1.5, -1.5], np.float32))  # overshoot of a lossy decoder


def test_lengths_must_fit_their_frames() -> None:
    ids = [np.zeros((2, 8), np.uint16)]
    assert wanted_lengths(ids, None, 320) == [640]
    assert wanted_lengths(ids, [321], 320) == [321]
    for wrong in ([320], [641], [], [640, 640]):
        with pytest.raises(ValueError, match=r"cannot be|lengths"):
            wanted_lengths(ids, wrong, 320)


def test_parts_of_audio_differ_near_their_ends_only(codec: AudioRVQ) -> None:
    (audio,) = probe_audio(16000, count=1)
    share = chunk_difference(codec, audio, 16000)  # four parts: three cuts
    assert 0.0 < share <= 3 * 2 * 15 / 200  # 14 frames that the network sees, and one that the transform does
    assert chunk_difference(codec, audio, len(audio)) == 0.0
    assert batch_difference(codec, probe_audio(16000, seconds=0.5)) == 0.0
    with pytest.raises(ValueError, match="frames"):
        chunk_difference(codec, audio, 500)


def test_probe_audio_are_always_the_same() -> None:
    first, second = probe_audio(8000, 1.0, 2), probe_audio(8000, 1.0, 2)
    assert [len(s) for s in first] == [8000, 7200]
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert float(np.abs(a).max()) == pytest.approx(0.5)


def test_the_shipped_card_says_how_ids_come_about() -> None:
    card = (Path(data_folder("tokenizers")) / "audio-rvq-4kbps" / "card.json").read_text()
    for said in ('"channels": 1', "14 frames", "ceil(samples / 320)", "number of samples", "torch "):
        assert said in card
