"""EnCodec, DAC and Mimi: the library's own classes, small and with seeded weights, saved and imported as published ones
are. What is held here is what does not need training: lengths, ranges, padding, invariance, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from curate.schema.errors import CurateError
from curate.tokenizers.audio import probe_audio
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.audio_transformers import (
    Dac,
    DacConfig,
    Encodec,
    EncodecConfig,
    Mimi,
    MimiConfig,
    TransformersCodec,
)

# strides, rates and code counts as published; widths and depths small. Codes: so many that ids need 16 bits.
SMALL: dict[type[TransformersCodec], Any] = {
    Encodec: EncodecConfig(num_filters=4, hidden_size=16, codebook_dim=16, num_lstm_layers=1),
    Dac: DacConfig(
        encoder_hidden_size=4, decoder_hidden_size=32, n_codebooks=12, codebook_dim=4, downsampling_ratios=[2, 4, 5, 8]
    ),
    Mimi: MimiConfig(
        num_filters=4,
        hidden_size=32,
        codebook_dim=16,
        vector_quantization_hidden_dimension=16,
        upsample_groups=32,
        num_hidden_layers=1,
        intermediate_size=32,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
    ),
}
CODECS = list(SMALL)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def saved(cls: type[TransformersCodec], config: Any, folder: Path) -> str:
    """A folder as `save_pretrained` leaves it."""
    torch.manual_seed(0)
    net = cls.model_class(config).eval()
    audio = torch.from_numpy(probe_audio(config.sampling_rate)[0])[None, None]
    with torch.inference_mode():
        if cls is Encodec:
            fill_codebooks(net.quantizer.layers, net.encoder(audio))
        if cls is Mimi:
            latents = net.encoder(audio).latents
            for part in (
                net.quantizer.semantic_residual_vector_quantizer,
                net.quantizer.acoustic_residual_vector_quantizer,
            ):
                fill_codebooks(part.layers, part.input_proj(latents))
    net.save_pretrained(folder)
    return str(folder)


def fill_codebooks(layers: Any, residual: torch.Tensor) -> None:
    """Codes spread as what each level is given, `(1, D, T)`: EnCodec's and Mimi's own start at zero, all ids 0."""
    for layer in layers:
        book = layer.codebook
        target = book.embed_sum if hasattr(book, "embed_sum") else book.embed
        spread = residual[0].std(dim=1) * torch.randn(target.shape)
        target.copy_(residual[0].mean(dim=1) + spread)
        if hasattr(book, "cluster_usage"):
            book.cluster_usage.fill_(1.0)
            book._embed = None  # kept from an earlier look
        residual = residual - layer.decode(layer.encode(residual))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[type[TransformersCodec], tuple[str, Path]]:
    """For each class the published folder and the imported one."""
    made = {}
    for cls, config in SMALL.items():
        root = tmp_path_factory.mktemp(cls.architecture)
        source = saved(cls, config, root / "published")
        cls.import_checkpoint(source, root / cls.architecture)
        made[cls] = (source, root / cls.architecture)
    return made


@pytest.fixture(params=CODECS, ids=lambda cls: cls.architecture)
def codec(request: pytest.FixtureRequest, folders: dict[type[TransformersCodec], tuple[str, Path]]) -> Any:
    return request.param.load(folders[request.param][1])


def test_cards_say_the_published_figures(folders: dict[type[TransformersCodec], tuple[str, Path]]) -> None:
    cards = [cls.load(folders[cls][1]).card for cls in CODECS]
    found = [(c.sample_rate, c.rate_hz, c.ids_per_frame, c.vocabulary, c.dtype, c.channels) for c in cards]
    # EnCodec 6 kbps; DAC 16 kHz, whose stride is 320; Mimi as Moshi uses it: 1.1 kbps
    assert found == [
        (24000, 75.0, 8, 1024, "uint16", 1),
        (16000, 50.0, 12, 1024, "uint16", 1),
        (24000, 12.5, 8, 2048, "uint16", 1),
    ]


@pytest.mark.parametrize("frames", [(0, 1), (1, -1), (1, 0), (1, 1), (20, 7)])
def test_length_type_and_range(codec: Any, frames: tuple[int, int]) -> None:
    samples = frames[0] * codec.hop + frames[1]
    (ids,) = codec.encode([probe_audio(codec.card.sample_rate)[0][:samples]])
    assert ids.dtype == np.uint16
    assert ids.shape == (-(-samples // codec.hop), codec.card.ids_per_frame)
    assert int(ids.max()) < codec.card.vocabulary
    (back,) = codec.decode([ids], [samples])
    assert (back.dtype, back.shape) == (np.float32, (samples,))
    assert np.abs(back).max() <= 1.0
    assert codec.decode([ids])[0].shape == (len(ids) * codec.hop,)
    assert codec.decode([ids[:, :1]], [samples])[0].shape == (samples,)


def test_three_seconds_and_a_third_use_many_codes(codec: Any) -> None:
    rate = codec.card.sample_rate
    (ids,) = codec.encode([probe_audio(rate)[0][: rate * 33 // 10]])
    assert len(ids) == -(-33 * rate // (10 * codec.hop))
    assert len(np.unique(ids[:, 0])) > 5
    assert all(len(np.unique(level)) > 1 for level in ids.T)


def test_ids_are_those_of_the_library(folders: dict[type[TransformersCodec], tuple[str, Path]], codec: Any) -> None:
    """The published folder, loaded and called as its model card shows, gives the same ids."""
    cls = type(codec)
    net = cls.model_class.from_pretrained(folders[cls][0]).eval()
    audio = probe_audio(codec.card.sample_rate)[0][: codec.hop * 10]
    more = {Encodec: {"bandwidth": 6.0}, Mimi: {"num_quantizers": 8}}.get(cls, {})
    with torch.inference_mode():
        codes = net.encode(torch.from_numpy(audio)[None, None], **more).audio_codes
    np.testing.assert_array_equal(codec.encode([audio])[0], codes.reshape(-1, 10).T.numpy())


def test_items_do_not_depend_on_their_neighbours(codec: Any) -> None:
    recordings = [s[:n] for s, n in zip(probe_audio(codec.card.sample_rate), (1, 5000, 7000, 7001), strict=True)]
    together = codec.encode(recordings)
    for audio, ids in zip(reversed(recordings), reversed(together), strict=True):
        np.testing.assert_array_equal(codec.encode([audio])[0], ids)
    assert codec.card.batch_invariance == 0.0


def test_the_card_tells_what_parts_change(codec: Any) -> None:
    assert "% of the ids differ" in codec.card.chunking
    assert f"ceil(samples / {codec.hop})" in codec.card.padding


def test_samples_that_dac_lacks_are_told_and_zero(folders: dict[type[TransformersCodec], tuple[str, Path]]) -> None:
    """With a stride of 5 among its strides (16 and 24 kHz), DAC's decoder gives 8 samples too few."""
    codec = Dac.load(folders[Dac][1])
    assert "8 samples less" in codec.card.padding
    (back,) = codec.decode(codec.encode([probe_audio(16000)[0][:3200]]), [3200])
    assert not back[-8:].any()
    assert back[:-8].all()


