"""The zoo: tokenizers by name. One folder each in `tokenizers/`, with a codec card and weights."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from curate import plugins
from curate.models.torch_threads import one_torch_thread
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.fields import Resources
from curate.schema.nearest import nearest
from curate.schema.package_data import data_folder
from curate.tokenizers.base import Tokenizer
from curate.tokenizers.builtin import ARCHITECTURES, COSTS, FILES
from curate.tokenizers.folders import CARD, WEIGHTS, read_card

DEFAULTS = {
    "image": "image-fsq-64k",
    "video": "video-fsq-64k",
    "audio": "audio-rvq-4kbps",
    "text": "text-bpe-8k",
}
"""The embedded default of each modality."""


def names() -> list[str]:
    """The tokenizers that ship with the project, and those that installed distributions give."""
    return plugins.names("tokenizer")


def shipped() -> dict[str, str]:
    """The tokenizers that ship with the project, each with the class that reads its weights."""
    cards = data_folder("tokenizers").glob(f"*/{CARD}")
    return {card.parent.name: ARCHITECTURES[read_card(card.parent).architecture] for card in cards}


def folder(name: str) -> Path:
    """The folder of a tokenizer: of the zoo by name, or any folder with a card.json by path.

    Raises:
        CurateError: there is none.
    """
    for candidate in (data_folder("tokenizers") / name, Path(name)):
        if (candidate / CARD).is_file():
            return candidate
    raise CurateError(
        f"no tokenizer {name!r}",
        f"{nearest(name, names())}there are: {', '.join(names())}; a folder with a card.json (`curate tokenizers "
        "import` makes one of published weights); or package.module:Class of one of your own",
    )


def located(name: str, base: Path) -> str:
    """The name by which any process on this machine finds a tokenizer: a folder's path becomes absolute.

    Args:
        name: as in a recipe.
        base: the recipe's folder, which relative paths start from; the current folder is tried after it.
    """
    if plugins.is_path(name) or name in names():
        return name
    for candidate in (base / name, Path(name)):
        if (candidate / CARD).is_file():
            return str(candidate.resolve())
    return name


def card(name: str) -> CodecCard:
    """The codec card, without loading weights."""
    if plugins.is_foreign("tokenizer", name):
        return _own(name).card
    return read_card(folder(name))


def cost(name: str) -> Resources:
    """What one worker of a tokenizer takes, without loading weights. A class of one's own says it as its attribute
    `cost`; one that does not stays beside the decoder."""
    if plugins.is_foreign("tokenizer", name):
        found: Resources = getattr(plugins.find("tokenizer", name), "cost", Resources())
        return found
    architecture = card(name).architecture
    return COSTS[architecture] if architecture in COSTS else getattr(class_of(architecture), "cost", Resources())


def check_files(name: str) -> None:
    """Look for the files of a tokenizer, before any work; none is read. Of one of your own nothing is known.

    Raises:
        CurateError: one is missing, or empty.
    """
    if plugins.is_foreign("tokenizer", name):
        return
    place, architecture = folder(name), card(name).architecture
    wanted = FILES.get(architecture, (WEIGHTS,) if architecture in ARCHITECTURES else ())
    for file in wanted:
        if not (place / file).is_file() or not (place / file).stat().st_size:
            raise CurateError(
                f"the tokenizer {place.name} lacks {file}, which its card is of: {place}", "fetch or make it again"
            )


def load(name: str, device: str = "cpu", dtype: str = "float32", batch: int | None = None) -> Tokenizer:
    """The tokenizer, ready to encode and decode; its weights are checked against the card's digest.

    Args:
        name: of the zoo, a folder, or the entry point or `package.module:Class` of a class that is a `Tokenizer`.
        device: where networks run.
        dtype: numbers that they compute in, of `cost(name).dtypes`; quantisers stay in float32.
        batch: items of one pass on a GPU; the tokenizer's own where None.

    What a class's `load` has no parameter for (of one's own, its constructor) is not told to it.
    """
    where = {"device": device, "dtype": dtype} | ({} if batch is None else {"batch": batch})
    if plugins.is_foreign("tokenizer", name):
        return _own(name, where)
    loaded_by: Any = class_of(card(name).architecture).load
    loaded: Tokenizer = loaded_by(folder(name), **_taken(loaded_by, where))
    return loaded


def load_on_one_thread(name: str, device: str = "cpu", dtype: str = "float32", batch: int | None = None) -> Tokenizer:
    """As `load`, with PyTorch on one thread before weights are read, as where ids are made (law 6). PyTorch is not
    imported for a tokenizer that does without."""
    if plugins.is_foreign("tokenizer", name):
        plugins.find("tokenizer", name)
    else:
        class_of(card(name).architecture)
    one_torch_thread()  # by what was imported
    loaded = load(name, device, dtype, batch)
    one_torch_thread()  # of one that imports PyTorch where it is made
    return loaded


def of_card(wanted: CodecCard, name: str = "", device: str = "cpu") -> Tokenizer:
    """The tokenizer that wrote a build's ids, by its card in the manifest (`manifest.codecs[stream.tokenizer]`).

    Args:
        name: where it is, as for `load`; without it the zoo's of that name.

    Raises:
        CurateError: there is none, or it has other weights: its ids mean something else.
    """
    name = name or wanted.name
    if (found := card(name).weights_digest) != wanted.weights_digest:
        raise CurateError(
            f"{name} is not the {wanted.name} that made these ids: BLAKE3 {found}, theirs is {wanted.weights_digest}",
            "give the folder of the tokenizer that the build was made with",
        )
    return load(name, device)


def class_of(architecture: str) -> Any:
    """The class that reads the weights of an architecture.

    Raises:
        CurateError: there is none, with the nearest; or it cannot be imported.
    """
    return plugins.find("architecture", architecture)


def _taken(by: Any, where: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `where` that a function, or a class's constructor, has a parameter for."""
    parameters = inspect.signature(by).parameters if callable(by) else {}
    return {key: value for key, value in where.items() if key in parameters}


def _own(name: str, where: Mapping[str, Any] | None = None) -> Tokenizer:
    """Another's tokenizer, made."""
    made = plugins.make("tokenizer", name, _taken(plugins.find("tokenizer", name), where) if where else {})
    if not isinstance(made, Tokenizer):
        raise CurateError(f"`{name}` is not a Tokenizer: it needs card, encode and decode (curate.tokenizers.base)")
    if not plugins.is_path(name) and made.card.name != name:
        raise CurateError(
            f"the tokenizer of the entry point `{name}` is called `{made.card.name}` on its card",
            "a build's manifest knows it by its card: mend one of the two",
        )
    return made
