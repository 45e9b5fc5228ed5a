"""The vocabularies of 4M's streams: exact both ways, with 4M's own ids, and closed to special words in text."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from curate.exports.fourm import caption
from curate.exports.fourm.wordpiece import WordPiece4M
from curate.exports.fourm.words import (
    FIRST_WORD,
    KEYWORDS,
    OBJECTS,
    SHARED,
    SPECIAL,
    VOCABULARY,
    WordsTokenizer,
    split,
)
from curate.schema.errors import CurateError
from curate.tokenizers.base import Tokenizer
from tokenizers import Tokenizer as HuggingFaceTokenizer

NAME = "text_tokenizer_4m_wordpiece_30k.json"
WORDS = WordsTokenizer()


@pytest.fixture(scope="module")
def published() -> Path:
    shared = Path(__file__).resolve().parents[3] / "shared" / "weights"
    path = Path(os.environ.get("CURATE_TEST_WEIGHTS", shared)) / NAME
    if not path.is_file():
        pytest.skip(f"{NAME} is not in CURATE_TEST_WEIGHTS or ../shared/weights")
    return path


@pytest.fixture(scope="module")
def theirs(published: Path) -> HuggingFaceTokenizer:
    """As ml-4m reads it, with special words found in text."""
    return HuggingFaceTokenizer.from_file(str(published))


@pytest.fixture(scope="module")
def folder(published: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("zoo") / "text-4m"
    WordPiece4M.import_checkpoint(str(published), made)
    return made


@pytest.fixture(scope="module")
def pieces(folder: Path) -> WordPiece4M:
    return WordPiece4M.load(folder)


# the closed vocabulary


def test_the_layout_is_4ms(theirs: HuggingFaceTokenizer) -> None:
    assert [theirs.id_to_token(i) for i in range(len(SHARED))] == list(SHARED)


def test_the_layout_by_hand() -> None:
    found = {word: VOCABULARY.index(word) for word in ("[EOS]", "[S_0]", "[S_199]", "v0=0", "v1=0", "v3=999", "zebra")}
    assert found == {
        "[EOS]": 3,
        "[S_0]": 4,
        "[S_199]": 203,
        "v0=0": 204,
        "v1=0": 1204,
        "v3=999": 4203,
        "zebra": 4283,
    }
    assert VOCABULARY[4284:] == KEYWORDS
    assert len(set(VOCABULARY)) == len(VOCABULARY) == WORDS.card.vocabulary == 4292
    assert len(OBJECTS) == 80


def test_no_name_of_two_parts_begins_with_a_word() -> None:
    """So a string of words has one reading."""
    assert {name.split(" ")[0] for name in OBJECTS if " " in name}.isdisjoint(VOCABULARY)
    assert all(name.count(" ") <= 1 for name in OBJECTS)


@given(st.lists(st.sampled_from(VOCABULARY[FIRST_WORD:]), max_size=30))
@example(["hot dog", "dog", "v0=0"])
@settings(max_examples=100)
def test_words_come_back_exactly(words: list[str]) -> None:
    text = " ".join(words)
    (ids,) = WORDS.encode([text])
    assert split(text) == words
    assert ids.dtype == np.uint16
    assert ids.tolist() == [VOCABULARY.index(word) for word in words]
    assert WORDS.decode([ids]) == [text]


@pytest.mark.parametrize("text", ["[EOS]", "person [S_3]", "v0=1000", "hot", "v0=1  v1=2", " dog", "Dog", "dog\n", 3])
def test_other_words_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"vocabulary|str"):
        WORDS.encode([text])


@pytest.mark.parametrize(
    "ids", [np.array([0]), np.array([203]), np.array([4292]), np.array([0.5]), np.zeros((1, 1), int)]
)
def test_ids_that_are_no_words_are_refused(ids: np.ndarray) -> None:
    with pytest.raises(ValueError, match="ids"):
        WORDS.decode([ids])


def test_a_folder_is_read_back(tmp_path: Path) -> None:
    card = WordsTokenizer.save(tmp_path / "words-poses", "human_poses")
    loaded = WordsTokenizer.load(tmp_path / "words-poses")
    assert isinstance(loaded, Tokenizer)
    assert loaded.card == card
    assert (card.name, card.stream, card.dtype, card.quantiser) == ("words-poses", "human_poses", "uint16", "text")
    (tmp_path / "words-poses" / "words.json").write_text("[]")
    with pytest.raises(CurateError, match="not those"):
        WordsTokenizer.load(tmp_path / "words-poses")
    (tmp_path / "words-poses" / "words.json").unlink()
    with pytest.raises(CurateError, match="cannot be read"):
        WordsTokenizer.load(tmp_path / "words-poses")


# 4M's word-pieces

PIECES = st.one_of(
    st.sampled_from(
        [*SPECIAL[:6], "v0=12", "v3=999", "person", "hot dog", "café", "A Dog,", "=", "[", "]", "\\", "\x00"]
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)
CAPTIONS = st.lists(PIECES, max_size=8).flatmap(lambda parts: st.sampled_from([" ".join(parts), "".join(parts)]))


def test_its_card_is_true(pieces: WordPiece4M) -> None:
    assert isinstance(pieces, Tokenizer)
    assert (pieces.card.vocabulary, pieces.card.dtype, pieces.card.quantiser) == (30_000, "uint16", "wordpiece")
    assert pieces.card.special_tokens["[S_0]"] == 4
    texts = ["a dog", "two hot dogs", "café [EOS]", ""] * 4
    alone = [pieces.encode([text])[0].tolist() for text in texts]
    assert [ids.tolist() for ids in pieces.encode(texts)] == alone
    assert pieces.card.batch_invariance == 0.0


@given(text=CAPTIONS)
@example(text="[EOS] v0=12 [S_3]")
@settings(max_examples=200, deadline=None)
def test_no_caption_gives_a_special_id(pieces: WordPiece4M, text: str) -> None:
    found = pieces.encode([text])[0].tolist()
    assert all(i == 1 or i >= 4204 for i in found)


@pytest.mark.parametrize("form", ["{}", "a dog {} there", "{0}{0}", " {} "])
def test_no_special_word_or_bin_can_be_spelt(pieces: WordPiece4M, form: str) -> None:
    for word in SHARED[:4204]:
        assert min(pieces.encode([form.format(word)])[0].tolist()) >= 4204, word


@given(text=CAPTIONS)
@example(text="[EOS] v0=12 [S_3]")
@settings(max_examples=200, deadline=None)
def test_an_escaped_caption_has_no_special_id_for_their_reader(theirs: HuggingFaceTokenizer, text: str) -> None:
    assert all(i == 1 or i >= 4204 for i in theirs.encode(caption.write(text)).ids)


def test_escaping_is_needed(theirs: HuggingFaceTokenizer) -> None:
    assert theirs.encode("[EOS] v0=12 [S_3]").ids == [3, 216, 7]


@given(text=CAPTIONS)
@settings(max_examples=200, deadline=None)
def test_ordinary_captions_have_the_ids_of_4m(pieces: WordPiece4M, theirs: HuggingFaceTokenizer, text: str) -> None:
    if caption.write(text) == text:
        assert pieces.encode([text])[0].tolist() == theirs.encode(text).ids


def test_case_and_accents_are_lost_and_names_are_not(pieces: WordPiece4M) -> None:
    assert pieces.decode(pieces.encode(["A Café with a person, a dog and a hot dog."])) == [
        "a cafe with a person, a dog and a hot dog."
    ]


@given(words=st.lists(st.sampled_from(VOCABULARY[FIRST_WORD:]), max_size=20))
@settings(max_examples=100, deadline=None)
def test_serialised_streams_have_the_ids_of_4m(
    pieces: WordPiece4M, theirs: HuggingFaceTokenizer, words: list[str]
) -> None:
    ids = pieces.encode_words(words)
    assert ids.tolist() == theirs.encode(" ".join(words)).ids
    assert pieces.decode_words(ids) == words


def test_what_is_no_text_is_refused(pieces: WordPiece4M) -> None:
    for text in ("\ud800", 3):
        with pytest.raises(ValueError, match=r"surrogate|str"):
            pieces.encode([text])  # type: ignore[list-item]
    for ids in ([3], [4], [300], [30_000]):
        with pytest.raises(ValueError, match="ids"):
            pieces.decode([np.array(ids)])
    with pytest.raises(ValueError, match="vocabulary"):
        pieces.encode_words(["[EOS]"])
    with pytest.raises(ValueError, match=r"vocabulary|ids"):
        pieces.decode_words(np.array([29_999]))


def test_other_vocabularies_are_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "card.json").write_bytes((folder / "card.json").read_bytes())
    (other / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes().replace(b"zebra", b"zibra"))
    with pytest.raises(CurateError, match="not those of its card"):
        WordPiece4M.load(other)
    with pytest.raises(CurateError, match="not 4M's"):
        WordPiece4M.import_checkpoint(str(other), tmp_path / "third")
    (other / "tokenizer.json").write_text("{}")
    with pytest.raises(CurateError, match="word-piece"):
        WordPiece4M.import_checkpoint(str(other), tmp_path / "third")
    assert not (tmp_path / "third").exists()
