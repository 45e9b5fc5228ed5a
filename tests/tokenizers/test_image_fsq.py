"""The image tokenizer: its ids against their specification, its weights against their card, its trainer."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from vector_quantize_pytorch import FSQ

from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.image.card import write_image_card
from curate.tokenizers.image.evaluate import evaluate_images, score, square
from curate.tokenizers.image.fsq import ImageFSQ, net_from_bytes
from curate.tokenizers.image.media import crops, find_media, read_pool
from curate.tokenizers.image.train import ImageTrainConfig, loss_of, train_image
from curate.tokenizers.quantisers.fsq import fsq_codes, fsq_ids

FOLDER = Path(__file__).parents[2] / "tokenizers" / "image-fsq-64k"
LEVELS = [8, 8, 8, 5, 5, 5]
LEVEL_SETS = [LEVELS, [8, 5, 5, 5], [3, 3], [4], [7, 6, 5, 4, 3], [16, 15, 2 + 1]]


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@pytest.fixture(scope="module")
def held_out() -> list[Path]:
    found = [package("skimage") / "data" / n for n in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")]
    found += [package("skimage") / "data" / "motorcycle_left.png"]
    found += [package("sklearn") / "datasets" / "images" / n for n in ("china.jpg", "flower.jpg")]
    return [*found, package("matplotlib") / "mpl-data" / "sample_data" / "grace_hopper.jpg"]


@pytest.fixture(scope="module")
def tokenizer() -> ImageFSQ:
    return ImageFSQ.load(FOLDER)


@pytest.fixture(scope="module")
def pictures(held_out: list[Path]) -> NDArray[np.uint8]:
    return np.stack([square(p, 256) for p in held_out])


# The specification


@settings(deadline=None, max_examples=150)
@given(data=st.data(), levels=st.sampled_from(LEVEL_SETS))
def test_ids_and_codes_are_those_of_the_library(data: st.DataObject, levels: list[int]) -> None:
    floats = st.floats(-6, 6, width=32, allow_subnormal=False)
    z = data.draw(hnp.arrays(np.float32, (7, len(levels)), elements=floats))
    count = np.asarray(levels)
    half, offset = (count - 1) * 1.001 / 2, (1 - count % 2) / 2
    real = np.tanh(z.astype(np.float64) + np.arctanh(offset / half)) * half - offset
    z[np.abs(real - np.floor(real) - 0.5) < 1e-5] = 0  # at a tie the last bit of tanh decides, and there are many tanh
    codes, ids = FSQ(levels=levels)(torch.from_numpy(z)[None])
    mine = fsq_ids(z, levels)
    assert np.array_equal(mine, ids[0].numpy())
    assert np.array_equal(fsq_codes(mine, levels), codes[0].numpy())
    assert mine.min() >= 0
    assert mine.max() < count.prod()


def test_all_64000_ids_are_bijective() -> None:
    ids = np.arange(64000, dtype=np.uint16)
    codes = fsq_codes(ids, LEVELS)
    library = FSQ(levels=LEVELS)
    assert np.unique(codes, axis=0).shape == (64000, 6)
    assert np.array_equal(library.codes_to_indices(torch.from_numpy(codes)).numpy(), ids)
    # Latents in the middle of each cell give the very ids back, the largest of which int16 could not hold.
    count = np.asarray(LEVELS)
    half, offset = (count - 1) * 1.001 / 2, (1 - count % 2) / 2
    z = np.arctanh((codes * (count // 2) + offset) / half) - np.arctanh(offset / half)
    back = fsq_ids(z.astype(np.float32), LEVELS)
    assert back.dtype == np.uint16
    assert np.array_equal(back, ids)


@pytest.mark.parametrize("levels", [[], [2, 8], [8, 1001]])
def test_levels_that_fsq_cannot_have_are_refused(levels: list[int]) -> None:
    with pytest.raises(ValueError, match="levels"):
        fsq_codes(np.zeros(1, np.uint8), levels)


def test_specification_refuses_what_is_not_a_latent_or_an_id() -> None:
    for z in (np.zeros(6), np.full(6, np.nan, np.float32), np.zeros(5, np.float32), np.float32(0) * np.zeros(())):
        with pytest.raises(ValueError, match="float32"):
            fsq_ids(z, LEVELS)  # type: ignore[arg-type]
    for ids in (np.array([64000]), np.array([-1]), np.array([0.0])):
        with pytest.raises(ValueError, match="64000"):
            fsq_codes(ids, LEVELS)


# The shipped weights


def test_round_trip_is_what_the_card_says(tokenizer: ImageFSQ, held_out: list[Path]) -> None:
    quality, said = evaluate_images(tokenizer, held_out), tokenizer.card.quality[0]
    assert said.psnr_db is not None
    assert quality.psnr_db == pytest.approx(said.psnr_db, abs=0.3)
    assert said.ssim is not None
    assert quality.ssim == pytest.approx(said.ssim, abs=0.01)
    assert said.items == quality.items == 8


def test_ids_are_uint16_in_range_and_follow_the_specification(tokenizer: ImageFSQ, pictures: NDArray[np.uint8]) -> None:
    assert isinstance(tokenizer, Tokenizer)
    [stack] = tokenizer.encode([pictures])
    assert stack.dtype == np.uint16 == tokenizer.card.numpy_dtype
    assert stack.shape == (8, 32, 32)
    assert stack.max() < tokenizer.card.vocabulary == 64000
    with torch.inference_mode():
        x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        z = tokenizer.net.latent(x).permute(0, 2, 3, 1).contiguous().numpy()
    assert np.mean(fsq_ids(z, LEVELS) != stack) < 1e-3  # two tanh differ in the last bit, once in a long while


def test_ids_do_not_depend_on_neighbours(tokenizer: ImageFSQ, pictures: NDArray[np.uint8]) -> None:
    alone = [tokenizer.encode([p])[0] for p in pictures]
    sixteen = tokenizer.encode([pictures[:3], pictures[3], np.concatenate([pictures, pictures[4:]])])
    assert [i.shape for i in sixteen] == [(3, 32, 32), (32, 32), (12, 32, 32)]
    assert np.array_equal(sixteen[0], alone[:3])
    assert np.array_equal(sixteen[1], alone[3])
    assert np.array_equal(sixteen[2], [*alone, *alone[4:]])
    assert tokenizer.card.batch_invariance == 0
    again = tokenizer.decode([alone[5], np.stack(alone)])
    assert np.array_equal(again[0], again[1][5])
    assert again[1].dtype == np.uint8


def test_nothing_and_empty_stacks(tokenizer: ImageFSQ) -> None:
    assert tokenizer.encode([]) == [] == tokenizer.decode([])
    [none] = tokenizer.encode([np.zeros((0, 256, 256, 3), np.uint8)])
    assert none.shape == (0, 32, 32)
    assert none.dtype == np.uint16
    assert tokenizer.decode([none])[0].shape == (0, 256, 256, 3)


@pytest.mark.parametrize(
    "item",
    [
        np.full((256, 256, 3), np.nan, np.float32),
        np.zeros((256, 256, 3)),
        np.zeros((255, 256, 3), np.uint8),
        np.zeros((3, 256, 256), np.uint8),
        np.zeros((256, 256, 4), np.uint8),
        np.zeros((1, 1, 256, 256, 3), np.uint8),
        "a path",
    ],
)
def test_bad_pictures_are_refused(tokenizer: ImageFSQ, item: Any) -> None:
    with pytest.raises(ValueError, match=r"expects uint8 \(256, 256, 3\)"):
        tokenizer.encode([np.zeros((256, 256, 3), np.uint8), item])


@pytest.mark.parametrize(
    "ids",
    [np.full((32, 32), 64000, np.uint16), np.full((32, 32), -1), np.zeros((32, 32)), np.zeros((32, 31), np.uint16)],
)
def test_bad_ids_are_refused(tokenizer: ImageFSQ, ids: NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="ids"):
        tokenizer.decode([ids])


def test_other_weights_than_the_cards_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "image-fsq-64k"
    shutil.copytree(FOLDER, folder)
    raw = bytearray((folder / "weights.safetensors").read_bytes())
    raw[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(raw)
    with pytest.raises(CurateError, match="not those of its card"):
        ImageFSQ.load(folder)
    (folder / "weights.safetensors").unlink()
    with pytest.raises(CurateError, match="cannot be read"):
        ImageFSQ.load(folder)


def test_the_config_that_ships_trains_on_nothing_that_is_evaluated(held_out: list[Path]) -> None:
    config = ImageTrainConfig.read(FOLDER / "train.yaml")
    found = {f for source in config.media for f in find_media(source, Path("/usr/share"))}
    assert len(found) > 20
    assert not found & set(held_out)
    assert not any(f.name == "motorcycle_right.png" for f in found)  # shows what motorcycle_left shows
    assert config.levels == tuple(LEVELS)


# Measuring and training


def test_score_of_known_pictures() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    assert score(flat, flat).psnr_db == 100
    assert score(flat, flat).ssim == 1
    assert score(flat + np.uint8(16), flat).psnr_db == pytest.approx(20 * np.log10(255 / 16))


def test_training_lowers_the_loss_and_resumes_to_the_same_weights(tmp_path: Path, held_out: list[Path]) -> None:
    media = [package("skimage") / "data" / n for n in ("ihc.png", "color.png", "hubble_deep_field.jpg", "gravel.png")]
    config = ImageTrainConfig(
        steps=30, batch=8, crop=64, width=32, encoder_blocks=1, decoder_blocks=1, refine_width=16, refine_blocks=1,
        learning_rate=2e-3, log_every=10, checkpoint_every=10, short_sides=(160, 256),
    )  # fmt: skip
    quiet: list[str] = []
    straight = train_image(config, media, tmp_path / "straight", say=quiet.append)
    begun = train_image(config, media, tmp_path / "halves", say=quiet.append, stop_at=1).read_bytes()
    train_image(config, media, tmp_path / "halves", say=quiet.append, stop_at=14)
    halves = train_image(config, media, tmp_path / "halves", say=quiet.append)
    assert straight.read_bytes() == halves.read_bytes()

    sample = crops(read_pool(config, media, Path()), config, 1 << 20)
    with torch.inference_mode():
        before, after = (loss_of(net_from_bytes(w)(sample), sample, 0.1)[0] for w in (begun, halves.read_bytes()))
    assert after < before
    assert [json.loads(line)["step"] for line in (straight.parent / "log.jsonl").open()] == [10, 20, 30]

    card = write_image_card(straight, tmp_path / "mine", held_out[:2])
    assert card.quality[0].items == 2
    assert card.trained_on == "media of the user"
    assert (tmp_path / "mine" / "strip.png").exists()
    assert ImageFSQ.load(tmp_path / "mine").card == card

    other = config.model_copy(update={"learning_rate": 1e-3})
    with pytest.raises(CurateError, match="another config"):
        train_image(other, media, tmp_path / "halves", say=quiet.append)


def test_training_on_nothing_says_so(tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"not a picture")
    (tmp_path / "broken.mp4").write_bytes(b"not a video")
    with pytest.raises(CurateError, match="no picture"):
        train_image(ImageTrainConfig(steps=1), [tmp_path], tmp_path / "out")
