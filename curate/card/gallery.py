"""Which records and samples the page shows, and how. Members are chosen by id or by value, never by chance (law 6)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from curate.card.media import Media, Thumb
from curate.card.tables import Tables, quoted
from curate.card.text import clip, middle, number, seconds
from curate.schema.recipe import Recipe

KEPT, PER_RULE, RULES, PAIRS, FAILED = 24, 6, 14, 10, 60
_CAPTION, _URI = 220, 120


@dataclass(frozen=True)
class Tile:
    """One record or sample: how it looks and a few words.

    Attributes:
        alt: text for those who do not see the picture.
        facts: short notes, e.g. `512 × 384 px`, `from 3.2 s`.
    """

    id: str
    level: str
    kind: str
    source: str
    uri: str
    caption: str
    thumb: Thumb
    alt: str
    facts: list[str]
    value: float | None = None
    threshold: float | None = None


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
    """Looks up rows of records and samples and makes tiles of them."""

    def __init__(self, tables: Tables, media: Media, recipe: Recipe) -> None:
        self._tables = tables
        self._media = media
        self._recipe = recipe

    def kept(self) -> list[Tile]:
        """Kept samples in id order, which is a fair draw since ids are digests; each kind has its turn."""
        rows = self._tables.rows(
            """
            SELECT id FROM (
                SELECT id, kind, row_number() OVER (PARTITION BY kind ORDER BY id) AS turn
                FROM ledger WHERE level = 'sample' AND outcome = 'kept')
            ORDER BY turn, kind LIMIT ?
            """,
            [KEPT],
        )
        return self._tiles("sample", [r["id"] for r in rows])

    def dropped(self) -> list[RuleTiles]:
        """For each rule, records' rules first."""
        rules = self._tables.rows(
            "SELECT level, rule, max(threshold) AS threshold, count(*) AS n FROM ledger WHERE outcome = 'dropped' "
            "GROUP BY level, rule ORDER BY level, n DESC, rule LIMIT ?",
            [RULES],
        )
        out = []
        for rule in rules:
            rows = self._tables.rows(
                "SELECT id, value, threshold FROM ledger WHERE outcome = 'dropped' AND level = ? AND rule = ? "
                "ORDER BY abs(value - threshold) DESC NULLS LAST, id LIMIT ?",
                [rule["level"], rule["rule"], PER_RULE],
            )
            tiles = self._tiles(rule["level"], [r["id"] for r in rows], {r["id"]: r for r in rows})
            out.append(RuleTiles(rule["level"], rule["rule"], rule["threshold"], rule["n"], tiles))
        return out

    def duplicates(self) -> list[Pair]:
        """Pairs: the least similar of each level first, since those are the ones to doubt; exact ones after them."""
        rows = self._tables.rows(
            "SELECT level, id, duplicate_of, \"match\", similarity FROM ledger WHERE outcome = 'duplicate' "
            "ORDER BY similarity NULLS LAST, level, id LIMIT ?",
            [PAIRS],
        )
        found = {
            level: self._rows(
                level, sorted({r[key] for r in rows if r["level"] == level for key in ("id", "duplicate_of")})
            )
            for level in ("record", "sample")
        }
        pairs = []
        for row in rows:
            one, other = (found[row["level"]][row[key]] for key in ("id", "duplicate_of"))
            tiles = [self._tile(row["level"], x) for x in (one, other)]
            pairs.append(Pair(tiles[0], tiles[1], row["match"] or "", row["similarity"], self._why(row, one, other)))
        return pairs

    def failed(self) -> list[Failed]:
        """By stage and error, then id."""
        rows = self._tables.rows(
            "SELECT level, id, uri, coalesce(kind, 'unknown') AS kind, stage, error, message, attempt FROM ledger "
            "WHERE outcome = 'failed' ORDER BY level, stage, error, id LIMIT ?",
            [FAILED],
        )
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

    def _why(self, row: dict[str, Any], one: dict[str, Any], keeper: dict[str, Any]) -> str:
        """Why the keeper was kept, from the stated order of preference."""
        if row["level"] == "record":
            if bool((keeper["text"] or "").strip()) != bool((one["text"] or "").strip()):
                return "The same bytes; the one that has text was kept."
            return "The same bytes; of equals the smallest record id was kept."
        keys = self._recipe.decide.near_duplicates[0].keep if self._recipe.decide.near_duplicates else []
        for key in keys:
            mine, theirs = self._value(one, key), self._value(keeper, key)
            if mine != theirs:
                return f"Kept for its larger {key}: {number(theirs)} against {number(mine)}."
        return f"Equal in {' and '.join(keys) or 'all that was compared'}; the smallest sample id was kept."

    def _value(self, row: dict[str, Any], field: str) -> float | None:
        """A probed or signal field of a sample."""
        if field == "pixels":
            return row["width"] * row["height"] if row["width"] and row["height"] else None
        if field in row:
            value: float | None = row[field]
            return value
        if field not in self._tables.fields:
            return None
        found = self._tables.rows(
            f"SELECT {quoted(field)} AS v FROM {self._tables.fields[field]} WHERE sample_id = ?", [row["id"]]
        )
        return found[0]["v"] if found else None

    def _tiles(self, level: str, ids: list[str], verdicts: dict[str, dict[str, Any]] | None = None) -> list[Tile]:
        rows = self._rows(level, ids)
        return [self._tile(level, rows[i], (verdicts or {}).get(i)) for i in ids]

    def _rows(self, level: str, ids: list[str]) -> dict[str, dict[str, Any]]:
        if not ids:
            return {}
        marks = ", ".join("?" for _ in ids)
        rows = self._tables.rows(f"SELECT *, {level}_id AS id FROM {level}s WHERE {level}_id IN ({marks})", ids)
        found = {r["id"]: r for r in rows}
        if level == "sample" and "caption" in self._tables.fields:
            view = self._tables.fields["caption"]
            for r in self._tables.rows(f"SELECT sample_id, caption FROM {view} WHERE sample_id IN ({marks})", ids):
                found[r["sample_id"]]["caption"] = r["caption"]
        return found

    def _tile(self, level: str, row: dict[str, Any], verdict: dict[str, Any] | None = None) -> Tile:
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
            id=row["id"],
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
        )
