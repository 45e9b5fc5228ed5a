"""Folders of tokenizers: `card.json`, and `weights.safetensors` whose BLAKE3 the card names.

Words that a net needs beside its tensors (sizes, terms) lie in the header of the weights file, as JSON in one entry
`curate`, so that one digest covers both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from curate.schema.codec import CodecCard, Quality
from curate.schema.errors import CurateError
from curate.schema.ids import digest

if TYPE_CHECKING:
    from torch import Tensor

CARD = "card.json"
WEIGHTS = "weights.safetensors"
TRAINED_ON = "not told by the weights; see the publisher's model card"
LICENCE = "as its publisher states"


def read_card(folder: Path) -> CodecCard:
    """The card of a folder; CurateError where it has none, or none that can be read."""
    try:
        return CodecCard.model_validate_json((folder / CARD).read_bytes())
    except (OSError, ValueError) as error:
        raise CurateError(f"the card of the tokenizer {folder.name} cannot be read: {error}") from error


def read_files(folder: Path, names: Sequence[str]) -> list[bytes]:
    """The bytes of files of a folder, in this order; CurateError where one is missing."""
    try:
        return [(folder / name).read_bytes() for name in names]
    except OSError as error:
        raise CurateError(f"the tokenizer {folder.name} cannot be read: {error}") from error


def read_folder(folder: Path, file: str = WEIGHTS) -> tuple[CodecCard, bytes]:
    """The card, and the bytes of the one file whose digest it names.

    Raises:
        CurateError: a file is missing or broken, or the file is not the one that the card names.
    """
    card = read_card(folder)
    [raw] = read_files(folder, [file])
    check_digest(folder, card, digest(raw))
    return card, raw


def check_digest(folder: Path, card: CodecCard, found: str) -> None:
    """CurateError where `found`, the digest of what was read, is not the card's."""
    if found != card.weights_digest:
        raise CurateError(
            f"the files of {folder.name} are not those of its card",
            f"the card says BLAKE3 {card.weights_digest}, found is {found}; fetch or make the folder again",
        )


def write_folder(folder: Path, card: CodecCard, files: Mapping[str, bytes]) -> None:
    """`card.json`, and `files` by their names; the folder is made when missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    (folder / CARD).write_text(card.model_dump_json(indent=2) + "\n", "utf-8")


def write_figure(folder: Path, quality: Quality) -> CodecCard:
    """Puts a figure on the card of a folder, in place of that of the same media where there is one."""
    card = read_card(folder)
    kept = [one for one in card.quality if one.media != quality.media]
    card = card.model_copy(update={"quality": [*kept, quality]})
    write_folder(folder, card, {})
    return card


def code_version(*packages: str) -> str:
    """What a card says of the code that its ids depend on: Curate and the distributions named, with their versions."""
    return ", ".join(f"{name} {version(name)}" for name in ("curate-tokens", *packages))


def header(words: Mapping[str, Any]) -> dict[str, str]:
    """Metadata of a weights file from which `words_of` gives `words` back.

    One entry: safetensors writes several in an order that changes from run to run, and the bytes are hashed.
    """
    return {"curate": json.dumps(words, sort_keys=True)}


def words_of(raw: bytes) -> dict[str, Any]:
    """The words in the header of a weights file.

    Read by hand, since the library reads a header from a path only and these are the bytes that were verified.

    Raises:
        KeyError, ValueError: it has no such header.
    """
    found = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return cast(dict[str, Any], json.loads(found["__metadata__"]["curate"]))


def write_weights(tensors: Mapping[str, Tensor], words: Mapping[str, Any]) -> bytes:
    """A weights file: tensors by name, and `words`, as JSON can hold them, in its header."""
    from safetensors.torch import save  # imports torch, which tokenizers of text do without

    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    return save(whole, metadata=header(words))


def open_weights(raw: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Words and tensors (floating ones as float32) of `write_weights`."""
    from safetensors.torch import load

    tensors = {name: value.float() if value.is_floating_point() else value for name, value in load(raw).items()}
    return words_of(raw), tensors
