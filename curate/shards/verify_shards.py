"""Token shards against manifest and ledger: every kept sample once, every stream as its codec says (laws 8 and 9)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from curate.schema.errors import CurateError
from curate.schema.fields import KINDS
from curate.schema.ids import order_key
from curate.schema.manifest import Manifest
from curate.shards.ipc import BATCH_ROWS, open_ipc
from curate.shards.report import Problems, StreamReport
from curate.shards.schema import KEY_NAMES, KEYS, StreamSpec, shard_schema, streams_of
from curate.storage import Store
from curate.storage.tables import read_table

_SEEN = ("image", "video")
_NEEDED_BY = {"image": _SEEN, "video": _SEEN, "audio": ("audio",), "array": ("array",), "text": ()}
_POSSIBLE_FOR = {"image": _SEEN, "video": _SEEN, "audio": ("audio", "video"), "array": ("array",), "text": KINDS}
_SENTINEL = re.compile(r"\[S_\d+\]")


@dataclass
class _Stream:
    """A stream while its rows are counted."""

    spec: StreamSpec
    modality: str
    forbidden: NDArray[np.int64]
    ids: int = 0
    samples: int = 0


def check_shards(
    build: Store, manifest: Manifest, sound: set[str], ledger: pa.Table | None, problems: Problems, deep: bool
) -> list[StreamReport]:
    """Check all shards that may be read; returns the recounted streams."""
    try:
        specs = streams_of(manifest)
        schema = shard_schema(specs)
    except ValueError as exc:
        problems.add(f"manifest.json: {exc}")
        return []
    streams = []
    for spec, entry in zip(specs, manifest.streams, strict=True):
        card = manifest.codecs.get(entry.tokenizer)
        if card is None:
            problems.add(f"manifest.json: stream {spec.name}: no codec card of {entry.tokenizer!r}")
        special = card.special_tokens if card else {}
        forbidden = np.array(sorted(i for name, i in special.items() if _SENTINEL.fullmatch(name)), np.int64)
        streams.append(_Stream(spec, entry.modality, forbidden))
    with_sound = _with_sound(build, manifest, sound, problems)
    found: list[pa.Table] = []
    complete = True
    for split in manifest.splits:
        last = ""
        for path in split.shards:
            if path not in sound:
                complete = False
                continue
            for first, batch in _batches(build.local(path), path, schema, problems, deep):
                last = _check_order(manifest.seed, batch, path, first, last, problems)
                _check_batch(batch, path, first, streams, with_sound, problems, deep)
                found.append(_keys(batch, path, first, split.name))
    if not complete:
        problems.add("tokens: not compared with the ledger, since a shard is missing or changed")
    else:
        if ledger is not None:
            _compare(pa.concat_tables(found) if found else _no_keys(), ledger, problems)
        for stream, entry in zip(streams, manifest.streams, strict=True):
            for what, got, said in (("ids", stream.ids, entry.ids), ("samples", stream.samples, entry.samples)):
                if got != said:
                    problems.add(f"tokens: stream {entry.name} holds {got} {what}, the manifest says {said}")
    return [
        StreamReport(name=s.spec.name, vocabulary=s.spec.vocabulary, dtype=s.spec.dtype, ids=s.ids) for s in streams
    ]


def _batches(
    place: Path, path: str, schema: pa.Schema, problems: Problems, deep: bool
) -> Iterator[tuple[int, pa.RecordBatch]]:
    try:
        found, batches = open_ipc(place)
        if not found.equals(schema, check_metadata=True):
            problems.add(f"{path}: its streams, types or codecs are not those of the manifest")
            return
        if any(b.num_rows != BATCH_ROWS for b in batches[:-1]):
            problems.add(f"{path}: its record batches are not of {BATCH_ROWS} rows")
        for batch in batches:
            batch.validate(full=deep)
    except (CurateError, pa.ArrowException) as exc:
        problems.add(f"{path}: cannot be read: {' '.join(str(exc).split())}")
        return
    first = 0
    for batch in batches:
        yield first, batch
        first += batch.num_rows


def _check_order(seed: int, batch: pa.RecordBatch, path: str, first: int, last: str, problems: Problems) -> str:
    for row, sample in enumerate(batch.column("sample_id").to_numpy(zero_copy_only=False)):
        key = order_key(seed, sample)
        if key <= last:
            problems.add(f"{path} row {first + row}: sample {sample} is not in its place of the final order")
            return key
        last = key
    return last


def _check_batch(
    batch: pa.RecordBatch,
    path: str,
    first: int,
    streams: list[_Stream],
    with_sound: set[str],
    problems: Problems,
    deep: bool,
) -> None:
    samples = batch.column("sample_id").to_numpy(zero_copy_only=False)
    kinds = batch.column("kind").to_numpy(zero_copy_only=False)
    heard = np.array([s in with_sound for s in samples], np.bool_)

    def complain(rows: NDArray[Any], what: str) -> None:
        if len(rows):
            problems.many(f"{path}: {what}", f"row {first + int(rows[0])} (sample {samples[int(rows[0])]})", len(rows))

    for stream in streams:
        spec, column = stream.spec, batch.column(stream.spec.name)
        present = column.is_valid().to_numpy(zero_copy_only=False)
        offsets = column.offsets.to_numpy().astype(np.int64)
        lengths = np.diff(offsets)
        stream.samples += int(present.sum())
        stream.ids += int(lengths[present].sum())
        name = f"stream {spec.name}"
        complain(np.flatnonzero(~present & (lengths > 0)), f"{name} has ids under a null")
        broken = lengths % spec.unit != 0 if spec.shape[0] is None else lengths != spec.unit
        complain(np.flatnonzero(present & broken), f"{name} has a count of ids that does not fit {list(spec.shape)}")
        needed = np.isin(kinds, _NEEDED_BY.get(stream.modality, ()))
        if stream.modality == "audio":
            needed |= heard
        complain(np.flatnonzero(needed & ~present), f"{name} is missing where the sample has it")
        possible = np.isin(kinds, _POSSIBLE_FOR.get(stream.modality, ()))
        complain(np.flatnonzero(present & ~possible), f"{name} is there, but the sample's kind cannot have it")
        if not deep:
            continue
        values = column.values.to_numpy()
        wrong = values >= spec.vocabulary if spec.vocabulary else ~np.isfinite(values)
        for what, bad in (
            (
                f"has an id that is not below {spec.vocabulary}" if spec.vocabulary else "is not finite",
                np.flatnonzero(wrong),
            ),
            ("holds a sentinel, which only views may put in", np.flatnonzero(np.isin(values, stream.forbidden))),
        ):
            rows = np.unique(np.searchsorted(offsets, bad, side="right") - 1)
            complain(rows, f"{name} {what}")


def _keys(batch: pa.RecordBatch, path: str, first: int, split: str) -> pa.Table:
    table = pa.Table.from_batches([batch.select(list(KEY_NAMES))])
    rows = pa.array(np.arange(first, first + batch.num_rows))
    for name, values in (("path", [path]), ("split", [split])):
        table = table.append_column(name, pa.array(values * batch.num_rows, pa.string()))
    return table.append_column("row", rows).replace_schema_metadata(None)


def _no_keys() -> pa.Table:
    extra = [pa.field("path", pa.string()), pa.field("split", pa.string()), pa.field("row", pa.int64())]
    return pa.schema([*KEYS, *extra]).empty_table()


_WHERE = "path || ' row ' || \"row\" || ' (sample ' || sample_id || ')'"
_QUERIES = (
    (
        "a sample that lies in shards twice",
        "SELECT min(sample_id) AS it FROM shards GROUP BY sample_id HAVING count(*) > 1",
    ),
    (
        "content that is in more than one split",
        "SELECT content_id AS it FROM shards GROUP BY content_id HAVING count(DISTINCT split) > 1",
    ),
    (
        "a kept sample that is in no shard",
        "SELECT id AS it FROM kept WHERE id NOT IN (SELECT sample_id FROM shards)",
    ),
    (
        "a row whose sample the ledger does not say is kept",
        f"SELECT {_WHERE} AS it FROM shards WHERE sample_id NOT IN (SELECT id FROM kept)",
    ),
    (
        "a row whose kind or span is not the ledger's",
        f"SELECT {_WHERE} AS it FROM shards JOIN kept ON id = sample_id WHERE kept.kind IS DISTINCT FROM shards.kind "
        "OR coalesce(kept.start_us, 0) <> shards.start_us OR coalesce(kept.end_us, 0) <> shards.end_us",
    ),
)


def _compare(shards: pa.Table, ledger: pa.Table, problems: Problems) -> None:
    with duckdb.connect(":memory:") as db:
        db.execute("SET enable_progress_bar_print = false")  # stdout is for the report
        db.execute("SET threads = 1")
        db.register("shards", shards)
        db.register("ledger", ledger)
        db.execute("CREATE VIEW kept AS SELECT * FROM ledger WHERE level = 'sample' AND outcome = 'kept'")
        for what, query in _QUERIES:
            row = db.execute(f"SELECT min(it), count(*) FROM ({query})").fetchone()
            if row is not None:
                problems.many(f"tokens: {what}", str(row[0]), int(row[1]))


def _with_sound(build: Store, manifest: Manifest, sound: set[str], problems: Problems) -> set[str]:
    """Samples whose media have sound, as the build's table of samples says, where it holds one."""
    out: set[str] = set()
    for file in manifest.files:
        if file.path.startswith("samples/") and file.path.endswith(".parquet") and file.path in sound:
            try:
                table = read_table(build, file.path, ["sample_id", "has_audio"])
                heard = table.filter(pc.field("has_audio"))
                out.update(heard.column("sample_id").to_pylist())
            except (pa.ArrowException, OSError, KeyError) as exc:
                problems.add(f"{file.path}: cannot be read: {' '.join(str(exc).split())}")
    return out
