"""One table of a build's samples, and of the records that came to none, for the page: written once into a cache.

A row has its verdict, where its medium lies, and every number and word that signals gave. DuckDB writes it a few
partitions at a time and reads it from Parquet, so what is held does not grow with the build.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from blake3 import blake3

from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.shards.commit import read_manifest
from curate.shards.lists import read_files
from curate.shards.tables import CHUNK_ROWS, LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, Tables, open_tables
from curate.signals.probed import PROBED, probed_sql
from curate.storage import Store
from curate.storage.sql import connect, quoted, scan, text

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

FORMAT = 2
"""Of the cached table; a change makes a new one."""

_VERDICT = (
    *("level", "id", "record_id", "source", "uri", "kind", "start_us", "end_us", "outcome", "rule", "value"),
    *("threshold", "value_text", "duplicate_of", "similarity", "stage", "error", "message"),
)
_ABOUT = ("licence", "text", "media", "member", "offset", "bytes")
_OWN = ("n", "part", "meta", "unseen", *_VERDICT, *_ABOUT, *PROBED)


@dataclass(frozen=True)
class Browsed:
    """A build with its table.

    Attributes:
        tables: of the build, for media and what is told of single samples.
        con: DuckDB with the view `rows`; a cursor of it for each question.
        files: of the table, in the order of its rows.
        starts: number of the first row of each file.
        fields: what signals and probing give, by name; of those that are numbers, words or lists of words `rows` has
            a column.
        numbers: fields of `rows` that are numbers and may be sorted and bounded.
        texts: fields of `rows` with text that a search looks at: what the source gave, then what signals gave.
        cache: folder of this build in the cache.
        labels: file in the cache of what a person said of samples, of all versions of this build.
    """

    tables: Tables
    con: DuckDBPyConnection
    files: tuple[Path, ...]
    starts: tuple[int, ...]
    fields: Mapping[str, SignalField]
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    cache: Path
    labels: Path


@contextmanager
def open_table(build: Store, cache: Path) -> Iterator[Browsed]:
    """The table of a finished build, made if the cache does not hold it.

    Args:
        cache: folder that takes a folder for each version of each build, and a file for the labels of each build.

    Raises:
        CurateError: no build is there, an unfinished one, one of another format, or files of it are gone.
    """
    manifest = read_manifest(build)
    dump = json.dumps(manifest.model_dump(mode="json"), sort_keys=True)
    place = cache / blake3(f"{FORMAT} {build} {dump}".encode()).hexdigest(16)
    labels = cache / "labels" / f"{blake3(str(build).encode()).hexdigest(16)}.jsonl"
    with open_tables(build, manifest, read_files(build, manifest)) as tables:
        numbers, words = _columns(tables)
        if not (place / "rows").is_dir():
            _write(tables, (*numbers, *words), place)
        files = tuple(sorted((place / "rows").glob("*.parquet")))
        *starts, _ = accumulate((pq.read_metadata(file).num_rows for file in files), initial=0)
        texts = tuple(name for name in words if pa.types.is_string(tables.types[name]))
        with connect() as con:
            con.execute(f"CREATE VIEW rows AS SELECT * FROM {scan(list(map(str, files)))}")
            yield Browsed(
                tables,
                con,
                files,
                tuple(starts),
                _fields(tables),
                (*PROBED, "bytes", *numbers),
                ("text", *texts),
                place,
                labels,
            )


def _columns(tables: Tables) -> tuple[list[str], list[str]]:
    """Fields of signals that are numbers; and those that are strings, booleans or lists of strings."""
    taken = {name.lower() for name in _OWN}
    free = {name: kind for name, kind in sorted(tables.types.items()) if name.lower() not in taken}
    numbers = [n for n, kind in free.items() if pa.types.is_floating(kind) or pa.types.is_integer(kind)]
    items = {n: kind.value_type if pa.types.is_list(kind) else kind for n, kind in free.items()}
    lone = [n for n, kind in free.items() if pa.types.is_boolean(kind)]
    words = sorted([*lone, *(n for n, kind in items.items() if pa.types.is_string(kind))])
    return numbers, words


def _fields(tables: Tables) -> dict[str, SignalField]:
    """Fields by name, as the manifest tells of them."""
    out = dict(PROBED)
    for signal in tables.manifest.signals:
        for told in signal["fields"]:
            if told["name"] in tables.types:
                low, high = told["range"]
                out[told["name"]] = SignalField(
                    told["name"],
                    tables.types[told["name"]],
                    told["unit"],
                    (low, high),
                    tuple(told["kinds"]),
                    told["about"],
                )
    return out


def _write(tables: Tables, fields: tuple[str, ...], place: Path) -> None:
    """Write the table's files; another process that does the same at the same time does no harm."""
    place.mkdir(parents=True, exist_ok=True)
    signals: dict[str, dict[str, str]] = {}
    for field in fields:
        signals.setdefault(tables.fields[field], {})[field] = quoted(field)
    verdict = ", ".join(f"l.{name}" for name in _VERDICT)
    partial = Path(tempfile.mkdtemp(prefix="partial-", dir=place))
    try:
        base = 0
        for i, parts in enumerate(tables.chunks(CHUNK_ROWS)):
            file = partial / f"{i:06}.parquet"
            with tables.look(parts, [LEDGER_FILES, RECORDS_FILES, SAMPLES_FILES, *signals]):
                samples = tables.with_signals(
                    f"s.part AS spart, s.sample_id, s.record_id AS srecord, s.unseen, {_about('s')}", signals
                )
                tables.execute(
                    f"""
                    COPY (
                        SELECT {base} + row_number() OVER (ORDER BY part, place) - 1 AS n, * EXCLUDE (place)
                        FROM (
                            SELECT l.part, l.file_row_number AS place, {verdict}, m.meta,
                                q.* EXCLUDE (spart, sample_id, srecord)
                            FROM ledger l JOIN ({samples}) q
                                ON l.level = 'sample' AND q.spart = l.part AND q.sample_id = l.id
                                AND q.srecord = l.record_id
                            JOIN records m ON m.part = q.spart AND m.record_id = q.srecord
                            UNION ALL BY NAME
                            SELECT l.part, l.file_row_number AS place, {verdict}, r.meta, {_about("r")}
                            FROM ledger l JOIN records r
                                ON l.level = 'record' AND r.part = l.part AND r.record_id = l.id
                            WHERE l.outcome <> 'sampled'
                        ) ORDER BY n
                    ) TO {text(str(file))} (FORMAT parquet)
                    """
                )
            base += pq.read_metadata(file).num_rows
        try:
            partial.rename(place / "rows")
        except OSError:
            if not (place / "rows").is_dir():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _about(table: str) -> str:
    return ", ".join(f"{table}.{quoted(name)}" for name in _ABOUT) + f", {probed_sql(table)}"


def check_row(number: object) -> int:
    """A row's number as it came from the page.

    Raises:
        CurateError: it is none.
    """
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < 1 << 53:
        return number
    raise CurateError(f"{number!r} is no number of a row")
