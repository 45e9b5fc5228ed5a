"""The HTML page: galleries, and the rendering of all of it into one self-contained file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import yaml

from curate.card.environment import html
from curate.card.facts import Facts
from curate.card.flow import flow
from curate.card.gallery import Failed, Gallery, Pair, RuleTiles, Tile
from curate.card.media import Media
from curate.card.roundtrip import Panel, panels
from curate.schema.ledger_laws import OUTCOMES
from curate.shards.tables import Tables
from curate.tokenizers.base import Tokenizer

FILES = 400  # of the list of files; the build's own lists have all


@dataclass(frozen=True)
class Shown:
    """The galleries.

    Attributes:
        token_text: for each text stream, its commonest ids as text.
    """

    kept: list[Tile]
    dropped: list[RuleTiles]
    duplicates: list[Pair]
    failed: list[Failed]
    panels: list[Panel]
    token_text: dict[str, dict[int, str]]


def show(tables: Tables, facts: Facts, loader: Callable[[str], Tokenizer]) -> Shown:
    """Makes the galleries: opens media, and decodes tokens with the tokenizers that `loader` gives."""
    load = cache(loader)
    media = Media(tables)
    gallery = Gallery(tables, media, facts.recipe)
    token_text = {}
    for stats in facts.streams:
        if stats.codec is not None and stats.codec.modality == "text" and not stats.codec.needs and stats.top:
            tokenizer = load(stats.entry.tokenizer)
            ids = [i for i, _ in stats.top]
            words = tokenizer.decode([np.array([i], tokenizer.card.numpy_dtype) for i in ids])
            token_text[stats.entry.name] = dict(zip(ids, words, strict=True))
    return Shown(
        kept=gallery.kept(),
        dropped=gallery.dropped(),
        duplicates=gallery.duplicates(),
        failed=gallery.failed(),
        panels=panels(tables, gallery, media, facts.recipe, load),
        token_text=token_text,
    )


def render_page(facts: Facts, shown: Shown) -> str:
    """The whole page as one string. Its bytes follow from the build alone."""
    return (
        html()
        .get_template("page.html")
        .render(
            facts=facts,
            shown=shown,
            flow=flow(facts.funnel),
            levels=[facts.funnel.records, facts.funnel.samples],
            outcomes=tuple(OUTCOMES.values()),
            files=facts.files[:FILES],
            recipe=yaml.safe_dump(facts.manifest.recipe, sort_keys=False, allow_unicode=True, width=100),
        )
    )
