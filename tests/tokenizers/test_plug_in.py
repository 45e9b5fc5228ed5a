"""A modality of one's own: the example tokenizer of multi-channel rasters, by name as a recipe would have it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data
from skimage.color import rgb2hed

from curate.schema.errors import CurateError
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.views import view_of

NAME = "raster_tokenizer:RasterTokenizer"


@pytest.fixture
def tokenizer(monkeypatch: pytest.MonkeyPatch) -> Tokenizer:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "examples"))
    return zoo.load(NAME)


@pytest.fixture(scope="module")
def stains() -> NDArray[np.uint16]:
    """Tissue under a microscope in six channels: red, green, blue, and the stains haematoxylin, eosin and DAB."""
    picture = data.immunohistochemistry()[128:256, 128:256]
    found = np.clip(rgb2hed(picture) / [0.1, 0.1, 0.4], 0, 1)
    return np.concatenate([picture * np.uint16(257), (found * 65535).astype(np.uint16)], -1).transpose(2, 0, 1).copy()


def test_the_card_says_what_it_is(tokenizer: Tokenizer) -> None:
    card = zoo.card(NAME)
    assert (card.modality, card.channels, card.vocabulary, card.dtype) == ("array", 6, 64000, "uint16")
    assert card.grid == (32, 32)


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


def test_a_recipe_with_it_is_refused_before_anything_runs(tokenizer: Tokenizer) -> None:
    """No source gives rasters, and a stream that is null for every sample would be a silent loss."""
    with pytest.raises(CurateError, match="no source gives samples that are arrays"):
        view_of(tokenizer.card)
