"""Features of real encoders, quantised and continuous, on photographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from skimage import data

from curate.models.efficientnet import EfficientNetLite0
from curate.models.encoders import EfficientNetEncoder, encoder_of
from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.errors import CurateError
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.continuous_features import ContinuousFeatures, to_float16
from curate.tokenizers.codecs.quantised_features import QuantisedFeatures, unit
from curate.tokenizers.codecs.t5 import T5Features, plain_pieces
from curate.tokenizers.codecs.topk import write_topk
from curate.tokenizers.evaluate import evaluate_folder
from curate.tokenizers.quantisers.pq import product_vectors
from curate.tokenizers.quantisers.topk import topk
from curate.training.features import train_features

Images = NDArray[np.uint8]
torch.set_num_threads(1)


def crops(image: Images, size: int, step: int) -> list[Images]:
    height, width = image.shape[:2]
    places = [(y, x) for y in range(0, height - size + 1, step) for x in range(0, width - size + 1, step)]
    return [image[y : y + size, x : x + size] for y, x in places]


@pytest.fixture(scope="module")
def training() -> Images:
    several = (data.coffee(), data.rocket(), data.immunohistochemistry())
    return np.stack([c for image in several for c in crops(image, 224, 140)])


@pytest.fixture(scope="module")
def held_out() -> Images:
    return np.stack([c for image in (data.astronaut(), data.chelsea()) for c in crops(image, 224, 200)])


@pytest.fixture(scope="module")
def timm_weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Seeded random weights of real architectures, with the classifier that published files hold."""
    ensure_torchvision()
    import timm

    out = {}
    for name in ("test_vit", "test_convnext"):
        torch.manual_seed(0)
        out[name] = str(tmp_path_factory.mktemp(name) / "weights.safetensors")
        save_file(timm.create_model(name, pretrained=False).state_dict(), out[name])
    return out


# Encoders


def test_efficientnet_gives_the_features_that_the_signals_use(held_out: Images) -> None:
    wide = np.pad(held_out[0], ((16, 16), (16, 16), (0, 0)), mode="edge")
    dense, pooled = (encoder_of({"library": "efficientnet-lite0", "kind": k}) for k in ("dense", "global"))
    assert (dense.grid, dense.width, pooled.grid) == ((7, 7), 1280, (1,))
    truth = EfficientNetLite0()(wide)[1]
    assert np.allclose(pooled(held_out[:1])[0], truth, atol=1e-4)
    assert np.allclose(dense(held_out[:1])[0].mean((0, 1)), truth, atol=1e-4)


@pytest.mark.parametrize(("model", "grid"), [("test_vit", (10, 10)), ("test_convnext", (5, 5))])
def test_timm_models_are_normalised_as_their_configuration_says(
    timm_weights: dict[str, str], model: str, grid: tuple[int, int], held_out: Images
) -> None:
    import timm

    spec = {"library": "timm", "model": model, "weights": timm_weights[model]}
    dense, pooled = (encoder_of(spec | {"kind": kind}) for kind in ("dense", "global"))
    net = timm.create_model(model, pretrained=False, checkpoint_path=timm_weights[model]).eval()
    told: Any = net.pretrained_cfg
    assert (dense.size, dense.grid, dense.mean, dense.std) == (told["input_size"][1], grid, told["mean"], told["std"])
    image = np.ascontiguousarray(held_out[:2, : dense.size, : dense.size])
    x = (image / 255 - told["mean"]) / told["std"]
    with torch.inference_mode():
        given = torch.from_numpy(x.astype(np.float32).transpose(0, 3, 1, 2))
        truth = net.forward_head(net.forward_features(given), pre_logits=True).numpy()
    assert np.allclose(pooled(image), truth, atol=1e-4)
    assert dense(image).shape == (2, *grid, dense.width)
    # A row does not depend on its neighbours, to the last bit.
    assert np.array_equal(dense(image)[1], dense(image[1:])[0])


def test_dense_features_of_a_transformer_leave_class_tokens_out_and_keep_rows_in_order(
    timm_weights: dict[str, str],
) -> None:
    encoder: Any = encoder_of(
        {"library": "timm", "model": "test_vit", "kind": "dense", "weights": timm_weights["test_vit"]}
    )
    import timm

    net = timm.create_model("test_vit", num_classes=0)
    net.load_state_dict(load_file(timm_weights["test_vit"]), strict=False)
    seen = net.eval().forward_features(
        torch.zeros(1, 3, 160, 160)
        - torch.tensor(encoder.mean).reshape(3, 1, 1) / torch.tensor(encoder.std).reshape(3, 1, 1)
    )
    first = net.num_prefix_tokens
    assert first > 0
    found = encoder(np.zeros((1, 160, 160, 3), np.uint8))
    assert np.allclose(found.reshape(1, 100, -1), seen[:, first:].detach().numpy(), atol=1e-5)


