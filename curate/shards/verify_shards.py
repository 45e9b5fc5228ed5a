"""Token shards against manifest and ledger: every kept sample once, every stream as its codec says (laws 8 and 9)."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curate.decide.keys import mix
from curate.schema.errors import CurateError
from curate.schema.fields import KINDS
from curate.schema.manifest import File, Manifest
from curate.schema.recipe import Pack
from curate.shards.ipc import BATCH_ROWS, open_ipc
from curate.shards.order import id_words, keys_of_words, splits_of_content
from curate.shards.report import Problems, StreamReport
from curate.shards.schema import KEYS, StreamSpec, shard_schema, streams_of
from curate.shards.verify_ledger import asked, view
from curate.storage import Store, sql

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
    build: Store,
    manifest: Manifest,
    files: Sequence[File],
    intact: set[str],
    ledger: duckdb.DuckDBPyConnection | None,
    problems: Problems,
    deep: bool,
) -> list[StreamReport]:
    """Check all shards that may be read; returns the recounted streams.

    Args:
        files: of the build.
        ledger: a database with the view `ledger`; None where the ledger cannot be read.
    """
    try:
        specs = streams_of(manifest)
        schema = shard_schema(specs)
        pack = Pack.model_validate(manifest.recipe.get("pack", {}))
    except ValueError as exc:
        problems.add(f"manifest.json: {exc}")
        return []
    if sorted(pack.splits) != sorted(split.name for split in manifest.splits):
        problems.add("manifest.json: its splits are not those of its recipe")
        return []
    streams = []
    for spec, entry in zip(specs, manifest.streams, strict=True):
        card = manifest.codecs.get(entry.tokenizer)
        if card is None:
            problems.add(f"manifest.json: stream {spec.name}: no codec card of {entry.tokenizer!r}")
        special = card.special_tokens if card else {}
        forbidden = np.array(sorted(i for name, i in special.items() if _SENTINEL.fullmatch(name)), np.int64)
        streams.append(_Stream(spec, entry.modality, forbidden))
    sums: RowSums | None = RowSums()
    complete = True
    with tempfile.TemporaryDirectory(prefix="curate-verify-") as folder:
        silent = _Silent(Path(folder) / "silent.parquet")
        for split in manifest.splits:
            order = _Order(manifest.seed, pack, split.name)
            for path in split.shards:
                if path not in intact:
                    complete = False
                    continue
                for first, batch in _batches(build.local(path), path, schema, problems, deep):
                    order.check(batch, path, first, problems)
                    _check_batch(batch, path, first, streams, silent, problems, deep)
                    sums = sums and sums.plus(batch, "sample_id")
        silent.check(build, [f.path for f in files if f.path.startswith("samples/") and f.path in intact], problems)
        if not complete:
            problems.add("tokens: not compared with the ledger, since a shard is missing or changed")
        else:
            if ledger is not None and (sums is None or sums != _kept(ledger, problems)):
                _compare(build, manifest, schema, ledger, Path(folder) / "shards.parquet", problems)
            for stream, entry in zip(streams, manifest.streams, strict=True):
                for what, got, said in (("ids", stream.ids, entry.ids), ("samples", stream.samples, entry.samples)):
                    if got != said:
                        problems.add(f"tokens: stream {entry.name} holds {got} {what}, the manifest says {said}")
    return [
        StreamReport(name=s.spec.name, vocabulary=s.spec.vocabulary, dtype=s.spec.dtype, ids=s.ids) for s in streams
    ]


@dataclass(frozen=True)
class RowSums:
    """What a set of samples amounts to, whatever their order: two sets with equal sums are the same, but by a chance of
    2^-128, where no sample comes twice in one of them."""

    rows: int = 0
    one: int = 0
    other: int = 0

    def plus(self, table: pa.Table | pa.RecordBatch, name: str) -> RowSums | None:
        """With these samples: columns of their ids (`name`), kind, start_us, end_us. None where an id is none."""
        try:
            first, second = id_words(table.column(name))
        except CurateError:
            return None
        kind = pc.fill_null(pc.index_in(table.column("kind"), pa.array(KINDS)), -1)
        mixed = np.zeros(len(first), np.uint64)
        for column in (kind, table.column("start_us"), table.column("end_us")):
            mixed = mix(mixed ^ pc.fill_null(column.cast(pa.int64()), 0).to_numpy().view(np.uint64))
        one = mix(mix(mixed ^ first) ^ second)
        other = mix(mix(~mixed ^ second) ^ first)
        return RowSums(
            self.rows + len(first),
            (self.one + int(one.sum(dtype=np.uint64))) % (1 << 64),
            (self.other + int(other.sum(dtype=np.uint64))) % (1 << 64),
        )


def _kept(ledger: duckdb.DuckDBPyConnection, problems: Problems) -> RowSums | None:
    """The sums of the ledger's kept samples."""
    query = "SELECT id, kind, start_us, end_us FROM ledger WHERE level = 'sample' AND outcome = 'kept'"
    sums: RowSums | None = RowSums()
    with asked("ledger", problems):
        for batch in ledger.sql(query).to_arrow_reader(1 << 16):
            sums = sums and sums.plus(batch, "id")
    return sums


