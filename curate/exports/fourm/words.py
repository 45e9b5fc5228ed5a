"""The closed vocabulary of the text-like streams, and a tokenizer of it.

Ids 0 .. 4283 are those of 4M's WordPiece vocabulary (`text_tokenizer_4m_wordpiece_30k.json`, apple/ml-4m): `[PAD]`,
`[UNK]`, `[SOS]`, `[EOS]`, the sentinels `[S_0]` .. `[S_199]`, the bins `v0=0` .. `v3=999`, the 80 object names of COCO
in alphabetical order. The keywords from 4284 on are placed by us: in 4M each is a word-piece further up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curate.exports.fourm.values import AXES, BINS
from curate.schema.codec import CodecCard, smallest_unsigned
from curate.schema.errors import CurateError
from curate.schema.ids import digest
from curate.tokenizers.codecs.text_bpe import checked_ids
from curate.tokenizers.folders import read_folder, write_folder

SENTINELS = 200
SPECIAL = ("[PAD]", "[UNK]", "[SOS]", "[EOS]", *(f"[S_{i}]" for i in range(SENTINELS)))
OBJECTS = (
    *("airplane", "apple", "backpack", "banana", "baseball bat", "baseball glove", "bear", "bed", "bench", "bicycle"),
    *("bird", "boat", "book", "bottle", "bowl", "broccoli", "bus", "cake", "car", "carrot", "cat", "cell phone"),
    *("chair", "clock", "couch", "cow", "cup", "dining table", "dog", "donut", "elephant", "fire hydrant", "fork"),
    *("frisbee", "giraffe", "hair drier", "handbag", "horse", "hot dog", "keyboard", "kite", "knife", "laptop"),
    *("microwave", "motorcycle", "mouse", "orange", "oven", "parking meter", "person", "pizza", "potted plant"),
    *("refrigerator", "remote", "sandwich", "scissors", "sheep", "sink", "skateboard", "skis", "snowboard", "spoon"),
    *("sports ball", "stop sign", "suitcase", "surfboard", "teddy bear", "tennis racket", "tie", "toaster", "toilet"),
    *("toothbrush", "traffic light", "train", "truck", "tv", "umbrella", "vase", "wine glass", "zebra"),
)
KEYWORDS = ("human", "pose", "global", "shape", "camera", "point", "polygon", "none")

SHARED = (*SPECIAL, *(f"v{axis}={number}" for axis in range(AXES) for number in range(BINS)), *OBJECTS)
"""The words whose ids are 4M's: their places here."""
VOCABULARY = (*SHARED, *KEYWORDS)

FIRST_WORD = len(SPECIAL)
"""Ids below are special; no text gives them."""

_ID = {word: i for i, word in enumerate(VOCABULARY) if i >= FIRST_WORD}
_TWO_PARTS = frozenset(name for name in OBJECTS if " " in name)
_FILE = "words.json"


def split(text: str) -> list[str]:
    """Words of a serialisation, joined by single spaces, as a list; an object's name of two parts is one word.

    No first part of such a name is a word itself, so there is one way to split.

    Raises:
        ValueError: a word is not in the vocabulary, is special, or is not parted by exactly one space.
    """
    words: list[str] = []
    parts = text.split(" ") if text else []
    at = 0
    while at < len(parts):
        pair = " ".join(parts[at : at + 2])
        words.append(pair if pair in _TWO_PARTS else parts[at])
        at += 2 if pair in _TWO_PARTS else 1
    check(words)
    return words


def check(words: Sequence[str]) -> None:
    """ValueError for a word that is not in the vocabulary, or is special."""
    for at, word in enumerate(words):
        if word not in _ID:
            raise ValueError(f"word {at} is {word!r}, which the closed vocabulary of the text-like streams has not")


class WordsTokenizer:
    """A serialisation in words to ids and back, exactly (a `Tokenizer`).

    It has no weights. A folder holds its card and the list of its words, so that ids can be read years later.
    """

    def __init__(self, card: CodecCard | None = None) -> None:
        """With the card of a folder, or that of the stream `det`."""
        self.card = card or words_card()

    @classmethod
    def load(cls, folder: Path, device: str = "cpu") -> WordsTokenizer:
        """Reads `card.json` and `words.json`.

        Raises:
            CurateError: a file is missing or broken, or the words are not those of the card or of this version.
        """
        card, raw = read_folder(folder, _FILE)
        if raw != _raw():
            raise CurateError(
                f"The words of {card.name} are not those of this version of curate.",
                "Write the folder again with WordsTokenizer.save, and tokenise again what was made with other words.",
            )
        return cls(card)

    @classmethod
    def save(cls, folder: Path, stream: str = "det") -> CodecCard:
        """Writes the folder that `load` reads.

        Args:
            stream: of the card: `det`, `metadata`, `color_palette`, `human_poses` or `sam_instance`.
        """
        card = words_card(folder.name, stream)
        write_folder(folder, card, {_FILE: _raw()})
        return card

    def encode(self, items: Sequence[str]) -> list[NDArray[np.generic]]:
        """Strings of words joined by single spaces to ids `(n,)` uint16, each from `FIRST_WORD` on.

        Raises:
            ValueError: an item is not a string, or a word is unknown or special.
        """
        return [np.array([_ID[word] for word in _split(item)], dtype=self.card.numpy_dtype) for item in items]

    def decode(self, ids: Sequence[NDArray[np.generic]], lengths: Sequence[int] | None = None) -> list[str]:
        """Ids `(n,)` to the string that gave them.

        Raises:
            ValueError: an id is special or out of range, or `lengths` is given.
        """
        found = checked_ids(ids, lengths, FIRST_WORD, self.card.vocabulary)
        return [" ".join(VOCABULARY[i] for i in item) for item in found]


def words_card(name: str = "4m-words", stream: str = "det") -> CodecCard:
    """The card of `WordsTokenizer` for a stream."""
    return CodecCard(
        name=name,
        architecture="4m-words",
        modality="text",
        stream=stream,
        quantiser="text",
        index_order=(
            f"id = place in {_FILE}; 0 to {len(SHARED) - 1} as in 4M's WordPiece vocabulary (special words, sentinels, "
            f"bins v0=0 to v3={BINS - 1}, COCO names), then curate's keywords"
        ),
        vocabulary=len(VOCABULARY),
        dtype=smallest_unsigned(len(VOCABULARY)),
        input="words of the closed vocabulary, joined by single spaces; any other word is refused",
        special_tokens={word: i for i, word in enumerate(SPECIAL)},
        weights_digest=digest(_raw()),
        trained_on="nothing: a list of words",
        licence="Apache-2.0",
        batch_invariance=0.0,
    )


def _split(item: str) -> list[str]:
    if not isinstance(item, str):
        raise ValueError(f"a serialisation must be a str, not {type(item).__name__}")
    return split(item)


def _raw() -> bytes:
    return (json.dumps(VOCABULARY, indent=0) + "\n").encode()
