"""The image tokenizer: its ids against their specification, its weights against their card, its trainer."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.image_fsq import ImageFSQ, ImageFSQShape
from curate.tokenizers.measures.files import square
from curate.tokenizers.measures.image import evaluate_images
from curate.tokenizers.quantisers.fsq import fsq_ids
from curate.training.fsq import ImageConfig

FOLDER = Path(__file__).parents[3] / "tokenizers" / "image-fsq-64k"
SHIPPED = sorted(card.parent for card in FOLDER.parent.glob("image-fsq-*/card.json"))
LEVELS = [8, 8, 8, 5, 5, 5]


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
def images(held_out: list[Path]) -> NDArray[np.uint8]:
    return np.stack([square(p, 256) for p in held_out])


# The shipped weights


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_round_trip_is_what_the_card_says(folder: Path, held_out: list[Path]) -> None:
    tokenizer = ImageFSQ.load(folder)
    quality, said = evaluate_images(tokenizer, held_out), tokenizer.card.quality[0]
    assert said.psnr_db is not None
    assert said.ids_per_item is not None
    assert said.psnr_db > {1024: 24, 256: 21}[int(said.ids_per_item)]
    assert quality.psnr_db == pytest.approx(said.psnr_db, abs=0.3)
    assert said.ssim is not None
    assert quality.ssim == pytest.approx(said.ssim, abs=0.01)
    assert said.items == quality.items == 8
    assert quality.ids_per_item == said.ids_per_item
    assert (folder / "weights.safetensors").stat().st_size <= 12_000_000


def test_ids_are_uint16_in_range_and_follow_the_specification(tokenizer: ImageFSQ, images: NDArray[np.uint8]) -> None:
    assert isinstance(tokenizer, Tokenizer)
    [stack] = tokenizer.encode([images])
    assert stack.dtype == np.uint16 == tokenizer.card.numpy_dtype
    assert stack.shape == (8, 32, 32)
    assert stack.max() < tokenizer.card.vocabulary == 64000
    with torch.inference_mode():
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        z = tokenizer.net.latent(x).permute(0, 2, 3, 1).contiguous().numpy()
    assert np.mean(fsq_ids(z, LEVELS) != stack) < 1e-3  # two tanh differ in the last bit, once in a long while


def test_ids_do_not_depend_on_neighbours(tokenizer: ImageFSQ, images: NDArray[np.uint8]) -> None:
    alone = [tokenizer.encode([p])[0] for p in images]
    sixteen = tokenizer.encode([images[:3], images[3], np.concatenate([images, images[4:]])])
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
def test_bad_images_are_refused(tokenizer: ImageFSQ, item: Any) -> None:
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


# Measuring and training


# From a file to an image


def test_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(CurateError, match="cannot cover 12"):
        ImageFSQShape(patch=12)
    with pytest.raises(ValueError, match="crop 72 is not a multiple of patch 16"):
        ImageConfig(crop=72, patch=16)


@pytest.mark.parametrize("levels", [(17,) * 6, (), (2, 8), (64,) * 6])
def test_levels_whose_ids_would_be_wrong_are_refused(levels: tuple[int, ...]) -> None:
    """Beyond 2^24 the library's sum of digits in fp32 is not exact (law 8)."""
    with pytest.raises(CurateError, match="cannot be"):
        ImageFSQShape(levels=levels)
