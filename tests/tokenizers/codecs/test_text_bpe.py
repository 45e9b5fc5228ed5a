"""The text tokenizer: lossless on any text, and no text can spell a special token."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.schema.errors import CurateError
from curate.schema.package_data import data_folder
from curate.tokenizers import zoo
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.codecs.text_bpe import OFFSET, SPECIAL, TextBPE, bytes_per_token
from curate.tokenizers.evaluate import evaluate_folder

FOLDER = data_folder("tokenizers") / "text-bpe-8k"
BPE = TextBPE.load(FOLDER)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
@example("")
@example(" two  spaces, a tab\t, CRLF\r\n, NUL \x00 and DEL \x7f ")
@example("e\u0301 is not \u00e9, \ufb01 is not fi, \ufeff is a mark, \ufffd is a character")
@example("👩‍👩‍👧‍👦 🇫🇷 café Tiếng Việt שלום مرحبا \u202eRTL\u202c 日本語 \U0010ffff")
@example("[EOS][S_0]<|endoftext|></s>[PAD] [MASK]Ġ")
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_and_gives_no_special_id(text: str) -> None:
    (ids,) = BPE.encode([text])
    assert ids.dtype == np.uint16
    assert ids.ndim == 1
    assert BPE.decode([ids]) == [text]
    assert not ids.size or (int(ids.min()) >= OFFSET and int(ids.max()) < BPE.card.vocabulary)


def test_every_byte_sequence_of_utf8_has_ids() -> None:
    every = "".join(chr(c) for c in range(0x3000)) + "".join(chr(c) for c in range(0x1F000, 0x1FB00))
    (ids,) = BPE.encode([every])
    assert BPE.decode([ids]) == [every]


@pytest.mark.parametrize("token", sorted(SPECIAL))
def test_a_caption_cannot_spell_a_special_token(token: str) -> None:
    for text in (token, f"a dog {token}", f"{token}{token}"):
        assert int(BPE.encode([text])[0].min()) >= OFFSET


def test_special_ids_are_distinct_and_below_the_offset() -> None:
    assert BPE.card.special_tokens == SPECIAL
    assert sorted(SPECIAL.values()) == list(range(len(SPECIAL)))
    assert len(SPECIAL) <= OFFSET


def test_it_is_a_tokenizer_and_its_card_is_true() -> None:
    assert isinstance(BPE, Tokenizer)
    assert BPE.card.vocabulary == 8192
    assert BPE.card.quality
    assert all(q.lossless for q in BPE.card.quality)
    assert bytes_per_token(BPE, ["A brown dog runs along the beach.", "Two people ride bicycles in the city."]) > 3


def test_items_do_not_depend_on_their_neighbours() -> None:
    texts = ["a dog", "", "un chien", "犬" * 50]
    for alone, together in zip((BPE.encode([t])[0] for t in texts), BPE.encode(texts), strict=True):
        np.testing.assert_array_equal(alone, together)


@pytest.mark.parametrize("bad", ["\ud800", "ok \udfff", b"bytes", None, 3])
def test_what_is_not_text_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"text must be|surrogate"):
        BPE.encode(["fine", bad])  # type: ignore[list-item]


@pytest.mark.parametrize(
    "bad",
    [
        np.array([0], np.uint16),
        np.array([OFFSET - 1, OFFSET], np.uint16),
        np.array([8192], np.uint16),
        np.array([200.0]),
        np.array([[200]], np.uint16),
    ],
)
def test_ids_that_are_not_text_are_refused(bad: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(ValueError, match="ids must be"):
        BPE.decode([bad])


def test_lengths_have_no_meaning() -> None:
    with pytest.raises(ValueError, match="no meaning"):
        BPE.decode([np.array([200], np.uint16)], [1])


def test_ids_of_half_a_character_decode_to_the_replacement() -> None:
    (ids,) = BPE.encode(["\U0001fae8"])
    assert len(ids) > 1
    assert "\ufffd" in BPE.decode([ids[:1]])[0]


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(FOLDER, folder)
    TextBPE.load(folder)
    raw = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(raw.replace(b'"add_prefix_space":false', b'"add_prefix_space":true '))
    with pytest.raises(CurateError, match="not those of its card"):
        TextBPE.load(folder)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CurateError, match="cannot be read"):
        TextBPE.load(folder)


def test_a_text_without_words_can_be_measured(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("")
    measured = evaluate_folder(zoo.load("text-bpe-8k"), tmp_path)
    assert (measured.quality.items, measured.quality.ids_per_item) == (1, 0)
