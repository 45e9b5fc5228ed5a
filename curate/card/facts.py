"""What the card says in figures, read once from the tables and shown by the page and the README alike."""

from __future__ import annotations

from dataclasses import dataclass

from curate.card.funnel import Funnel, funnel
from curate.card.signals import Number, Other, numbers, others
from curate.card.tables import Tables
from curate.card.tokens import StreamStats, stream_stats
from curate.schema.manifest import Manifest
from curate.schema.recipe import Recipe


@dataclass(frozen=True)
class Facts:
    """Facts of a build.

    Attributes:
        kinds: of kept samples: kind, samples, seconds.
        licences: of kept samples, commonest first.
        stream_line: the one line of code.
    """

    manifest: Manifest
    recipe: Recipe
    funnel: Funnel
    kinds: list[tuple[str, int, float]]
    licences: list[tuple[str, int]]
    numbers: list[Number]
    others: list[Other]
    streams: list[StreamStats]
    stream_line: str

    @property
    def ids(self) -> int:
        return sum(s.ids for s in self.streams)

    @property
    def token_bytes(self) -> int:
        return sum(f.bytes for f in self.manifest.files if f.path.startswith("tokens/"))


def gather(tables: Tables) -> Facts:
    """Reads the facts of a build; no media is opened."""
    manifest = tables.manifest
    recipe = Recipe.model_validate(manifest.recipe)
    kept = "FROM samples s JOIN ledger l ON l.level = 'sample' AND l.id = s.sample_id WHERE l.outcome = 'kept'"
    kinds = tables.rows(
        "SELECT s.kind, count(*) AS n, sum(round(s.duration * 1e6)::BIGINT) AS us "
        f"{kept} GROUP BY s.kind ORDER BY s.kind"
    )
    licences = tables.rows(
        f"SELECT coalesce(s.licence, 'not stated') AS licence, count(*) AS n {kept} GROUP BY 1 ORDER BY n DESC, 1"
    )
    split = next((s.name for s in manifest.splits if s.samples), "train")
    return Facts(
        manifest=manifest,
        recipe=recipe,
        funnel=funnel(tables),
        kinds=[(r["kind"], r["n"], (r["us"] or 0) / 1e6) for r in kinds],
        licences=[(r["licence"], r["n"]) for r in licences],
        numbers=numbers(tables, recipe),
        others=others(tables),
        streams=stream_stats(tables),
        stream_line=f'from curate import stream; samples = stream("build/{recipe.name}", split="{split}")',
    )
