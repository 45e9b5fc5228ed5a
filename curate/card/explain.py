"""The whole story of one input of a build, from its source to its tokens or its error."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curate.card.tables import Tables, quoted
from curate.schema.errors import CurateError
from curate.schema.fields import TIMED
from curate.schema.recipe import Recipe, Rule
from curate.schema.tables import FAILURE_NAMES
from curate.shards.commit import read_manifest
from curate.storage import Store, open_store

LISTED = 10
"""Matches that are listed where a name is not unique."""


@dataclass
class Story:
    """What became of one record, and of the samples cut from it.

    Attributes:
        record: its row of the records table and its verdict.
        samples: for each sample: its row, verdict, signals, duplicates of it, tokens.
        limits: field to the recipe's bounds, in words.
    """

    record: dict[str, Any]
    samples: list[dict[str, Any]] = field(default_factory=list)
    limits: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        """For machines."""
        return {"record": self.record, "samples": self.samples}

    def text(self) -> str:
        """For people; control characters of captions and uris are escaped."""
        out = [f"record {self.record['record_id']}", *_lines(self.record["about"], "  ")]
        out.append(f"  verdict: {_verdict(self.record['verdict'])}")
        out += [f"  {line}" for line in _pointing(self.record["duplicates"])]
        for sample in self.samples:
            about = sample["about"]
            span = f", {about['start_us'] / 1e6:.3f} to {about['end_us'] / 1e6:.3f} s" if about["kind"] in TIMED else ""
            out += ["", f"sample {sample['sample_id']} ({about['kind']}{span})"]
            out.append(f"  verdict: {_verdict(sample['verdict'])}")
            out += [f"  {line}" for line in _pointing(sample["duplicates"])]
            out += [f"  {line}" for line in self._signals(sample["signals"])]
            out += [f"  tokens {name}: {said}" for name, said in sample["tokens"].items()]
        return "\n".join(out)

    def _signals(self, values: dict[str, Any]) -> list[str]:
        out = []
        for name, value in values.items():
            limit = f"   (recipe: {self.limits[name]})" if name in self.limits else ""
            out.append(f"signal {name} = {_show(value)}{limit}")
        return out


def explain(build: Store | Path | str, what: str) -> Story:
    """The story of a sample id, a record id (the beginning is enough), or a uri (the end is enough).

    Raises:
        CurateError: nothing or more than one thing has that name; the build is not finished.
    """
    build = open_store(build)
    manifest = read_manifest(build)
    tables = Tables(build, manifest)
    found = _find(tables, what)
    verdict = tables.row("SELECT * FROM ledger WHERE level = 'record' AND id = ?", [found.record])
    about = tables.row("SELECT * FROM records WHERE record_id = ?", [found.record])
    story = Story(
        record={
            "record_id": found.record,
            "about": {k: v for k, v in about.items() if v is not None and k not in ("record_id", *FAILURE_NAMES)},
            "verdict": _verdict_of(verdict),
            "duplicates": _duplicates(tables, "record", found.record),
        },
        limits=_limits(Recipe.model_validate(manifest.recipe)),
    )
    rows = tables.rows("SELECT * FROM samples WHERE record_id = ? ORDER BY start_us, sample_id", [found.record])
    tokens = _tokens(tables, [row["sample_id"] for row in rows if found.sample in (None, row["sample_id"])])
    for row in rows:
        sid = row.pop("sample_id")
        if found.sample is None or found.sample == sid:
            story.samples.append(
                {
                    "sample_id": sid,
                    "about": {k: v for k, v in row.items() if v is not None},
                    "verdict": _verdict_of(tables.row("SELECT * FROM ledger WHERE level = 'sample' AND id = ?", [sid])),
                    "signals": _signals(tables, sid),
                    "duplicates": _duplicates(tables, "sample", sid),
                    "tokens": tokens.get(sid, {}),
                }
            )
    return story


@dataclass(frozen=True)
class _Found:
    record: str
    sample: str | None


def _find(tables: Tables, what: str) -> _Found:
    """The record, and the sample if a sample was named. A sample's id comes before a record's, an id before a uri."""
    for exact in (True, False):
        ids = "id = ?" if exact else "starts_with(id, ?)"
        uris = "uri = ?" if exact else "ends_with(uri, ?)"
        for condition, level in ((ids, "sample"), (ids, "record"), (uris, "record")):
            rows = tables.rows(
                f"SELECT id, record_id, uri FROM ledger WHERE level = '{level}' AND {condition} ORDER BY id", [what]
            )
            if len(rows) == 1:
                return _Found(rows[0]["record_id"], rows[0]["id"] if level == "sample" else None)
            if rows:
                names = "\n  ".join(f"{row['id']}  {_show(row['uri'])}" for row in rows[:LISTED])
                raise CurateError(f"{what!r} names {len(rows)} {level}s; say which", names)
    near = [row["uri"] for row in tables.rows("SELECT uri FROM records WHERE contains(uri, ?) ORDER BY uri", [what])]
    hint = (
        f"uris that contain it: {', '.join(near[:LISTED])}"
        if near
        else "a sample id, a record id or a uri of the ledger"
    )
    raise CurateError(f"nothing in this build is called {what!r}", hint)


def _verdict_of(row: dict[str, Any]) -> dict[str, Any]:
    return {
        k: v
        for k, v in row.items()
        if v is not None and k not in ("level", "id", "record_id", "source", "uri", "kind", "start_us", "end_us")
    }


def _verdict(verdict: dict[str, Any]) -> str:
    """One sentence."""
    outcome = verdict["outcome"]
    if outcome == "dropped":
        value, threshold = verdict["value"], verdict["threshold"]
        return f"dropped by rule {verdict['rule']}: value {value:.6g}, threshold {threshold:.6g}"
    if outcome == "duplicate":
        cosine = f", cosine {verdict['similarity']:.4f}" if "similarity" in verdict else ""
        return f"{verdict['match']} duplicate of {verdict['duplicate_of']}{cosine}"
    if outcome == "failed":
        message = _show(verdict["message"])
        return f"failed in {verdict['stage']}, attempt {verdict['attempt']}: {verdict['error']}: {message}"
    return str(outcome)


def _signals(tables: Tables, sid: str) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for view in sorted(set(tables.fields.values())):
        names = [name for name, where in tables.fields.items() if where == view]
        row = tables.row(
            f"SELECT {', '.join(map(quoted, names))}, stage, error, message FROM {view} WHERE sample_id = ?", [sid]
        )
        for name in names:
            failed = f"failed in {row['stage']}: {row['error']}: {row['message']}"
            value = row[name]
            if pa.types.is_fixed_size_list(tables.types[name]) and value is not None:
                value = f"vector of {len(value)}"
            out[name] = failed if row["error"] is not None else value
    return dict(sorted(out.items()))


def _duplicates(tables: Tables, level: str, key: str) -> list[dict[str, Any]]:
    return tables.rows(
        "SELECT id, uri, match, similarity FROM ledger WHERE level = ? AND duplicate_of = ? ORDER BY id", [level, key]
    )


def _pointing(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"its {row['match']} duplicate: {row['id']} ({_show(row['uri'])})"
        + (f", cosine {row['similarity']:.4f}" if row["similarity"] is not None else "")
        for row in rows
    ]


def _tokens(tables: Tables, sids: list[str]) -> dict[str, dict[str, str]]:
    """For each kept sample, what each stream holds and in which shard."""
    out: dict[str, dict[str, str]] = {}
    wanted = pa.array(sids, pa.string())
    for split in tables.manifest.splits:
        for path in split.shards:
            with pa.memory_map(str(tables.path(path))) as source:
                table = pa.ipc.open_file(source).read_all()
                hits = table.append_column("row", pa.array(range(table.num_rows), pa.int64()))
                hits = hits.filter(pc.is_in(hits["sample_id"], wanted))
                for row in hits.to_pylist():
                    out[row["sample_id"]] = {
                        s.name: "missing"
                        if row[s.name] is None
                        else f"{_size(row[s.name], s.shape)}, {path} row {row['row']}"
                        for s in tables.manifest.streams
                    }
    return out


def _size(ids: list[int], shape: list[int | None]) -> str:
    unit = 1
    for n in shape[1:]:
        unit *= n or 1
    whole = " x ".join(str(n) for n in (len(ids) // unit, *shape[1:]))
    return f"{whole} ids, first {', '.join(map(str, ids[:4]))}"


def _limits(recipe: Recipe) -> dict[str, str]:
    rules = [Rule(field="duration", min=recipe.cut.min_seconds)] if recipe.cut.min_seconds else []
    out: dict[str, str] = {}
    for rule in [*rules, *recipe.decide.rules]:
        ends = (
            ("min", rule.min, "{:g}"),
            ("max", rule.max, "{:g}"),
            ("min", rule.min_percentile, "p{:g}"),
            ("max", rule.max_percentile, "p{:g}"),
        )
        said = ", ".join(f"{end} {form.format(value)}" for end, value, form in ends if value is not None)
        out[rule.field] = f"{out[rule.field]}; {said}" if rule.field in out else said
    return out


def _lines(about: dict[str, Any], indent: str) -> list[str]:
    return [f"{indent}{name}: {_show(value)}" for name, value in about.items()]


def _show(value: Any) -> str:
    """A value on one line; text from outside cannot move the cursor or reorder a terminal."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in value)
    if isinstance(value, list):
        return ", ".join(_show(v) for v in value)
    return "not applicable" if value is None else str(value)
