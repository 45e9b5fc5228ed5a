"""The zoo: tokenizers by name. One folder each in `tokenizers/`, with a codec card and weights."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.nearest import nearest
from curate.schema.package_data import data_folder
from curate.tokenizers.base import Tokenizer

_CLASSES = {
    "image-fsq": "curate.tokenizers.image.fsq:ImageFSQ",
    "video-fsq": "curate.tokenizers.video.fsq:VideoFSQ",
    "audio-rvq": "curate.tokenizers.audio.rvq:AudioRVQ",
    "text-bpe": "curate.tokenizers.text.bpe:TextBPE",
}
"""Class of each architecture; importing waits until a tokenizer is loaded."""


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
        f"{nearest(name, names())}there are: {', '.join(names())}; a folder with a card.json (`curate tokenizers "
        "import` makes one of published weights); or package.module:Class of one of your own",
    )


def card(name: str) -> CodecCard:
    """The codec card, without loading weights."""
    if _is_class(name):
        return _own(name).card
    path = folder(name) / "card.json"
    try:
        return CodecCard.model_validate_json(path.read_bytes())
    except ValidationError as exc:
        raise CurateError(f"{path} is not a codec card: {exc}") from exc


def load(name: str) -> Tokenizer:
    """The tokenizer, ready to encode and decode; its weights are checked against the card's digest.

    Args:
        name: of the zoo, a folder, or `package.module:Class` of a class without arguments that is a `Tokenizer`.
    """
    if _is_class(name):
        return _own(name)
    loaded: Tokenizer = class_of(card(name).architecture).load(folder(name))
    return loaded


def class_of(architecture: str) -> Any:
    """The class that reads the weights of an architecture.

    Raises:
        CurateError: there is none.
    """
    if architecture not in _CLASSES:
        raise CurateError(f"no architecture {architecture!r}", f"there are: {', '.join(sorted(_CLASSES))}")
    module, _, name = _CLASSES[architecture].partition(":")
    return getattr(importlib.import_module(module), name)


def _is_class(name: str) -> bool:
    return ":" in name and "/" not in name


def _own(name: str) -> Tokenizer:
    module, _, attribute = name.partition(":")
    try:
        made = getattr(importlib.import_module(module), attribute)()
    except (ImportError, AttributeError, ValueError, TypeError) as exc:
        raise CurateError(
            f"tokenizer `{name}` cannot be imported: {exc}",
            "write package.module:Class, and install the package where curate runs, on every worker",
        ) from exc
    if not isinstance(made, Tokenizer):
        raise CurateError(f"`{name}` is not a Tokenizer: it needs card, encode and decode (curate.tokenizers.base)")
    return made
