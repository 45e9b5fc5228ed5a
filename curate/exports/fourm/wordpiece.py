"""4M's own text vocabulary: 30 000 word-pieces, with no way from text to a special id.

To ml-4m's reader a caption that spells `[EOS]`, `[S_3]` or `v0=12` is that id. Here special words and bins are not
known to the word-piece model at all: `encode` takes them apart at their punctuation, as any text. Serialised streams
have their own way in and out, `encode_words` and `decode_words`, one id a word. Object names stay single ids in both:
a caption and the boxes are meant to share them. So the ids of text that spells no special word are ml-4m's.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.exports.fourm.words import FIRST_WORD, OBJECTS, SHARED, SPECIAL, check
from curate.schema.codec import CodecCard, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.text_bpe import checked_ids, encoded
from curate.tokenizers.folders import read_folder, write_folder
from tokenizers import Tokenizer as HuggingFaceTokenizer

_FILE = "tokenizer.json"
_UNKNOWN = SPECIAL.index("[UNK]")
_FIRST_TEXT = len(SHARED) - len(OBJECTS)
"""Ids below are special or bins; of these text gives `[UNK]` only."""


class WordPiece4M:
    """Captions to 4M's ids (a `Tokenizer`). Lossy: case, accents and spacing go, unknown characters become `[UNK]`."""

    def __init__(self, card: CodecCard, raw: bytes) -> None:
        """With the bytes of the publisher's file.

        Raises:
            CurateError: it is not 4M's: the first ids are others, or the count is not the card's.
        """
        self.card = card
        self._pieces = _without_special(raw)
        vocabulary: dict[str, int] = self._pieces.get_vocab()
        if len(vocabulary) != card.vocabulary or any(vocabulary.get(word) != i for i, word in enumerate(SHARED)):
            raise CurateError(
                f"{card.name} is not 4M's vocabulary: special words, bins and object names are not its first ids.",
                "Give text_tokenizer_4m_wordpiece_30k.json of apple/ml-4m.",
            )
        self._id = vocabulary
        self._word = {i: word for word, i in vocabulary.items()}

    @classmethod
    def import_checkpoint(cls, source: str, folder: Path, name: str = "") -> CodecCard:
        """Makes a folder that `load` reads of `text_tokenizer_4m_wordpiece_30k.json`.

        Args:
            source: that file, a folder that holds it, or a repository of the hub.
            name: of the card; without it, the folder's.

        Raises:
            CurateError: it is not there, or is not 4M's vocabulary.
        """
        from curate.models.weights import locate  # imports torch, which encoding does not need

        raw = locate(source, ["text_tokenizer_4m_wordpiece_30k.json", _FILE])[0].read_bytes()
        vocabulary = _without_special(raw).get_vocab_size()
        card = CodecCard(
            name=name or folder.name,
            architecture="4m-wordpiece",
            modality="text",
            stream="caption",
            quantiser="wordpiece",
            index_order=f"id = place in the vocabulary; below {FIRST_WORD} special, below {_FIRST_TEXT} bins",
            vocabulary=vocabulary,
            dtype=smallest_unsigned(vocabulary),
            input=(
                "any Unicode string without lone surrogates; lossy: lowercased, accents dropped, control characters "
                "dropped, spaces run together, words with unknown characters become [UNK]"
            ),
            special_tokens={word: i for i, word in enumerate(SPECIAL)},
            weights_digest=digest(raw),
            trained_on="captions; which, its publisher does not state with the file",
            licence="Apache-2.0, as the repository apple/ml-4m states",
            batch_invariance=0.0,
        )
        cls(card, raw)
        write_folder(folder, card, {_FILE: raw})
        return card

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> WordPiece4M:
        """Reads `card.json` and `tokenizer.json`.

        Raises:
            CurateError: a file is missing or broken, or the vocabulary is not the one that the card names.
        """
        card, raw = read_folder(folder, _FILE)
        return cls(card, raw)

    def encode(self, items: Sequence[str]) -> list[NDArray[np.generic]]:
        """Texts to ids `(n,)` uint16 of word-pieces and object names; besides these only `[UNK]`.

        Raises:
            ValueError: an item is not a string, or has a lone surrogate and so is not Unicode text.
        """
        return [np.array(ids, dtype=self.card.numpy_dtype) for ids in encoded(self._pieces, items)]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[str]:
        """Ids `(n,)` to lower-case text; an unknown word is `[UNK]`.

        Raises:
            ValueError: an id is special, a bin or out of range, or `lengths` is given.
        """
        found = checked_ids(ids, lengths, 0, self.card.vocabulary)
        if any(i < _FIRST_TEXT and i != _UNKNOWN for item in found for i in item):
            raise ValueError(f"ids of text must be {_FIRST_TEXT} to {self.card.vocabulary - 1}, or {_UNKNOWN}")
        return [self._pieces.decode(item, skip_special_tokens=False) for item in found]

    def encode_words(self, words: Sequence[str]) -> NDArray[np.generic]:
        """The ids `(n,)` of a serialised stream: those that ml-4m gives its words joined by spaces.

        Raises:
            ValueError: a word is special, or not of the closed vocabulary (`words.VOCABULARY`).
        """
        check(words)
        return np.array([self._id[word] for word in words], dtype=self.card.numpy_dtype)

    def decode_words(self, ids: NDArray[np.generic]) -> list[str]:
        """The words of `encode_words`; ValueError for an id that is none of theirs."""
        [found] = checked_ids([ids], None, FIRST_WORD, self.card.vocabulary)
        words = [self._word[i] for i in found]
        check(words)
        return words


def _without_special(raw: bytes) -> HuggingFaceTokenizer:
    """The tokenizer of a file, its added words reduced to object names, which stay ordinary."""
    try:
        held = json.loads(raw)
        held["added_tokens"] = [t | {"special": False} for t in held["added_tokens"] if t["content"] in OBJECTS]
        return HuggingFaceTokenizer.from_str(json.dumps(held))
    except Exception as error:  # the library raises plain Exception
        raise CurateError(f"this is not a file of a word-piece vocabulary: {error}") from error
