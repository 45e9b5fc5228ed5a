"""Which records and samples the page shows, and how. Members are chosen by id or by value, never by chance (law 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.card.media import Media, Thumbnail
from curate.card.rows import Key, Rows, find
from curate.card.text import clip, middle, number, seconds
from curate.schema.recipe import Recipe
from curate.shards.tables import Tables

KEPT, PER_RULE, RULES, PAIRS, FAILED = 24, 6, 14, 10, 60
_CAPTION, _URI = 220, 120


FIRST = {
    "kept_first": f"""
        SELECT part, id, kind FROM ledger WHERE level = 'sample' AND outcome = 'kept'
        QUALIFY row_number() OVER (PARTITION BY kind ORDER BY id) <= {KEPT}
    """,
    "dropped_first": f"""
        SELECT part, level, id, rule, value, threshold, value_text FROM ledger WHERE outcome = 'dropped'
        QUALIFY row_number() OVER (
            PARTITION BY level, rule ORDER BY abs(value - threshold) DESC NULLS LAST, id) <= {PER_RULE}
    """,
    "duplicates_first": f"""
        SELECT part, level, id, duplicate_of, "match", similarity FROM ledger WHERE outcome = 'duplicate'
        ORDER BY similarity NULLS LAST, level, id LIMIT {PAIRS}
    """,
    "failed_first": f"""
        SELECT level, id, uri, coalesce(kind, 'unknown') AS kind, stage, error, message, attempt FROM ledger
        WHERE outcome = 'failed' ORDER BY level, stage, error, id LIMIT {FAILED}
    """,
}
"""Queries for `sweep`: of each chunk those that could be shown."""


@dataclass(frozen=True)
class Tile:
    """One record or sample: how it looks and a few words.

    Attributes:
        alt: text for those who do not see the image.
        facts: short notes, e.g. `512 × 384 px`, `from 3.2 s`.
        value, threshold, said: of the rule that dropped it; of one on words only `said`.
    """

    id: str
    level: str
    kind: str
    source: str
    uri: str
    caption: str
    thumb: Thumbnail
    alt: str
    facts: list[str]
    value: float | None = None
    threshold: float | None = None
    said: str | None = None


@dataclass(frozen=True)
class RuleTiles:
    """Some of those that a rule dropped, farthest from the threshold first."""

    level: str
    rule: str
    threshold: float | None
    count: int
    tiles: list[Tile]


@dataclass(frozen=True)
class Pair:
    """A duplicate beside its keeper."""

    duplicate: Tile
    keeper: Tile
    match: str
    similarity: float | None
    why: str


@dataclass(frozen=True)
class Failed:
    level: str
    id: str
    uri: str
    kind: str
    stage: str
    error: str
    message: str
    attempt: int


class Gallery:
    """Chooses records and samples, looks up their rows, each table once, and makes tiles of them.

    Attributes:
        rows: rows of the samples and records that are shown.
    """

    def __init__(self, tables: Tables, media: Media, recipe: Recipe) -> None:
        self._tables = tables
        self._media = media
        self._keys = recipe.decide.near_duplicates[0].keep if recipe.decide.near_duplicates else []
        self._kept = tables.rows(
            """
            SELECT part, id, kind, row_number() OVER (PARTITION BY kind ORDER BY id) AS turn FROM kept_first
            QUALIFY turn <= ? ORDER BY turn, kind
            """,
            [KEPT],
        )
        self._dropped = tables.rows(
            """
            SELECT *, row_number() OVER (
                PARTITION BY level, rule ORDER BY abs(value - threshold) DESC NULLS LAST, id) AS turn
            FROM dropped_first QUALIFY turn <= ? ORDER BY turn
            """,
            [PER_RULE],
        )
        self._rules = tables.rows(
            "SELECT level, label AS rule, max(threshold) AS threshold, sum(n)::BIGINT AS n FROM counts "
            "WHERE outcome = 'dropped' GROUP BY ALL ORDER BY level, n DESC, rule LIMIT ?",
            [RULES],
        )
        self._duplicates = tables.rows(
            "SELECT * FROM duplicates_first ORDER BY similarity NULLS LAST, level, id LIMIT ?", [PAIRS]
        )
        shown = {(r["level"], r["rule"]) for r in self._rules}
        wanted = [Key("sample", r["id"], r["part"]) for r in self._kept]
        wanted += [Key(r["level"], r["id"], r["part"]) for r in self._dropped if (r["level"], r["rule"]) in shown]
        wanted += [Key(r["level"], r["id"], r["part"]) for r in self._duplicates]
        wanted += find(tables, [(r["level"], r["duplicate_of"]) for r in self._duplicates])
        self.rows = Rows(tables, wanted, ["caption", "caption_source", *self._keys])

    def kept(self) -> list[Tile]:
        """Kept samples in id order, which is a fair draw since ids are digests; each kind has its turn."""
        return [self._tile("sample", r["id"]) for r in self._kept[:KEPT]]

    def kept_of(self, kind: str, count: int) -> list[dict[str, Any]]:
        """Rows of the first kept samples of a kind, at most `KEPT`, in id order."""
        return [self.rows.of("sample", r["id"]) for r in self._kept if r["kind"] == kind][:count]

    def dropped(self) -> list[RuleTiles]:
        """For each rule, records' rules first."""
        return [
            RuleTiles(
                rule["level"],
                rule["rule"],
                rule["threshold"],
                rule["n"],
                [
                    self._tile(r["level"], r["id"], r)
                    for r in self._dropped
                    if (r["level"], r["rule"]) == (rule["level"], rule["rule"])
                ],
            )
            for rule in self._rules
        ]

    def duplicates(self) -> list[Pair]:
        """Pairs: the least similar of each level first, since those are the ones to doubt; exact ones after them."""
        return [
            Pair(
                self._tile(row["level"], row["id"]),
                self._tile(row["level"], row["duplicate_of"]),
                row["match"] or "",
                row["similarity"],
                self._why(row),
            )
            for row in self._duplicates
        ]

    def failed(self) -> list[Failed]:
        """By stage and error, then id."""
        rows = self._tables.rows("SELECT * FROM failed_first ORDER BY level, stage, error, id LIMIT ?", [FAILED])
        return [
            Failed(
                r["level"],
                r["id"],
                middle(r["uri"], _URI),
                r["kind"],
                r["stage"] or "",
                r["error"] or "",
                clip(r["message"], 300),
                r["attempt"] or 1,
            )
            for r in rows
        ]

    def _why(self, row: dict[str, Any]) -> str:
        """Why the keeper was kept, from the stated order of preference."""
        one, keeper = (self.rows.of(row["level"], row[key]) for key in ("id", "duplicate_of"))
        if row["level"] == "record":
            if bool((keeper["text"] or "").strip()) != bool((one["text"] or "").strip()):
                return "The same bytes; the one that has text was kept."
            return "The same bytes; of equals the smallest record id was kept."
        for key in self._keys:
            mine, theirs = _value(one, key), _value(keeper, key)
            if mine != theirs:
                return f"Kept for its larger {key}: {number(theirs)} against {number(mine)}."
        return f"Equal in {' and '.join(self._keys) or 'all that was compared'}; the smallest sample id was kept."

    def _tile(self, level: str, key: str, verdict: dict[str, Any] | None = None) -> Tile:
        row = self.rows.of(level, key)
        kind = row["kind"] or "unknown"
        caption = clip(row.get("caption") or row.get("text"), _CAPTION)
        facts = []
        if row["width"] and row["height"]:
            facts.append(f"{row['width']} × {row['height']} px")
        if row["duration"]:
            facts.append(seconds(row["duration"]))
        if row.get("start_us"):
            facts.append(f"from {row['start_us'] / 1e6:.2f} s")
        return Tile(
            id=key,
            level=level,
            kind=kind,
            source=row["source"],
            uri=middle(row["uri"], _URI),
            caption=caption,
            thumb=self._media.thumb(row),
            alt=f"{kind}: {caption}" if caption else f"{kind} without text, {middle(row['uri'], 60)}",
            facts=facts,
            value=verdict["value"] if verdict else None,
            threshold=verdict["threshold"] if verdict else None,
            said=verdict.get("value_text") if verdict else None,
        )


def _value(row: dict[str, Any], field: str) -> float | None:
    """A probed or signal field of a sample."""
    if field == "pixels":
        return row["width"] * row["height"] if row["width"] and row["height"] else None
    value: float | None = row.get(field)
    return value
