"""The whole story of one input of a build, from its source to its tokens or its error."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from numpy.typing import NDArray

from curate.card.shard_rows import shard_rows
from curate.decide.bounds import thresholds_of
from curate.schema.errors import CurateError
from curate.schema.fields import TIMED
from curate.schema.recipe import Recipe
from curate.schema.tables import FAILURE_NAMES, LEDGER, RECORDS, SAMPLES
from curate.schema.text import escape_controls
from curate.schema.verdict import Outcome
from curate.shards.commit import read_manifest
from curate.shards.lists import read_files
from curate.shards.tables import FAILURE_PREFIX, LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, Tables, open_tables
from curate.storage import Store, open_store
from curate.storage.sql import quoted

LISTED = 10
"""Matches that are listed where a name is not unique."""


NOT_EVALUATED = "not evaluated"
"""What is told of a signal of the second look that skipped a sample."""


@dataclass
class Trace:
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


def explain(build: Store | Path | str, what: str) -> Trace:
    """The story of a sample id, a record id (the beginning is enough), or a uri (the end is enough).

    Raises:
        CurateError: nothing or more than one thing has that name; the build is not finished.
    """
    build = open_store(build)
    manifest = read_manifest(build)
    with open_tables(build, manifest, read_files(build, manifest)) as tables:
        return _tell(tables, _find(tables, what))


def _tell(tables: Tables, found: _Found) -> Trace:
    """Looks at the one partition of the record, and once more at the ledger for what is a duplicate of it."""
    fields = _signal_columns(tables)
    with tables.look([found.part], [LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, *fields]):
        told = tables.rows("SELECT * FROM ledger WHERE record_id = ?", [found.record])
        about = tables.row("SELECT * FROM records WHERE record_id = ?", [found.record])
        rows = tables.rows("SELECT * FROM samples WHERE record_id = ? ORDER BY start_us, sample_id", [found.record])
        rows = [row for row in rows if found.sample in (None, row["sample_id"])]
        signals = _signals(tables, fields, [row["sample_id"] for row in rows])
    verdicts = {(row["level"], row["id"]): row for row in told}
    for row in rows:
        signals[row["sample_id"]] |= _skipped(tables, verdicts["sample", row["sample_id"]])
    duplicates = _duplicates(tables, [found.record, *(row["sample_id"] for row in rows)])
    story = Trace(
        record={
            "record_id": found.record,
            "about": _said(about, [n for n in RECORDS.names if n not in ("record_id", *FAILURE_NAMES)]),
            "verdict": _verdict_of(verdicts["record", found.record]),
            "duplicates": duplicates.get(("record", found.record), []),
        },
        limits=limits_of(Recipe.model_validate(tables.manifest.recipe)),
    )
    tokens = tokens_of(tables, [row["sample_id"] for row in rows if row["outcome"] == Outcome.KEPT])
    for row in rows:
        sid = row["sample_id"]
        story.samples.append(
            {
                "sample_id": sid,
                "about": _said(row, SAMPLES.names[1:]),
                "verdict": _verdict_of(verdicts["sample", sid]),
                "signals": signals[sid],
                "duplicates": duplicates.get(("sample", sid), []),
                "tokens": tokens.get(sid, {}),
            }
        )
    return story


def signals_of(tables: Tables, part: int, record: str, sample: str) -> dict[str, Any]:
    """What each signal gave for one sample, by field; arrays are told by their size, and where there is no value, why.

    Args:
        part: number of its partition.
    """
    fields = _signal_columns(tables)
    with tables.look([part], [LEDGER_FILES, SAMPLES_FILES, *fields]):
        verdict = tables.row(
            "SELECT not_evaluated FROM ledger WHERE level = 'sample' AND id = ? AND record_id = ?", [sample, record]
        )
        return _signals(tables, fields, [sample]).get(sample, {}) | _skipped(tables, verdict)


def _skipped(tables: Tables, verdict: dict[str, Any]) -> dict[str, str]:
    """Fields of the signals that the second look did not compute of a sample."""
    skipped = set(verdict["not_evaluated"] or ())
    late = (f["name"] for s in tables.manifest.signals if s["name"] in skipped for f in s["fields"])
    return dict.fromkeys(late, NOT_EVALUATED)


@dataclass(frozen=True)
class _Found:
    record: str
    sample: str | None
    part: int


_HOW = """CASE
    WHEN level = 'sample' AND id = $what THEN 0
    WHEN level = 'record' AND id = $what THEN 1
    WHEN level = 'record' AND uri = $what THEN 2
    WHEN level = 'sample' AND starts_with(id, $what) THEN 3
    WHEN level = 'record' AND starts_with(id, $what) THEN 4
    WHEN level = 'record' AND ends_with(uri, $what) THEN 5
    WHEN level = 'record' AND contains(uri, $what) THEN 6 END"""
_NEAR = 6


def _find(tables: Tables, what: str) -> _Found:
    """The record, and the sample if a sample was named. A sample's id comes before a record's, an id before a uri, and
    what is named whole before what is named in part.

    One pass over the ledger's columns of ids and uris; only the first matches of each way are held.
    """
    best, count, rows = _NEAR + 1, 0, list[dict[str, Any]]()
    for found in tables.over_ledger(
        f"""
        WITH named AS (SELECT level, id, record_id, uri, part, {_HOW} AS how FROM ledger)
        SELECT how, count(*) AS n, min({{first: CASE how WHEN {_NEAR} THEN uri ELSE id END, id: id,
            record_id: record_id, uri: uri, part: part, level: level}}, {LISTED}) AS rows
        FROM named WHERE how IS NOT NULL GROUP BY how ORDER BY how LIMIT 1
        """,
        {"what": what},
    ):
        if found["how"] < best:
            best, count, rows = found["how"], 0, []
        if found["how"] == best:
            count += found["n"]
            rows = sorted([*rows, *found["rows"]], key=lambda row: (row["first"], row["id"]))[:LISTED]
    if best >= _NEAR:
        near = ", ".join(row["uri"] for row in rows)
        hint = f"uris that contain it: {near}" if near else "a sample id, a record id or a uri of the ledger"
        raise CurateError(f"nothing in this build is called {what!r}", hint)
    level = rows[0]["level"]
    if count > 1:
        names = "\n  ".join(f"{row['id']}  {_show(row['uri'])}" for row in rows)
        raise CurateError(f"{what!r} names {count} {level}s; say which", names)
    return _Found(rows[0]["record_id"], rows[0]["id"] if level == "sample" else None, rows[0]["part"])


def _said(row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: row[name] for name in names if row[name] is not None}


def _verdict_of(row: dict[str, Any]) -> dict[str, Any]:
    return _said(row, LEDGER.names[LEDGER.get_field_index("outcome") :])


def _verdict(verdict: dict[str, Any]) -> str:
    """One sentence."""
    outcome = verdict["outcome"]
    if outcome == "dropped" and "value_text" in verdict:
        return f"dropped by rule {_show(verdict['rule'])}: value {_show(verdict['value_text'])}"
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


def _signal_columns(tables: Tables) -> dict[str, dict[str, str]]:
    """For each group of signals, its fields and failures with their SQL; what holds arrays is told by its size."""
    out: dict[str, dict[str, str]] = {}
    for name, group in tables.fields.items():
        kind, sql = tables.types[name], quoted(name)
        if pa.types.is_fixed_size_list(kind):
            sql = f"'vector of ' || len({sql})"
        elif pa.types.is_struct(kind):
            sql = f"'array of ' || array_to_string({sql}.shape, ' x ')"
        elif "binary" in str(kind):
            sql = f"'list of ' || len({sql})"
        out.setdefault(group, {})[name] = sql
    for signal, group in tables.failures.items():
        out.setdefault(group, {})[FAILURE_PREFIX + signal] = quoted(FAILURE_PREFIX + signal)
    return out


def _signals(tables: Tables, fields: dict[str, dict[str, str]], samples: list[str]) -> dict[str, dict[str, Any]]:
    """What each signal gave for samples of the partition that is looked at, by sample and field."""
    gives = sorted((f["name"], s["name"]) for s in tables.manifest.signals for f in s["fields"])
    out: dict[str, dict[str, Any]] = {}
    for row in tables.rows(tables.with_signals("s.sample_id", fields, samples)):
        said = out.setdefault(row["sample_id"], {})
        for name, signal in gives:
            if name in tables.fields:
                failure = row.get(FAILURE_PREFIX + signal)
                said[name] = (
                    f"failed in {failure['stage']}: {failure['error']}: {failure['message']}" if failure else row[name]
                )
    return out


def _duplicates(tables: Tables, keepers: list[str]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Duplicates of records and samples, by level and id of the keeper."""
    out: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in tables.over_ledger(
        "SELECT level, duplicate_of, id, uri, match, similarity FROM ledger "
        "WHERE duplicate_of IN (SELECT unnest($keepers))",
        {"keepers": keepers},
    ):
        out.setdefault((row.pop("level"), row.pop("duplicate_of")), []).append(row)
    return {keeper: sorted(found, key=lambda row: row["id"]) for keeper, found in out.items()}


