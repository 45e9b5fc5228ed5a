"""The adapter of a VQ-VAE: published weights on photographs, and its arithmetic on weights of any kind."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.vqvae import VQVAE, VQVAENet
from curate.tokenizers.measures.image import evaluate_images

SMALL = {"codes": 300, "length": 6, "width": 8, "narrow": 4, "blocks": 3}


def photographs() -> list[Path]:
    wanted = {
        "skimage": ["data/astronaut.png", "data/chelsea.png", "data/coffee.png", "data/rocket.jpg"],
        "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
    }
    found: list[Path] = []
    for name, files in wanted.items():
        spec = importlib.util.find_spec(name)
        assert spec
        assert spec.submodule_search_locations
        found += [Path(spec.submodule_search_locations[0]) / file for file in files]
    return found


@pytest.fixture(scope="module")
def published() -> Path:
    beside = Path(__file__).parents[4] / "shared" / "weights"
    path = Path(os.environ.get("CURATE_TEST_WEIGHTS", beside)) / "vqvae-512x128-f4.safetensors"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in CURATE_TEST_WEIGHTS or ../shared/weights")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of seeded weights under the publisher's names."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("published") / "vqvae-small.safetensors"
    save_file(VQVAENet(**SMALL).state_dict(), path)
    return path


@pytest.fixture
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def test_published_weights_give_photographs_back(published: Path, tmp_path: Path) -> None:
    card = VQVAE.import_checkpoint(str(published), tmp_path / "vqvae-f4")
    tokenizer = VQVAE.load(tmp_path / "vqvae-f4")
    assert (card.vocabulary, card.dtype, card.grid) == (512, "uint16", (64, 64))
    assert card.parameters == 973_443
    quality = evaluate_images(tokenizer, photographs())
    # Mean of these six; a residual that adds x in place of relu(x) gives 3.5 dB less.
    assert quality.psnr_db == pytest.approx(26.24, abs=0.05)
    assert quality.ids_per_item == 64 * 64


def test_sizes_are_read_from_the_tensors(small: Path, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
    card = VQVAE.import_checkpoint(str(small.parent), tmp_path / "mine", size=32)
    assert (card.name, card.vocabulary, card.grid, card.input_size) == ("mine", 300, (8, 8), 32)
    assert card.preprocessing is not None
    assert (card.preprocessing.mean, card.preprocessing.std) == ([0.5] * 3, [1.0] * 3)
    tokenizer = VQVAE.load(tmp_path / "mine")
    assert isinstance(tokenizer, Tokenizer)
    stack, alone = tokenizer.encode([noise, noise[3]])
    assert stack.dtype == np.uint16
    assert stack.shape == (5, 8, 8)
    assert np.array_equal(stack[3], alone)
    [back] = tokenizer.decode([stack])
    assert back.dtype == np.uint8
    assert back.shape == noise.shape


def test_each_id_is_that_of_the_nearest_code(small: Path, tmp_path: Path, noise: NDArray[np.uint8]) -> None:
    VQVAE.import_checkpoint(str(small), tmp_path / "mine", size=32)
    tokenizer = VQVAE.load(tmp_path / "mine")
    [ids] = tokenizer.encode([noise[0]])
    net = tokenizer.net
    assert isinstance(net, VQVAENet)
    with torch.inference_mode():
        x = torch.from_numpy(noise[:1]).permute(0, 3, 1, 2).float() / 255 - 0.5
        z = net.pre_vq_conv(net.encoder(x))[0].permute(1, 2, 0).double().numpy()
    distance = ((z[:, :, None] - net.codebook.detach().double().numpy()) ** 2).sum(-1)
    least = np.sort(distance, -1)
    clear = least[..., 1] - least[..., 0] > 1e-6 * least[..., 0]
    assert clear.mean() > 0.9
    assert np.array_equal(distance.argmin(-1)[clear], ids[clear])


def test_what_does_not_fit_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="multiple of 4"):
        VQVAE.import_checkpoint(str(small), tmp_path / "odd", size=30)
    save_file({"encoder.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(CurateError, match=r"vq_vae.codebook.weight is missing"):
        VQVAE.import_checkpoint(str(tmp_path / "other.safetensors"), tmp_path / "odd")
    VQVAE.import_checkpoint(str(small), tmp_path / "mine", size=32)
    with pytest.raises(ValueError, match=r"expects uint8 \(32, 32, 3\)"):
        VQVAE.load(tmp_path / "mine").encode([np.zeros((64, 64, 3), np.uint8)])
    with pytest.raises(ValueError, match="300"):
        VQVAE.load(tmp_path / "mine").decode([np.full((8, 8), 300, np.uint16)])