class _Order:
    """The final order of one split, followed shard by shard."""

    def __init__(self, seed: int, pack: Pack, split: str) -> None:
        self._seed, self._pack, self._split = seed, pack, split
        self._last: tuple[int, int] | None = None

    def check(self, batch: pa.RecordBatch, path: str, first: int, problems: Problems) -> None:
        """Check that rows ascend by (key, sample_id), those of `order: partition` aside, and are of this split."""
        samples = batch.column("sample_id")
        try:
            words, second = id_words(samples)
            drawn = splits_of_content(self._seed, batch.column("content_id"), self._pack.splits)
        except CurateError as exc:
            problems.add(f"{path}: {exc.message}")
            return
        strange = np.flatnonzero(drawn != sorted(self._pack.splits).index(self._split))
        if len(strange):
            row = int(strange[0])
            said = f"row {first + row} (sample {samples[row].as_py()})"
            problems.many(f"{path}: content that is in more than one split, or not in its own", said, len(strange))
        if self._pack.order == "partition" or not len(words):
            return
        key = keys_of_words(self._seed, words)
        rises = (key[1:] > key[:-1]) | ((key[1:] == key[:-1]) & (second[1:] > second[:-1]))
        begins = self._last is None or (int(key[0]), int(second[0])) > self._last
        wrong = np.flatnonzero(~np.concatenate(([begins], rises)))
        if len(wrong):
            row = int(wrong[0])
            problems.add(
                f"{path} row {first + row}: sample {samples[row].as_py()} is not in its place of the final order"
            )
        self._last = (int(key[-1]), int(second[-1]))


class _Silent:
    """Videos that have no ids of a stream of audio, to be compared with the table of samples."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._writer: pq.ParquetWriter | None = None

    def add(self, stream: str, batch: pa.RecordBatch, rows: NDArray[np.int64], path: str, first: int) -> None:
        if not len(rows):
            return
        table = pa.table(
            {
                "sample_id": batch.column("sample_id").take(pa.array(rows)),
                "row": rows + first,
                "path": pa.repeat(path, len(rows)),
                "stream": pa.repeat(stream, len(rows)),
            }
        )
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._place, table.schema)
        self._writer.write_table(table)

    def check(self, build: Store, samples: Sequence[str], problems: Problems) -> None:
        """Name those whose media have audio, as the build's tables of samples say, where it holds some."""
        if self._writer is None:
            return
        self._writer.close()
        if not samples:
            return
        found: list[Any] = []
        with build.pinned(samples) as places, sql.connect() as db, asked("samples", problems):
            view(db, "samples", places)
            view(db, "silent", [self._place])
            query = (
                'SELECT path, stream, min("row"), arg_min(sample_id, "row"), count(*) FROM silent WHERE sample_id '
                "IN (SELECT sample_id FROM samples WHERE has_audio) GROUP BY path, stream ORDER BY path, stream"
            )
            found = db.execute(query).fetchall()
        for path, stream, row, sample, count in found:
            what = f"{path}: stream {stream} is missing where the sample has it"
            problems.many(what, f"row {row} (sample {sample})", count)


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


def _check_batch(
    batch: pa.RecordBatch,
    path: str,
    first: int,
    streams: list[_Stream],
    silent: _Silent,
    problems: Problems,
    deep: bool,
) -> None:
    samples = batch.column("sample_id").to_numpy(zero_copy_only=False)
    kinds = batch.column("kind").to_numpy(zero_copy_only=False)

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
            silent.add(spec.name, batch, np.flatnonzero((kinds == "video") & ~present), path, first)
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


_WHERE = "path || ' row ' || \"row\" || ' (sample ' || sample_id || ')'"
_QUERIES = (
    (
        "a sample that lies in shards twice",
        "SELECT min(sample_id) AS it FROM shards GROUP BY sample_id HAVING count(*) > 1",
    ),
    (
        "a kept sample that is in no shard",
        "SELECT id AS it FROM kept WHERE NOT EXISTS (SELECT 1 FROM shards WHERE sample_id = id)",
    ),
    (
        "a row whose sample the ledger does not say is kept",
        f"SELECT {_WHERE} AS it FROM shards WHERE NOT EXISTS (SELECT 1 FROM kept WHERE id = sample_id)",
    ),
    (
        "a row whose kind or span is not the ledger's",
        f"SELECT {_WHERE} AS it FROM shards JOIN kept ON id = sample_id WHERE kept.kind IS DISTINCT FROM shards.kind "
        "OR coalesce(kept.start_us, 0) <> shards.start_us OR coalesce(kept.end_us, 0) <> shards.end_us",
    ),
)


def _compare(
    build: Store,
    manifest: Manifest,
    schema: pa.Schema,
    ledger: duckdb.DuckDBPyConnection,
    place: Path,
    problems: Problems,
) -> None:
    """Name the rows in which shards and ledger differ.

    Args:
        place: a temporary file for the keys of all rows.
    """
    extra = [pa.field("path", pa.string()), pa.field("split", pa.string()), pa.field("row", pa.int64())]
    with pq.ParquetWriter(place, pa.schema([*KEYS, *extra])) as writer:
        for split in manifest.splits:
            for path in split.shards:
                for first, batch in _batches(build.local(path), path, schema, Problems(), deep=False):
                    n = batch.num_rows
                    more = [pa.repeat(path, n), pa.repeat(split.name, n), pa.array(np.arange(first, first + n))]
                    columns = [*(batch.column(f.name) for f in KEYS), *more]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=writer.schema))
    view(ledger, "shards", [place])
    ledger.execute("CREATE VIEW kept AS SELECT * FROM ledger WHERE level = 'sample' AND outcome = 'kept'")
    for what, query in _QUERIES:
        row = ledger.execute(f"SELECT min(it), count(*) FROM ({query})").fetchone()
        if row is not None:
            problems.many(f"tokens: {what}", str(row[0]), int(row[1]))