def _pointing(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"its {row['match']} duplicate: {row['id']} ({_show(row['uri'])})"
        + (f", cosine {row['similarity']:.4f}" if row["similarity"] is not None else "")
        for row in rows
    ]


def tokens_of(tables: Tables, samples: list[str]) -> dict[str, dict[str, str]]:
    """For each sample that is in the shards, what each stream holds and where."""
    return {
        sample: {
            s.name: f"{_size(found.ids[s.name], s.shape)}, {found.path} row {found.row}"
            if s.name in found.ids
            else "missing"
            for s in tables.manifest.streams
        }
        for sample, found in shard_rows(tables, samples).items()
    }


def _size(ids: NDArray[Any], shape: list[int | None]) -> str:
    unit = math.prod(n or 1 for n in shape[1:])
    whole = " x ".join(str(n) for n in (len(ids) // unit, *shape[1:]))
    return f"{whole} ids, first {', '.join(map(str, ids[:4].tolist()))}"


def limits_of(recipe: Recipe) -> dict[str, str]:
    """The bounds that a recipe's rules set on samples, in words, by field."""
    out: dict[str, str] = {}
    for rule in recipe.sample_rules:
        ends = (
            ("min", rule.min, "{:g}"),
            ("max", rule.max, "{:g}"),
            ("min", rule.min_percentile, "p{:g}"),
            ("max", rule.max_percentile, "p{:g}"),
        )
        bounds = [f"{end} {form.format(value)}" for end, value, form in ends if value is not None]
        bounds += [b.name.removeprefix(f"{rule.field} ") for b in thresholds_of([rule]) if b.is_words]
        said = ", ".join(bounds)
        name = rule.field or rule.copies_of
        said = f"copies {said}" if rule.copies_of else said
        out[name] = f"{out[name]}; {said}" if name in out else said
    return out


def _lines(about: dict[str, Any], indent: str) -> list[str]:
    return [f"{indent}{name}: {_show(value)}" for name, value in about.items()]


def _show(value: Any) -> str:
    """A value on one line; text from outside cannot move the cursor or reorder a terminal."""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return escape_controls(value)
    if isinstance(value, list):
        return ", ".join(_show(v) for v in value)
    return "not applicable" if value is None else str(value)
