"""What the card says in figures, read once from the tables and shown by the page and the README alike."""

from __future__ import annotations

from dataclasses import dataclass

from curate.card.funnel import COUNTS, Funnel, funnel
from curate.card.gallery import FIRST
from curate.card.signals import Number, Other, numbers, others, queries, swept
from curate.card.sweep import sweep
from curate.card.tokens import StreamStats, stream_stats
from curate.schema.manifest import File, Manifest
from curate.schema.recipe import Recipe
from curate.shards.tables import Tables


@dataclass(frozen=True)
class Facts:
    """Facts of a build.

    Attributes:
        files: of the build but for the card, by path.
        kinds: of kept samples: kind, samples, seconds.
        licences: of kept samples, commonest first.
        stream_line: the one line of code.
    """

    manifest: Manifest
    files: list[File]
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
        return sum(f.bytes for f in self.files if f.path.startswith("tokens/"))


_KEPT = """
    SELECT kind, coalesce(licence, 'not stated') AS licence, count(*) AS n, sum(us) AS us
    FROM chunk WHERE kept GROUP BY ALL
"""


def gather(tables: Tables) -> Facts:
    """Reads the facts of a build, and leaves the candidates for galleries in tables; no media is opened."""
    manifest = tables.manifest
    recipe = Recipe.model_validate(manifest.recipe)
    wanted = {"counts": COUNTS, "kept": _KEPT, **queries(tables, recipe), **FIRST}
    sweep(tables, swept, wanted, records=bool(recipe.decide.records))
    kinds = tables.rows("SELECT kind, sum(n)::BIGINT AS n, sum(us)::BIGINT AS us FROM kept GROUP BY kind ORDER BY kind")
    licences = tables.rows("SELECT licence, sum(n)::BIGINT AS n FROM kept GROUP BY 1 ORDER BY n DESC, 1")
    split = next((s.name for s in manifest.splits if s.samples), "train")
    return Facts(
        manifest=manifest,
        files=tables.files,
        recipe=recipe,
        funnel=funnel(tables),
        kinds=[(r["kind"], r["n"], (r["us"] or 0) / 1e6) for r in kinds],
        licences=[(r["licence"], r["n"]) for r in licences],
        numbers=numbers(tables, recipe),
        others=others(tables),
        streams=stream_stats(tables),
        stream_line=f'from curate import stream; samples = stream("build/{recipe.name}", split="{split}")',
    )