def test_weights_of_another_model_are_refused(timm_weights: dict[str, str]) -> None:
    with pytest.raises(CurateError, match="do not fit"):
        encoder_of({"library": "timm", "model": "test_convnext", "kind": "dense", "weights": timm_weights["test_vit"]})
    with pytest.raises(CurateError, match="no encoder library"):
        encoder_of({"library": "tim"})
    with pytest.raises(CurateError, match="kind is dense or global"):
        encoder_of({"library": "efficientnet-lite0", "kind": "both"})


OWN_ENCODER = '''
import torch
from curate.models.encoders import TorchEncoder

class Means(TorchEncoder):
    """The mean of each patch of 8 x 8 pixels and each channel: what it gives is plain to see."""

    def __init__(self, kind, device="cpu"):
        net = torch.nn.AvgPool2d(8)
        super().__init__("means", net, "0" * 64, 32, (0.0,) * 3, (1.0,) * 3, kind, device)

    def _features(self, x):
        found = self._net(x)
        return found if self.kind == "dense" else found.mean((2, 3))

class Nothing:
    def __init__(self, device):
        self.name = "nothing"
'''


def test_an_encoder_of_ones_own_is_named_by_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_encoders.py").write_text(OWN_ENCODER)
    monkeypatch.syspath_prepend(str(tmp_path))
    encoder = encoder_of({"library": "my_encoders:Means", "kind": "dense"})
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[:, 8:16, 24:, 1] = 255
    expected = np.zeros((1, 4, 4, 3), np.float32)
    expected[0, 1, 3, 1] = 1
    assert encoder.grid == (4, 4)
    assert encoder.width == 3
    np.testing.assert_allclose(encoder(image), expected, atol=1e-6)
    with pytest.raises(CurateError, match="is no encoder: it has no digest, size"):
        encoder_of({"library": "my_encoders:Nothing"})
    with pytest.raises(CurateError, match="cannot be imported"):
        encoder_of({"library": "my_encoders:Absent"})


def test_codes_of_features_are_counted_where_images_cannot_be_compared(
    tmp_path: Path, training: Images, held_out: Images
) -> None:
    spec = {"library": "efficientnet-lite0", "kind": "global"}
    train_features(spec, training, held_out, tmp_path / "codes", stream="tok_global", groups=4, codes=8)
    media = tmp_path / "media"
    media.mkdir()
    for i, image in enumerate(held_out[:2]):
        Image.fromarray(image).save(media / f"{i}.png")
    found = evaluate_folder(QuantisedFeatures.load(tmp_path / "codes"), media)
    assert (found.quality.items, found.quality.ids_per_item, found.skipped) == (2, 4, [])
    assert found.quality.psnr_db is None


@pytest.mark.long
def test_open_clip_models_are_normalised_as_clip_is(tmp_path: Path, held_out: Images) -> None:
    ensure_torchvision()
    import open_clip

    torch.manual_seed(0)
    net = open_clip.create_model("ViT-S-32-alt", load_weights=False)
    file = tmp_path / "clip.safetensors"
    save_file({k: v.contiguous() for k, v in net.state_dict().items()}, file)
    dense, pooled = (
        encoder_of({"library": "open_clip", "model": "ViT-S-32-alt", "kind": kind, "pretrained": str(file)})
        for kind in ("dense", "global")
    )
    assert pooled.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))  # CLIP's own, not 0.5
    assert dense.grid == (7, 7)
    x = ((held_out[:1] / 255 - pooled.mean) / pooled.std).astype(np.float32).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        truth = net.eval().encode_image(torch.from_numpy(x)).numpy()
    assert np.allclose(pooled(held_out[:1]), truth, atol=1e-4)


# Quantised


@pytest.fixture(scope="module")
def tokenizers(
    tmp_path_factory: pytest.TempPathFactory, training: Images, held_out: Images
) -> dict[str, QuantisedFeatures]:
    out = {}
    for kind, codes, groups in (("dense", 64, 1), ("global", 8, 16)):
        folder = tmp_path_factory.mktemp("features") / f"efficientnet-{kind}"
        spec = {"library": "efficientnet-lite0", "kind": kind}
        train_features(spec, training, held_out, folder, f"tok_efficientnet_{kind}@224", codes, groups)
        out[kind] = QuantisedFeatures.load(folder)
    return out