@pytest.mark.parametrize(
    ("cls", "kbps", "levels"),
    [
        (Encodec, 1.5, 2),
        (Encodec, 3, 4),
        (Encodec, 24, 32),
        (Dac, 6, 12),
        (Dac, 0.5, 1),
        (Mimi, 1.1, 8),
        (Mimi, 4.4, 32),
    ],
)
def test_rates_as_published_give_their_levels(cls: type[TransformersCodec], kbps: float, levels: int) -> None:
    assert cls._levels(SMALL[cls], kbps) == levels


def test_dac_44_khz_has_its_published_rate() -> None:
    config = DacConfig(sampling_rate=44100, n_codebooks=9)  # 7.752 kbps; the paper says 7.75
    assert Dac._levels(config, 7.75) == 9
    assert Dac._hop(config) == 512


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (np.zeros(0, np.float32), "at least one sample"),
        (np.array([0.0, np.nan], np.float32), "finite"),
        (np.zeros((2, 320), np.float32), "float32"),
        (np.full(320, 3e4, np.float32), "scaled"),
    ],
)
def test_bad_audio_is_refused(codec: Any, bad: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        codec.encode([bad])


def test_audio_that_is_too_long_is_refused(codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(codec), "longest", 1)
    with pytest.raises(ValueError, match="cut it first"):
        codec.encode([np.zeros(codec.card.sample_rate + 1, np.float32)])


def test_bad_ids_are_refused(codec: Any) -> None:
    levels, codes = codec.card.ids_per_frame, codec.card.vocabulary
    with pytest.raises(ValueError, match=f"0 to {codes - 1}"):
        codec.decode([np.full((1, levels), codes, np.uint16)])
    with pytest.raises(ValueError, match="levels"):
        codec.decode([np.zeros((1, levels + 1), np.uint16)])
    with pytest.raises(ValueError, match="cannot be"):
        codec.decode([np.zeros((2, levels), np.uint16)], [codec.hop])


def test_it_is_a_tokenizer(codec: Any) -> None:
    assert isinstance(codec, Tokenizer)


@pytest.mark.parametrize(
    ("told", "why"),
    [({"audio_channels": 2}, "stereo"), ({"normalize": True}, "scales"), ({"chunk_length_s": 1.0}, "chunks")],
)
def test_models_that_ids_alone_cannot_hold_are_refused(
    told: dict[str, Any], why: str, folders: dict[type[TransformersCodec], tuple[str, Path]], tmp_path: Path
) -> None:
    config = json.loads((Path(folders[Encodec][0]) / "config.json").read_text()) | told
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CurateError, match=why):
        Encodec.import_checkpoint(str(tmp_path), tmp_path / "out")


