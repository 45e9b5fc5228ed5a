"""Lossless text to ids: byte-level BPE whose special tokens no text can spell."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.tokenizers.folders import read_folder
from tokenizers import Tokenizer as HuggingFaceTokenizer

SENTINELS = 100
SPECIAL = {"[PAD]": 0, "[BOS]": 1, "[EOS]": 2, "[MASK]": 3} | {f"[S_{i}]": 4 + i for i in range(SENTINELS)}
OFFSET = 128  # ids below are special or reserved; BPE ids are shifted by it


class TextBPE:
    """The text tokenizer (a `Tokenizer`): any Unicode string to ids and back, exactly.

    There is no normaliser and no unknown token: the alphabet is all 256 bytes. Special tokens are not known to the
    BPE at all; they exist as ids below `OFFSET`, and every id of `encode` is at or above it. So a caption that spells
    `[EOS]` gives the ids of five ordinary characters (law 11).
    """

    def __init__(self, card: CodecCard, bpe: HuggingFaceTokenizer) -> None:
        if bpe.get_added_tokens_decoder() or bpe.normalizer is not None or bpe.post_processor is not None:
            raise CurateError(f"{card.name} is not a plain byte-level BPE: it has added tokens, a normaliser or marks.")
        if bpe.get_vocab_size() + OFFSET != card.vocabulary or card.special_tokens != SPECIAL:
            raise CurateError(f"The card of {card.name} states another vocabulary than its tokenizer.json has.")
        self.card = card
        self._bpe = bpe

    @classmethod
    def load(cls, folder: Path) -> TextBPE:
        """Reads `card.json` and `tokenizer.json` of a folder of the zoo.

        Raises:
            CurateError: a file is missing or broken, or the vocabulary is not the one that the card names.
        """
        card, raw = read_folder(folder, "tokenizer.json")
        try:
            bpe = HuggingFaceTokenizer.from_buffer(raw)
        except Exception as error:  # the library raises plain Exception
            raise CurateError(f"The vocabulary of {card.name} cannot be read: {error}") from error
        return cls(card, bpe)

    def encode(self, items: Sequence[str]) -> list[NDArray[np.generic]]:
        """Strings to ids `(n,)` uint16, each in OFFSET .. vocabulary - 1, without begin or end marks.

        Raises:
            ValueError: an item is not a string, or has a lone surrogate and so is not Unicode text.
        """
        return [(np.array(ids, np.int64) + OFFSET).astype(self.card.numpy_dtype) for ids in encoded(self._bpe, items)]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[str]:
        """Ids `(n,)` to strings; exact for the ids of `encode`.

        Ids that a model made may stop inside a character; such bytes become U+FFFD.

        Raises:
            ValueError: an id is special or out of range, or `lengths` is given. What a special id means is for the view
                to say.
        """
        found = checked_ids(ids, lengths, OFFSET, self.card.vocabulary)
        return [self._bpe.decode([i - OFFSET for i in item], skip_special_tokens=False) for item in found]


def encoded(pieces: HuggingFaceTokenizer, items: Sequence[str]) -> list[list[int]]:
    """The library's ids of texts, without begin or end marks; ValueError as `check_texts`."""
    check_texts(items)
    # one at a time: the library's batches start threads, which a later fork of the process would not survive
    return [pieces.encode(item, add_special_tokens=False).ids for item in items]


def checked_ids(
    ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None, first: int, end: int
) -> list[list[int]]:
    """What `decode` of a tokenizer of text is given, as lists.

    Raises:
        ValueError: an item is no integer array `(n,)`, an id is outside first .. end - 1, or there are lengths.
    """
    if lengths is not None:
        raise ValueError("lengths have no meaning for text")
    for item in ids:
        if not isinstance(item, np.ndarray) or item.ndim != 1 or (item.size and item.dtype.kind not in "ui"):
            raise ValueError("ids must be an integer array (n,)")
        if item.size and not first <= int(item.min()) <= int(item.max()) < end:
            raise ValueError(f"text ids must be {first} to {end - 1}")
    return [item.tolist() for item in ids]


def check_texts(items: Sequence[object]) -> None:
    """ValueError for an item that is not a string, or has a lone surrogate and so is not Unicode text."""
    for item in items:
        if not isinstance(item, str):
            raise ValueError(f"a text must be a str, not {type(item).__name__}")
        try:
            item.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(f"a text has a lone surrogate at character {error.start}") from error


def bytes_per_token(tokenizer: TextBPE, texts: Sequence[str]) -> float:
    """UTF-8 bytes of the texts by the number of their ids: higher is denser."""
    count = sum(len(x) for x in tokenizer.encode(texts))
    if not count:
        raise ValueError("no text to measure")
    return sum(len(t.encode("utf-8")) for t in texts) / count