def test_dense_features_are_one_id_a_position(tokenizers: dict[str, QuantisedFeatures], held_out: Images) -> None:
    tokenizer = tokenizers["dense"]
    card = tokenizer.card
    assert isinstance(tokenizer, Tokenizer)
    assert (card.quantiser, card.grid, card.vocabulary, card.dtype) == ("vq", (7, 7), 64, "uint8")
    alone, stack = tokenizer.encode([held_out[1], held_out])
    assert (alone.shape, stack.shape, alone.dtype) == ((7, 7), (len(held_out), 7, 7), np.uint8)
    assert np.array_equal(alone, stack[1])
    assert tokenizer.decode([alone, stack])[1].shape == (len(held_out), 7, 7, 1280)


def test_a_global_feature_is_an_id_of_each_group(tokenizers: dict[str, QuantisedFeatures], held_out: Images) -> None:
    tokenizer = tokenizers["global"]
    assert (tokenizer.card.quantiser, tokenizer.card.grid, tokenizer.card.levels) == ("pq", (16,), [8] * 16)
    alone, stack = tokenizer.encode([held_out[0], held_out])
    assert (alone.shape, stack.shape) == ((16,), (len(held_out), 16))
    assert tokenizer.decode([alone])[0].shape == (1280,)


@pytest.mark.parametrize("kind", ["dense", "global"])
def test_the_cosine_on_the_card_is_that_of_images_not_trained_on(
    tokenizers: dict[str, QuantisedFeatures], held_out: Images, kind: str
) -> None:
    tokenizer = tokenizers[kind]
    (quality,) = tokenizer.card.quality
    truth = unit(tokenizer.encoder(held_out))
    back = np.stack(tokenizer.decode(tokenizer.encode(list(held_out))))
    cosine = (truth * back).sum(-1) / np.linalg.norm(back, axis=-1)
    assert quality.cosine == pytest.approx(cosine.mean(), abs=1e-4)
    assert tokenizer.card.batch_invariance == 0
    # What comes back is nearer to its own image than what comes back of the other photograph.
    other = (truth * back[::-1]).sum(-1) / np.linalg.norm(back[::-1], axis=-1)
    assert cosine.mean() > other.mean() + 0.02


def test_ids_that_are_none_are_refused(tokenizers: dict[str, QuantisedFeatures]) -> None:
    tokenizer = tokenizers["dense"]
    for bad, why in ((np.full((7, 7), 64, np.uint8), "0 <= id < 64"), (np.zeros((6, 7), np.uint8), "expects ids")):
        with pytest.raises(ValueError, match=why):
            tokenizer.decode([bad])
    with pytest.raises(ValueError, match="expects uint8"):
        tokenizer.encode([np.zeros((200, 200, 3), np.uint8)])


def test_a_folder_with_other_codebooks_is_refused(tmp_path: Path, training: Images, held_out: Images) -> None:
    spec = {"library": "efficientnet-lite0", "kind": "global"}
    card = train_features(spec, training[:8], held_out[:2], tmp_path / "a", "tok_global@224", 4, 2)
    again = train_features(spec, training[:8], held_out[:2], tmp_path / "b", "tok_global@224", 4, 2)
    assert card.weights_digest == again.weights_digest  # seeded: the same bytes
    train_features(spec, training[:8], held_out[:2], tmp_path / "c", "tok_global@224", 4, 2, seed=5)
    (tmp_path / "a" / "weights.safetensors").write_bytes((tmp_path / "c" / "weights.safetensors").read_bytes())
    with pytest.raises(CurateError, match="not those of its card"):
        QuantisedFeatures.load(tmp_path / "a")
    with pytest.raises(CurateError, match="kept out"):
        train_features(spec, training[:8], held_out[:0], tmp_path / "d", "tok_global@224", 4, 2)
    with pytest.raises(CurateError, match="one id a position"):
        train_features({**spec, "kind": "dense"}, training[:8], held_out[:2], tmp_path / "d", "tok@224", 4, 2)


# The best k