def test_what_cannot_be_adopted_is_said(
    folders: dict[type[TransformersCodec], tuple[str, Path]], tmp_path: Path
) -> None:
    source = Path(folders[Encodec][0])
    with pytest.raises(CurateError, match="not mimi"):
        Mimi.import_checkpoint(str(source), tmp_path / "out")
    with pytest.raises(CurateError, match="no 5 kbps") as error:
        Encodec.import_checkpoint(str(source), tmp_path / "out", kbps=5)
    assert "6 (8)" in str(error.value)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_bytes((source / "config.json").read_bytes())
    tensors = load_file(source / "model.safetensors")
    tensors.pop(next(key for key in tensors if key.startswith("decoder")))
    save_file(tensors, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CurateError, match="is missing"):
        Encodec.import_checkpoint(str(broken), tmp_path / "out")
    (broken / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(CurateError, match="broken"):
        Encodec.import_checkpoint(str(broken), tmp_path / "out")


@pytest.mark.parametrize("cls", [Encodec, Dac], ids=lambda cls: cls.architecture)
def test_a_tensor_of_another_shape_is_told_by_key_and_both_shapes(
    cls: type[TransformersCodec], folders: dict[type[TransformersCodec], tuple[str, Path]], tmp_path: Path
) -> None:
    source = Path(folders[cls][0])
    state = load_file(source / "model.safetensors")
    key = next(name for name, value in state.items() if name.startswith("decoder.") and value.ndim == 1)
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    save_file(state | {key: torch.zeros(len(state[key]) + 1)}, tmp_path / "model.safetensors", {"format": "pt"})
    has, wanted = len(state[key]) + 1, len(state[key])
    with pytest.raises(CurateError, match=rf"{key} has shape \[{has}\], not \[{wanted}\]"):
        cls.import_checkpoint(str(tmp_path), tmp_path / "zoo")
