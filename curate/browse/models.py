"""Models that the page asks: what embeds texts, and tokenizers. They run in a process of their own, started when one is
first needed, so that the server neither holds their memory nor ends with them."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from curate.helper.errors import HelperDied, HelperError, HelperNotStarted
from curate.helper.process import Helper
from curate.schema.codec import CodecCard
from curate.schema.errors import CurateError
from curate.schema.recipe import Recipe
from curate.shards.commit import read_manifest
from curate.shards.lists import read_files
from curate.storage import Store, open_store

if TYPE_CHECKING:
    from curate.signals.clip import Clip
    from curate.tokenizers.base import Tokenizer

ANSWER_SECONDS = 600.0
"""Of one answer at most: the first waits for weights."""


class Models:
    """The process as the server sees it; questions of several threads wait for each other."""

    def __init__(self, build: Store) -> None:
        self._helper = Helper(f"{__name__}:Service", {"build": str(build)}, memory_bytes=None, name="browse")

    def ask(self, method: str, *args: Any) -> Any:
        """What a method of `Service` gives.

        Raises:
            CurateError: as the method does; or the process died, and the next question starts another.
        """
        try:
            return self._helper.call(method, *args, limit_s=ANSWER_SECONDS)
        except (HelperDied, HelperError, HelperNotStarted) as error:
            raise CurateError(f"the process that runs models failed: {error}") from error


class Service:
    """The process itself.

    Args:
        build: its folder or uri.
    """

    RAISES = (CurateError,)

    def __init__(self, build: str) -> None:
        os.environ["HF_HUB_OFFLINE"] = "1"  # before the hub's library is imported: a look at a build fetches nothing
        self._build = open_store(build)
        self._clip, self._tokenizer = cache(_clip), cache(_tokenizer)

    def text(self, options: dict[str, Any], version: str, text: str) -> NDArray[Any]:
        """Embedding of a text, float32 `(d,)` of unit length, by the model that embedded the build's images.

        Args:
            options, version: of the signal `clip`, as the manifest has them.

        Raises:
            CurateError: its weights are not on this machine, or are others.
        """
        return self._clip(json.dumps(options), version).embed_text(text)

    def panel(self, sample: str, part: int) -> dict[str, Any]:
        """What the tokens of a kept sample decode to: a `curate.card.roundtrip.Panel`.

        Args:
            part: number of its partition.

        Raises:
            CurateError: there is no such sample, or tables of the build are gone.
        """
        from curate.card.media import Media
        from curate.card.roundtrip import panel_of
        from curate.card.rows import Key
        from curate.shards.tables import open_tables

        manifest = read_manifest(self._build)
        recipe = Recipe.model_validate(manifest.recipe)
        names = {stream.name: stream.tokenizer for stream in recipe.tokenize.streams}
        where = {entry.tokenizer: names.get(entry.name, "") for entry in manifest.streams}

        def load(name: str) -> Tokenizer:
            return self._tokenizer(manifest.codecs[name].model_dump_json(), where[name])

        try:
            with open_tables(self._build, manifest, read_files(self._build, manifest)) as tables:
                return asdict(panel_of(tables, Key("sample", sample, part), Media(tables), recipe, load))
        except OSError as error:
            raise CurateError(f"files of the build could not be read: {error}") from error


def _tokenizer(card: str, name: str) -> Tokenizer:
    from curate.tokenizers import zoo

    return zoo.of_card(CodecCard.model_validate_json(card), name)


def _clip(options: str, version: str) -> Clip:
    from curate.models.clip_weights import weights_name
    from curate.signals.clip import Clip, ClipOptions

    use = ClipOptions.model_validate_json(options)
    try:
        signal = Clip(use)
        signal.check_files()
    except CurateError as error:
        raise CurateError(f"texts cannot be compared with images here: {error.message}", error.hint) from error
    if not version.endswith(f"+{weights_name(use.pretrained)}"):
        raise CurateError(
            f"texts cannot be compared with images here: {use.pretrained} has other weights than those that the build "
            "was made with"
        )
    signal.load_texts()
    return signal