@pytest.mark.parametrize("kind", ["dense", "global"])
def test_the_first_of_the_best_k_is_the_id(
    tokenizers: dict[str, QuantisedFeatures], held_out: Images, kind: str
) -> None:
    tokenizer = tokenizers[kind]
    (ids,) = tokenizer.encode([held_out[0]])
    ((several, odds),) = tokenizer.encode_topk([held_out[0]], 3, temperature=0.1)
    assert several.shape == odds.shape == (*ids.shape, 3)
    assert np.array_equal(several[..., 0], ids)
    assert (np.diff(odds.astype(float), axis=-1) <= 0).all()
    if kind == "global":
        # each further code lies further off
        x = unit(tokenizer.encoder(held_out[:1]))[0].reshape(16, -1)
        off = [
            ((product_vectors(several[:, i], tokenizer.codebooks).reshape(16, -1) - x) ** 2).sum(-1) for i in range(3)
        ]
        assert (np.diff(np.stack(off), axis=0) >= -1e-5).all()


def test_topk_of_known_scores() -> None:
    # softmax of log 1, log 2, log 5 is 1/8, 2/8, 5/8
    ids, odds = topk(np.log(np.array([[1.0, 2.0, 5.0]])), 2)
    assert ids.tolist() == [[2, 1]]
    assert odds.tolist() == [[0.625, 0.25]]
    assert (ids.dtype, odds.dtype) == (np.uint8, np.float16)
    assert topk(np.zeros((4, 300)), 2)[0].tolist() == [[0, 1]] * 4  # ties to the lower id
    # squares of the odds at half the temperature: 1/30, 4/30, 25/30
    assert topk(np.log(np.array([1.0, 2.0, 5.0])), 1, 0.5)[1][0] == pytest.approx(25 / 30, abs=1e-3)
    for bad, k in ((np.array([0.0, np.nan]), 1), (np.zeros(3), 4)):
        with pytest.raises(ValueError, match="finite scores"):
            topk(bad, k)


@given(hnp.arrays(np.float32, (3, 20), elements=st.floats(-50, 50, width=32)), st.integers(1, 20))
def test_topk_is_the_head_of_the_whole_softmax(scores: NDArray[np.float32], k: int) -> None:
    ids, odds = topk(scores, k)
    every = torch.softmax(torch.from_numpy(scores).double(), -1).numpy()
    assert np.allclose(odds, np.take_along_axis(every, ids.astype(int), -1), atol=1e-3)
    assert all(len(set(row)) == k for row in ids.tolist())
    assert np.allclose(odds.astype(float), -np.sort(-every, -1)[:, :k], atol=1e-3)


# Continuous


@pytest.mark.parametrize("kind", ["dense", "global"])
def test_continuous_features_are_rows_of_float16(tmp_path: Path, held_out: Images, kind: str) -> None:
    card = ContinuousFeatures.make({"library": "efficientnet-lite0", "kind": kind}, tmp_path / kind, "emb@224")
    assert (card.quantiser, card.vocabulary, card.features, card.dtype) == ("none", 0, 1280, "float16")
    tokenizer = ContinuousFeatures.load(tmp_path / kind)
    assert isinstance(tokenizer, Tokenizer)
    alone, stack = tokenizer.encode([held_out[0], held_out[:2]])
    grid = (7, 7) if kind == "dense" else (1,)
    assert (alone.shape, stack.shape, alone.dtype) == ((*grid, 1280), (2, *grid, 1280), np.float16)
    assert np.array_equal(alone, stack[0])
    truth = encoder_of({"library": "efficientnet-lite0", "kind": kind})(held_out[:1]).reshape(*grid, 1280)
    assert np.abs(tokenizer.decode([alone])[0] - truth).max() <= 6 * 2**-11  # half a unit in the last place of 11 bits


def test_another_encoder_than_the_cards_is_refused(tmp_path: Path) -> None:
    ContinuousFeatures.make({"library": "efficientnet-lite0", "kind": "dense"}, tmp_path / "a", "emb@224")
    (tmp_path / "a" / "encoder.json").write_text(json.dumps({"library": "efficientnet-lite0", "kind": "global"}))
    with pytest.raises(CurateError, match="not of efficientnet-lite0 with these weights"):
        ContinuousFeatures.load(tmp_path / "a")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 65520.0, -70000.0])
def test_what_float16_cannot_hold_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="1 of 4 values"):
        to_float16(np.array([0, 65504, bad, 1], np.float32))


