"""Lyra V2 through its published files: known quality, exact lengths, state that starts anew with each sound."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.tokenizers.audio import probe_audio
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.lyra import FILES, Lyra
from curate.tokenizers.measures.audio import si_sdr
from curate.training.audio_media import decode_audio

WEIGHTS = Path(os.environ.get("CURATE_TEST_WEIGHTS", Path(__file__).resolve().parents[4] / "shared" / "weights"))


def published() -> Path:
    """The folder of Lyra's files, or a skip."""
    pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")
    if not all((WEIGHTS / name).is_file() for name in FILES):
        pytest.skip("Lyra's .tflite files are not in CURATE_TEST_WEIGHTS or ../shared/weights")
    return WEIGHTS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lyra") / "lyra-6kbps"
    Lyra.import_checkpoint(str(published()), out, kbps=6)
    return out


@pytest.fixture(scope="module")
def codec(folder: Path) -> Lyra:
    return Lyra.load(folder)


def sample(name: str) -> NDArray[np.float32]:
    return decode_audio(WEIGHTS / f"{name}_16kHz.wav", 16000)


def test_its_card_says_what_it_is(codec: Lyra) -> None:
    card = codec.card
    assert isinstance(codec, Tokenizer)
    assert (card.rate_hz, card.ids_per_frame, card.vocabulary, card.dtype) == (50.0, 30, 16, "uint8")
    assert 50 * 30 * 4 == 6000  # frames a second x levels x bits: 6 kbps
    assert card.batch_invariance == 0.0
    assert "% of the ids differ" in card.chunking


# measured apart from this project, with the same files and ai-edge-litert 2.3; levels 16, 30, 46
@pytest.mark.parametrize(("name", "known"), [("sample1", (5.1, 7.5, 8.4)), ("sample2", (5.1, 6.4, 7.2))])
def test_quality_on_speech_is_as_known(name: str, known: tuple[float, ...], tmp_path: Path) -> None:
    Lyra.import_checkpoint(str(published()), tmp_path / "lyra", kbps=9.2)
    codec = Lyra.load(tmp_path / "lyra")
    speech = sample(name)
    [ids] = codec.encode([speech])
    found = [si_sdr(speech, codec.decode([ids[:, :levels]], [len(speech)])[0]) for levels in (16, 30, 46)]
    assert found == pytest.approx(known, abs=0.1)


@pytest.mark.parametrize("samples", [1, 319, 320, 321, 8000])
def test_length_type_and_range(codec: Lyra, samples: int) -> None:
    (ids,) = codec.encode([probe_audio(16000)[0][:samples]])
    assert ids.dtype == np.uint8
    assert ids.shape == (-(-samples // 320), 30)
    assert int(ids.max()) < 16  # the quantiser's -1 for unused levels would be 255 here
    (back,) = codec.decode([ids], [samples])
    assert (back.dtype, back.shape) == (np.float32, (samples,))
    assert np.abs(back).max() <= 1.0


def test_state_does_not_pass_from_audio_to_audio(codec: Lyra) -> None:
    loud, quiet = probe_audio(16000, seconds=0.5)[:2]
    before, after = codec.encode([quiet, loud, quiet])[::2]
    np.testing.assert_array_equal(before, after)
    first, second = codec.decode([before, codec.encode([loud])[0], before])[::2]
    np.testing.assert_array_equal(first, second)


def test_fewer_levels_are_the_first_ones_of_more(codec: Lyra, tmp_path: Path) -> None:
    Lyra.import_checkpoint(str(published()), tmp_path / "small", kbps=3.2)
    (small,) = Lyra.load(tmp_path / "small").encode([sample("sample1")[:8000]])
    (large,) = codec.encode([sample("sample1")[:8000]])
    np.testing.assert_array_equal(large[:, :16], small)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.zeros(0, np.float32), "at least one sample"),
        (np.array([0.0, np.nan], np.float32), "finite"),
        (np.zeros((2, 320), np.float32), "float32"),
        (np.zeros(320, np.int16), "float32"),
    ],
)
def test_bad_audio_is_refused(codec: Lyra, bad: NDArray[np.float32], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        codec.encode([bad])


def test_bad_ids_are_refused(codec: Lyra) -> None:
    with pytest.raises(ValueError, match="0 to 15"):
        codec.decode([np.full((1, 30), 16, np.uint8)])
    with pytest.raises(ValueError, match="1 to 30 levels"):
        codec.decode([np.zeros((1, 46), np.uint8)])
    with pytest.raises(ValueError, match="cannot be"):
        codec.decode([np.zeros((1, 30), np.uint8)], [321])


def test_what_cannot_be_adopted_or_loaded_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"no 4 kbps") as error:
        Lyra.import_checkpoint(str(published()), tmp_path / "out", kbps=4)
    assert "3.2, 6, 9.2" in str(error.value)
    with pytest.raises(CurateError, match="CPU"):
        Lyra.load(folder, "cuda")
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / FILES[0]).chmod(0o644)
    (copy / FILES[0]).write_bytes((copy / FILES[1]).read_bytes())
    with pytest.raises(CurateError, match="not those"):
        Lyra.load(copy)
    (copy / FILES[2]).unlink()
    with pytest.raises(CurateError, match=r"lacks.*lyragan"):
        Lyra.import_checkpoint(str(copy), tmp_path / "out")


def test_without_the_runtime_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(b"never read")
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    with pytest.raises(CurateError, match="ai-edge-litert") as error:
        Lyra.import_checkpoint(str(tmp_path), tmp_path / "out")
    assert "curate-tokens[litert]" in str(error.value)
