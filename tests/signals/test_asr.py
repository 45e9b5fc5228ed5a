import re
from types import SimpleNamespace

import numpy as np
import pytest
from signal_media import loaded, music, recordings, speech

from curate.schema.errors import CurateError
from curate.schema.fields import RunsOn
from curate.schema.recipe import SignalUse
from curate.signals import registry


def words(text):
    return re.findall(r"[a-z]+", text.lower())


def test_speech_is_transcribed():
    signal = loaded("asr")
    result = signal(recordings(signal, speech(), speech_ratio=[0.6]))[0]
    said = "hi i'm john pierce i'm a lecturer at the university of nottingham"
    heard = words(result["asr_text"])
    assert len(set(words(said)) & set(heard)) >= 0.8 * len(set(words(said)))
    assert 0.3 < result["asr_confidence"] < 1


def test_what_is_hardly_speech_is_not_transcribed_so_nothing_is_made_up():
    signal = loaded("asr")
    results = signal(recordings(signal, music(), speech(), None, speech_ratio=[0.0, 0.19, None]))
    assert results == [{"asr_text": None, "asr_confidence": None}] * 3


def test_silence_that_is_asked_for_all_the_same_gives_an_empty_text():
    signal = loaded("asr", min_speech=0)
    silence, nothing = np.zeros(32000, np.int16), np.zeros(0, np.int16)
    results = signal(recordings(signal, silence, nothing, speech_ratio=[0.0, 0.0]))
    assert results == [{"asr_text": "", "asr_confidence": None}] * 2


def test_a_folder_without_a_model_is_refused_when_the_recipe_is_read(tmp_path):
    with pytest.raises(CurateError, match=r"no CTranslate2 Whisper model \(model.bin\)"):
        registry.build(SignalUse(name="asr", model=str(tmp_path)))


def test_a_folder_with_a_damaged_model_is_one_sentence_when_it_is_loaded(tmp_path):
    (tmp_path / "model.bin").write_bytes(b"not a model")
    signal = registry.build(SignalUse(name="asr", model=str(tmp_path)))
    with pytest.raises(CurateError, match="cannot be loaded"):
        signal.load()


def test_a_language_that_the_model_does_not_know_is_refused():
    with pytest.raises(CurateError, match="does not know the language `de`"):
        registry.build(SignalUse(name="asr", language="de")).load()


def test_windows_that_share_a_batch_say_what_each_says_alone():
    """What a GPU does; the library cuts windows elsewhere there, so that words, not bits, are compared."""
    signal = loaded("asr")
    audio = speech().astype(np.float32) / 32768
    one, several = (
        set(words(" ".join(s.text for s in part(audio)))) for part in (signal._segments, signal._segments_in_batches)
    )
    assert len(one & several) >= 0.8 * len(one)
    long = signal._segments_in_batches(np.concatenate([audio] * 7))  # 40 s: two windows
    assert len({s.seek for s in long}) == 2
    assert " ".join(s.text for s in long).lower().count("nottingham") >= 4


def test_windows_that_do_not_fit_the_memory_of_a_gpu_are_fewer_from_then_on():
    signal = registry.build(SignalUse(name="asr"))
    signal.on = RunsOn("cuda", "float16", 8)
    signal._at_once = 8
    asked = []

    class Full:
        def __init__(self, most):
            self.most = most

        def transcribe(self, audio, batch_size, **_):
            asked.append(batch_size)
            if batch_size > self.most:
                raise RuntimeError("CUDA failed with error out of memory")
            return iter([SimpleNamespace(text=" hi", tokens=[1], avg_logprob=-0.5)]), None

    signal._batched = Full(2)
    assert signal.transcribe(speech()) == ("hi", pytest.approx(np.exp(-0.5)))
    assert signal.transcribe(speech())[0] == "hi"
    assert asked == [8, 4, 2, 2]
    signal._batched = Full(0)
    [failed] = signal(recordings(signal, speech(), speech_ratio=[0.9]))
    assert (failed.error, failed.attempt) == ("DeviceMemoryError", 2)