# Text


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 of real architecture, tiny and seeded, with a vocabulary of letters."""
    ensure_torchvision()
    from tokenizers.models import Unigram
    from transformers import T5Config, T5ForConditionalGeneration

    from tokenizers import Tokenizer as Pieces

    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((c, -1.0) for c in " abcdefghijklmnopqrstuvwxyz</>")]
    pieces = Pieces(Unigram(letters, unk_id=2))
    pieces.add_special_tokens(["<pad>", "</s>", "<unk>"])
    torch.manual_seed(0)
    config = T5Config(vocab_size=40, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    folder = tmp_path_factory.mktemp("t5")
    T5ForConditionalGeneration(config).save_pretrained(folder)
    pieces.save(str(folder / "tokenizer.json"))
    return folder


def test_captions_become_states_of_t5(t5: Path, tmp_path: Path) -> None:
    from transformers import T5EncoderModel

    card = T5Features.import_checkpoint(str(t5), tmp_path / "t5")
    assert (card.modality, card.quantiser, card.features) == ("text", "none", 16)
    tokenizer = T5Features.load(tmp_path / "t5")
    assert isinstance(tokenizer, Tokenizer)
    one, long, empty = tokenizer.encode(["a cat", "z" * 200, ""])
    assert [x.shape for x in (one, long, empty)] == [(6, 16), (77, 16), (1, 16)]
    assert one.dtype == np.float16
    ids = torch.tensor([[" abcdefghijklmnopqrstuvwxyz".index(c) + 3 for c in "a cat"] + [1]])
    with torch.inference_mode():
        truth = T5EncoderModel.from_pretrained(t5).eval()(input_ids=ids).last_hidden_state[0].numpy()
    assert np.allclose(tokenizer.decode([one])[0], truth, atol=2e-3)


def test_a_caption_cannot_spell_a_special_token(t5: Path, tmp_path: Path) -> None:
    T5Features.import_checkpoint(str(t5), tmp_path / "t5")
    tokenizer = T5Features.load(tmp_path / "t5")
    end, pad, plain, tricky = tokenizer.encode(["a</s>", "<pad>", "1a", "\ufdd01\ufdd0a"])
    assert (len(end), len(pad)) == (6, 6)  # a row a letter, and one for the end mark that we put
    assert np.array_equal(plain, tricky)
    pieces = plain_pieces((t5 / "tokenizer.json").read_bytes())
    assert not {0, 1} & {i for text in ("a</s>", "<pad>", "</s></s>") for i in pieces.encode(text).ids}


def test_what_is_no_t5_is_refused(tmp_path: Path, t5: Path) -> None:
    with pytest.raises(CurateError, match="does not exist"):
        T5Features.import_checkpoint(str(tmp_path / "none"), tmp_path / "out")
    T5Features.import_checkpoint(str(t5), tmp_path / "t5")
    (tmp_path / "t5" / "tokenizer.json").write_text("{}")
    with pytest.raises(CurateError, match="not those of its card"):
        T5Features.load(tmp_path / "t5")


def test_the_encoder_has_its_documented_range(held_out: Images) -> None:
    found = EfficientNetEncoder("dense")(held_out[:1])
    assert found.min() >= 0
    assert found.max() <= 6


def test_topk_streams_are_two_folders_over_one_codebook(training: Images, held_out: Images, tmp_path: Path) -> None:
    spec = {"library": "efficientnet-lite0", "kind": "dense"}
    train_features(spec, training[:8], held_out[:2], tmp_path / "dense", "tok@224", 16)
    ids_folder, odds_folder = write_topk(tmp_path / "dense", 3, temperature=0.1)
    ids, odds = zoo.load(str(ids_folder)), zoo.load(str(odds_folder))
    assert isinstance(ids, Tokenizer)
    assert isinstance(odds, Tokenizer)
    assert (ids.card.grid, ids.card.vocabulary, odds.card.features, odds.card.dtype) == ((7, 7, 3), 16, 3, "float16")
    assert ids.card.batch_invariance == odds.card.batch_invariance == 0
    plain = QuantisedFeatures.load(tmp_path / "dense")
    [(want_ids, want_odds)] = plain.encode_topk([held_out[0]], 3, 0.1)
    np.testing.assert_array_equal(ids.encode([held_out[0]])[0], want_ids)
    np.testing.assert_array_equal(odds.encode([held_out[0]])[0], want_odds)
    np.testing.assert_array_equal(ids.decode([want_ids])[0], plain.decode(plain.encode([held_out[0]]))[0])
    for k, temperature in ((0, 1.0), (17, 1.0), (3, 0.0)):
        with pytest.raises(CurateError, match="give k from 1 to 16"):
            write_topk(tmp_path / "dense", k, temperature)
    train_features(spec | {"kind": "global"}, training, held_out[:2], tmp_path / "global", "tok_global@224", 8, 16)
    with pytest.raises(CurateError, match="of dense features"):
        write_topk(tmp_path / "global", 3)
