"""Training of the audio tokenizer: what it hears, resuming, and its card."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import yaml
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file

from curate.schema.errors import CurateError
from curate.tokenizers.codecs.audio_rvq import AudioNetConfig, AudioRVQ, Decoder, Encoder
from curate.tokenizers.measures.audio import si_sdr
from curate.training import Session, read_config, train
from curate.training.audio import AudioConfig, AudioModel, AudioRun
from curate.training.audio_media import AudioSource, Recording, gather
from curate.training.loop import CHECKPOINT, LOG, fit


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def voice(samples: int, seed: int = 0) -> NDArray[np.float32]:
    """A buzz with a moving pitch and noise: enough like speech for shapes, not for figures."""
    rng = np.random.default_rng(seed)
    t = np.arange(samples) / 16000
    phase = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 2 * t + seed)) / 16000
    buzz = sum(np.sin(k * phase) / k for k in range(1, 12)) + 0.05 * rng.standard_normal(samples)
    return (0.1 * buzz).astype(np.float32)


def _small(steps: int = 24, **more: Any) -> AudioConfig:
    net = AudioNetConfig(
        hop=64,
        bands=8,
        encoder_width=32,
        encoder_blocks=1,
        decoder_width=32,
        decoder_blocks=1,
        latent=8,
        levels=2,
        codes=16,
    )
    given = {
        "steps": steps,
        "warmup": 8,
        "crops": 4,
        "crop_frames": 40,
        "learning_rate": 4e-3,
        "beam": 2,
        "log_every": 1,
    }
    return AudioConfig(**given | {"network": net} | more)


RECORDINGS = [Recording(f"voice {i}", "made", voice(12000, i), False) for i in range(4)]


def fitted(config: AudioConfig, out: Path, stop_at: int | None = None) -> AudioRun:
    out.mkdir(exist_ok=True)
    run = AudioRun(config, RECORDINGS)
    fit(run, out, Session(say=str, stop_at=stop_at))
    return run


def losses_in(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / LOG).read_text().splitlines()]


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(tmp_path: Path) -> None:
    config = _small(120)
    whole = fitted(config, tmp_path / "whole")
    fitted(config, tmp_path / "parts", stop_at=8)  # right before the codebooks start
    fitted(config, tmp_path / "parts", stop_at=58)
    parts = fitted(config, tmp_path / "parts")
    assert losses_in(tmp_path / "parts") == losses_in(tmp_path / "whole")
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    losses = losses_in(tmp_path / "whole")
    # natural log units: 0.3 is a quarter of the error's energy
    assert np.mean(losses[-20:]) < np.mean(losses[:8]) - 0.3


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    fitted(_small(), tmp_path, stop_at=1)
    wider = _small(network=_small().network.model_copy(update={"latent": 4}))
    for other in (wider, _small(learning_rate=1e-3)):
        with pytest.raises(CurateError, match="another config"):
            fitted(other, tmp_path)
    fitted(_small(beam=4, licence="CC0-1.0"), tmp_path, stop_at=2)  # which make no weights
    torch.save(Path("not tensors"), tmp_path / CHECKPOINT)
    with pytest.raises(CurateError, match="is no checkpoint"):
        fitted(_small(), tmp_path)


def test_the_whole_way_from_configuration_to_tokenizer(tmp_path: Path) -> None:
    for i in range(4):
        soundfile.write(tmp_path / f"{i}.wav", voice(8000, i), 16000)
    source = {"package": "p", "kind": "folder", "folder": str(tmp_path), "patterns": ["?.wav"], "hold_out": 1}
    config = _small(12).model_dump(exclude={"media", "architecture"}) | {"media": [source]}
    (tmp_path / "mine.yaml").write_text(json.dumps(config), "utf-8")
    card = train(read_config(tmp_path / "mine.yaml", "audio-rvq"), tmp_path / "out", Session(say=str))
    codec = AudioRVQ.load(tmp_path / "out")
    assert codec.card == card
    assert "3 sounds" in card.trained_on
    assert (card.name, card.batch_invariance, card.levels, card.dtype) == ("out", 0.0, [16, 16], "uint8")
    [held] = gather(read_config(tmp_path / "mine.yaml", "audio-rvq").media, 16000)[1]
    assert card.quality[0].media == f"p {held.name}, held out"
    [ids] = codec.encode([held.samples])
    [back] = codec.decode([ids], [len(held.samples)])
    assert card.quality[0].si_sdr_db == pytest.approx(si_sdr(held.samples, back), abs=0.01)
    assert ids.dtype == np.uint8


def test_a_configuration_of_another_architecture_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("architecture: audio-rvq\n")
    with pytest.raises(CurateError, match="it is of audio-rvq, not of image-fsq"):
        read_config(tmp_path / "mine.yaml", "image-fsq")
    (tmp_path / "mine.yaml").write_text("steps: 3\n")
    with pytest.raises(CurateError, match="architecture"):
        read_config(tmp_path / "mine.yaml")


def test_media_of_ones_own_are_named_in_the_config(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="not for audio-rvq"):
        train(_small(), tmp_path / "out", Session(held_out=tmp_path))


def test_batches_follow_from_seed_and_step_and_stay_in_range() -> None:
    crops, again = (AudioRun(_small(), RECORDINGS).crops for _ in range(2))
    assert torch.equal(crops.batch(5), again.batch(5))
    assert not torch.equal(crops.batch(5), crops.batch(6))
    assert crops.batch(5).shape == (4, 40 * 64)
    assert max(float(crops.batch(s).abs().max()) for s in range(20)) <= 1.0


def test_the_quantiser_passes_its_gradient_once() -> None:
    config = _small()
    model = AudioModel(config)
    assert not model.quantise(torch.randn(1, 64, 8, requires_grad=True), dropped=False).requires_grad
    assert isinstance(model.encoder, Encoder)
    assert isinstance(model.decoder, Decoder)


def test_held_out_audio_is_never_trained_on(tmp_path: Path) -> None:
    for i in range(5):
        soundfile.write(tmp_path / f"{i}.wav", voice(8000, i), 16000)
    (tmp_path / "broken.wav").write_bytes(b"RIFF no sound")
    source = AudioSource(package="p", kind="folder", folder=str(tmp_path), patterns=["*.wav"], hold_out=2)
    train_on, held = gather([source], 16000)
    assert len(train_on) == 3
    assert len(held) == 2
    assert not {s.name for s in train_on} & {s.name for s in held}
    tail = source.model_copy(update={"hold_out": 0, "hold_out_tail_s": 0.2})
    train_on, held = gather([tail], 16000)
    assert {len(s.samples) for s in train_on} == {8000 - 3200}
    assert {len(s.samples) for s in held} == {3200}


def test_absent_packages_are_said(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="None of the packages"):
        gather([AudioSource(package="p", kind="debian", folder="no", patterns=["*"])], 16000, tmp_path)


def test_training_that_diverges_stops_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    fitted(_small(30), tmp_path, stop_at=4)
    with safe_open(tmp_path / CHECKPOINT, "pt") as file:
        said = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    tensors["net.encoder.out.bias"].fill_(torch.inf)
    save_file(tensors, tmp_path / CHECKPOINT, said)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(CurateError, match="not finite"):
        fitted(_small(30), tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"crop_frames": 4, "steps": 7000}, "raise crop_frames"),
        ({"network": {"hop": 320, "bands": 7}}, "do not divide"),
        ({"network": {"kernel": 4}}, "odd"),
        ({"seed": -1}, "greater than or equal to 0"),
    ],
)
def test_a_configuration_that_could_not_work_is_refused_before_it_runs(
    wrong: dict[str, object], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump(wrong))
    with pytest.raises(CurateError, match=says):
        read_config(path, "audio-rvq")
