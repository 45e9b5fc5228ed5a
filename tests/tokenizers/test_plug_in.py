"""A modality of one's own: the example tokenizer of multi-channel rasters, by name as a recipe would have it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError
from skimage import data
from skimage.color import rgb2hed

from curate.schema.fields import Resources
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.builtin import ARCHITECTURES, COSTS
from curate.tokenizers.custom_card import custom_card
from curate.tokenizers.evaluate import evaluate_folder

NAME = "raster_tokenizer:RasterTokenizer"


@pytest.fixture
def tokenizer(monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    return zoo.load(NAME)


@pytest.fixture(scope="module")
def stains() -> NDArray[np.uint16]:
    """Tissue under a microscope in six channels: red, green, blue, and the stains haematoxylin, eosin and DAB."""
    image = data.immunohistochemistry()[128:256, 128:256]
    found = np.clip(rgb2hed(image) / [0.1, 0.1, 0.4], 0, 1)
    return np.concatenate([image * np.uint16(257), (found * 65535).astype(np.uint16)], -1).transpose(2, 0, 1).copy()


def test_the_card_says_what_it_is(tokenizer: Tokenizer) -> None:
    card = zoo.card(NAME)
    assert (card.modality, card.channels, card.vocabulary, card.dtype) == ("array", 6, 64000, "uint16")
    assert card.grid == (32, 32)


def test_a_card_needs_input_vocabulary_and_grid_alone() -> None:
    card = custom_card("tiles", input="uint8 (8, 8)", vocabulary=300, grid=(2, 2), made_of={"weights": 1})
    assert (card.modality, card.stream, card.dtype, card.grid) == ("array", "tok_tiles", "uint16", (2, 2))
    other = custom_card("tiles", input="uint8 (8, 8)", vocabulary=300, grid=(2, 2), made_of={"weights": 2})
    assert card.weights_digest != other.weights_digest
    with pytest.raises(ValidationError, match="bit_ordr"):
        custom_card("tiles", input="", vocabulary=300, grid=(2, 2), made_of=1, bit_ordr="lsb")


def test_a_raster_of_six_channels_comes_back(tokenizer: Tokenizer, stains: NDArray[np.uint16]) -> None:
    (ids,) = tokenizer.encode([stains])
    assert (ids.shape, ids.dtype) == ((6, 32, 32), np.uint16)
    assert int(ids.max()) < tokenizer.card.vocabulary
    (back,) = tokenizer.decode([ids])
    assert (back.shape, back.dtype) == (stains.shape, np.uint16)
    error = ((back.astype(float) - stains) / 65535) ** 2
    assert (-10 * np.log10(error.mean((1, 2))) > 26).all()


def test_no_id_mixes_channels(tokenizer: Tokenizer, stains: NDArray[np.uint16]) -> None:
    other = stains.copy()
    other[2] = 0
    (a,), (b,) = tokenizer.encode([stains]), tokenizer.encode([other])
    assert np.flatnonzero((a != b).any((1, 2))).tolist() == [2]


def test_a_flat_channel_is_off_by_one_level_at_most(tokenizer: Tokenizer) -> None:
    flat = np.broadcast_to(np.array([0, 9000, 30000, 50000, 65535, 33333], np.uint16)[:, None, None], (6, 128, 128))
    (back,) = tokenizer.decode(tokenizer.encode([flat]))
    assert np.abs(back.astype(int) - flat).max() <= 65536 / 64 + 1


def test_another_shape_or_dtype_is_refused(tokenizer: Tokenizer, stains: NDArray[np.uint16]) -> None:
    for bad in (stains[:5], stains.astype(np.float32), stains[:, :64]):
        with pytest.raises(ValueError, match="expected uint16"):
            tokenizer.encode([bad])


def test_a_folder_of_npy_is_measured_and_hostile_files_are_skipped_with_a_reason(
    tokenizer: Tokenizer, stains: NDArray[np.uint16], tmp_path: Path
) -> None:
    np.save(tmp_path / "good.npy", stains)
    np.save(tmp_path / "fortran.npy", np.asfortranarray(stains.astype(">u2")))
    np.save(tmp_path / "shape.npy", stains[:5])
    np.save(tmp_path / "dtype.npy", np.full(stains.shape, np.nan, np.float32))
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    whole = (tmp_path / "good.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-1])
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "|u1", "fortran_order": False, "shape": (1 << 40,)})
    (tmp_path / "huge.npy").write_bytes(huge.getvalue())
    measured = evaluate_folder(tokenizer, tmp_path)
    assert (measured.quality.items, measured.quality.ids_per_item) == (2, 6 * 32 * 32)
    said = dict(measured.skipped)
    assert set(said) == {"shape.npy", "dtype.npy", "pickled.npy", "cut.npy", "huge.npy"}
    assert "expected uint16" in said["shape.npy"]
    assert "expected uint16" in said["dtype.npy"]
    assert "pickled Python objects, which are never read" in said["pickled.npy"]
    assert "but holds" in said["cut.npy"]
    assert f"{1 << 40} bytes by its header, more than" in said["huge.npy"]


def test_masks_of_the_zoo_are_measured_and_nan_is_refused(tmp_path: Path) -> None:
    mask = np.zeros((64, 64, 1), np.float32)
    mask[16:48, 16:48] = 1
    np.save(tmp_path / "mask.npy", mask)
    np.save(tmp_path / "nan.npy", np.full_like(mask, np.nan))
    measured = evaluate_folder(zoo.load("mask-vq-1k"), tmp_path)
    assert (measured.quality.items, measured.quality.ids_per_item) == (1, 16)
    ((name, reason),) = measured.skipped
    assert name == "nan.npy"
    assert "nothing between" in reason


class Placed:
    """A tokenizer that can be told where it runs, and says what that takes."""

    cost = Resources(gpus=0.5, batch=16, dtypes=("float32", "bfloat16"), model=True)

    def __init__(self, device: str = "cpu", batch: int = 16) -> None:
        self.card = custom_card("placed", input="uint8 (8, 8)", vocabulary=2, grid=(1, 1), made_of="1")
        self.device, self.batch = device, batch

    def encode(self, items: Sequence[Any]) -> list[NDArray[np.generic]]:
        return [np.zeros((1, 1), np.uint8) for _ in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[Any]:
        return [np.zeros((8, 8), np.uint8) for _ in ids]


def test_one_of_ones_own_says_its_cost_and_is_told_where_it_runs() -> None:
    name = "test_plug_in:Placed"
    assert zoo.cost(name) == Placed.cost
    made = zoo.load(name, device="cuda", dtype="bfloat16", batch=4)
    assert isinstance(made, Placed)
    assert (made.device, made.batch) == ("cuda", 4)
    made = zoo.load(name)
    assert isinstance(made, Placed)
    assert (made.device, made.batch) == ("cpu", 16)


def test_one_that_says_no_cost_stays_beside_the_decoder(tokenizer: Tokenizer) -> None:
    assert zoo.cost(NAME) == Resources()


def test_the_cost_of_each_architecture_is_known_without_its_network() -> None:
    assert set(COSTS) == set(ARCHITECTURES)
    assert [zoo.cost(zoo.DEFAULTS[m]).gpus for m in ("image", "video", "audio", "text")] == [0.25, 0.25, 0.25, 0]
    assert not [name for name, cost in COSTS.items() if cost.gpus and not cost.model]
