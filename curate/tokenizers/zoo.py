"""The zoo: tokenizers by name. One folder each in `tokenizers/`, with a codec card and weights."""

from __future__ import annotations

import importlib
from pathlib import Path

from pydantic import ValidationError

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.schema.package_data import data_folder
from curate.tokenizers.base import Tokenizer

_CLASSES = {
    "fsq": "curate.tokenizers.image_fsq:ImageFSQ",
    "rvq": "curate.tokenizers.audio_rvq:AudioRVQ",
    "bpe": "curate.tokenizers.text_bpe:TextBPE",
}
"""Class for each quantiser; importing waits until a tokenizer is loaded."""


def names() -> list[str]:
    """The tokenizers that ship with the project."""
    return sorted(card.parent.name for card in data_folder("tokenizers").glob("*/card.json"))


def folder(name: str) -> Path:
    """The folder of a tokenizer: of the zoo by name, or any folder with a card.json by path.

    Raises:
        CurateError: there is none.
    """
    for candidate in (data_folder("tokenizers") / name, Path(name)):
        if (candidate / "card.json").is_file():
            return candidate
    raise CurateError(
        f"no tokenizer {name!r}",
        f"{nearest(name, names())}there are: {', '.join(names())}; or a folder with a card.json",
    )


def card(name: str) -> CodecCard:
    """The codec card, without loading weights."""
    path = folder(name) / "card.json"
    try:
        return CodecCard.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise CurateError(f"{path} is not a codec card: {exc}") from exc


def load(name: str) -> Tokenizer:
    """The tokenizer, ready to encode and decode; its weights are checked against the card's digest."""
    module, _, cls = _CLASSES[card(name).quantiser].partition(":")
    loaded: Tokenizer = getattr(importlib.import_module(module), cls).load(folder(name))
    return loaded
