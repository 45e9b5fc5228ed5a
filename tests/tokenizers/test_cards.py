"""Every card in the zoo says what a user of its ids must know."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.schema.codec import smallest_unsigned
from curate.schema.errors import CurateError
from curate.tokenizers import zoo
from curate.tokenizers.folders import read_card
from curate.tokenizers.inputs import ARRAY_INPUT, AUDIO_INPUT, IMAGE_INPUT

ZOO = sorted(path.parent for path in (Path(__file__).parents[2] / "tokenizers").glob("*/card.json"))
CONTRACTS = {"image": IMAGE_INPUT, "video": IMAGE_INPUT, "audio": AUDIO_INPUT, "array": ARRAY_INPUT}


@pytest.mark.parametrize("folder", ZOO, ids=lambda folder: folder.name)
def test_a_card_leaves_nothing_open(folder: Path) -> None:
    card = read_card(folder)
    assert card.name == folder.name
    for field in ("stream", "quantiser", "index_order", "input", "chunking", "padding", "valid_length", "licence"):
        assert getattr(card, field), field
    assert len(card.weights_digest) == 64
    assert card.code_version.startswith("curate-tokens ")
    assert card.trained_on
    assert card.dtype == smallest_unsigned(card.vocabulary)
    assert card.batch_invariance == 0.0
    assert card.quality
    assert all(figure.media and figure.items for figure in card.quality)
    contract = IMAGE_INPUT if card.needs else CONTRACTS.get(card.modality, "")
    assert contract in card.input
    if card.modality in ("image", "video"):
        assert card.grid
        assert card.preprocessing is not None
        assert card.preprocessing.resample == "lanczos"
    if card.modality == "audio":
        assert card.rate_hz == 50
        assert card.sample_rate == 16000
    if "fsq" in card.architecture or card.modality == "audio":
        assert card.bf16_difference is not None


def test_ids_of_a_build_are_decoded_by_the_tokenizer_that_made_them_only() -> None:
    made = read_card(ZOO[0].parent / "color-palette")
    assert zoo.of_card(made).card == made
    retrained = made.model_copy(update={"weights_digest": "0" * 64})
    with pytest.raises(CurateError, match="is not the color-palette that made these ids"):
        zoo.of_card(retrained)
