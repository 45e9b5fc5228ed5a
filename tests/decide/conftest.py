"""Small fragments of records, samples and signals, written as a build holds them, and what is decided on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.decide.decide import Decided, decide
from curate.decide.engine import LocalEngine
from curate.decide.ledger import checked_counts
from curate.decide.partitions import PartitionFiles
from curate.schema.errors import CurateError
from curate.schema.fields import SignalField
from curate.schema.ledger_laws import LAWS
from curate.schema.recipe import Decide, NearDuplicates, Rule
from curate.schema.tables import FAILURE, LEDGER, RECORDS, SAMPLES
from curate.storage import Folder
from curate.storage.sql import connect

Row = Mapping[str, Any]

FAILED = {"stage": "annotate", "error": "MediaError", "message": "cannot decode", "attempt": 2}

FIELDS = {
    f.name: f
    for f in (
        SignalField("sharpness", pa.float32(), "score", (0, 100), ("image", "video"), "Variance of the Laplacian."),
        SignalField("motion", pa.float32(), "px/frame", (0, None), ("video",)),
        SignalField("aesthetic", pa.float32(), "score", (1, 10), ("image", "video")),
        SignalField("loudness", pa.float32(), "LUFS", (None, None), ("video", "audio")),
        SignalField("faces", pa.int32(), "", (0, None), ("image",)),
        SignalField("tags", pa.string()),
        SignalField("look", pa.list_(pa.float32(), 8), "", kinds=("image", "video")),
        SignalField("sound", pa.list_(pa.float32(), 4), "", kinds=("video", "audio")),
    )
}
"""Fields of made-up signals, named as real ones: `one` gives all but faces, `two` gives faces."""

GROUPS = {"one": [f for f in FIELDS if f != "faces"], "two": ["faces"]}
HOMES = {f: group for group, fields in GROUPS.items() for f in fields}


def hexed(name: str | None) -> str | None:
    """An id of the right form that sorts as the name does; of at most 16 letters."""
    return None if name is None else name.encode().hex().ljust(32, "0")


def named(key: str) -> str:
    return bytes.fromhex(key).rstrip(b"\0").decode()


class Tables:
    """A build of fragments. Columns that a row does not name get a default or null."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fields = FIELDS
        self.failed = FAILED
        self.builds = 0

    def build(
        self,
        samples: Sequence[Row] = (),
        signals: Sequence[Row] = (),
        records: Sequence[Row] | None = None,
        parts: int = 1,
        fields: Mapping[str, SignalField] = FIELDS,
    ) -> Build:
        """Samples go with their records, signals with their samples, records to `parts` partitions in turn of their
        order. Where `records` is None each sample's record is made up."""
        self.builds += 1
        store = Folder(self.folder / str(self.builds))
        if records is None:
            ids = dict.fromkeys(s.get("record_id", f"r-{s['sample_id']}") for s in samples)
            records = [{"record_id": i} for i in ids]
        step = -(-len(records) // parts) or 1
        owner = {r["record_id"]: i // step for i, r in enumerate(records)}
        homes = [owner[s.get("record_id", f"r-{s['sample_id']}")] for s in samples]
        home: dict[str, set[int]] = {}
        for s, part in zip(samples, homes, strict=True):
            home.setdefault(s["sample_id"], set()).add(part)
        files = []
        for part in range(parts):
            name = f"s-{part:04d}"
            mine = [s for s, at in zip(samples, homes, strict=True) if at == part]
            said = [s for s in signals if part in home.get(s["sample_id"], {0})]
            rows = records[part * step : (part + 1) * step]
            self.write(store, f"records/{name}.parquet", [self.record(**r) for r in rows], RECORDS)
            self.write(store, f"samples/{name}.parquet", [self.sample(**s) for s in mine], SAMPLES)
            for group, given in GROUPS.items():
                columns = [pa.field(f, fields[f].type) for f in given]
                schema = [pa.field("sample_id", pa.string(), False), *columns, pa.field(f"failure:{group}", _FAILURE)]
                values = [
                    {
                        "sample_id": hexed(s["sample_id"]),
                        **{f: s.get(f) for f in given},
                        f"failure:{group}": s.get(group),
                    }
                    for s in said
                ]
                self.write(store, f"signals/{group}/{name}.parquet", values, pa.schema(schema))
            files.append(
                PartitionFiles(
                    name,
                    f"records/{name}.parquet",
                    f"samples/{name}.parquet",
                    {g: f"signals/{g}/{name}.parquet" for g in GROUPS},
                )
            )
        return Build(store, files, dict(fields))

    @staticmethod
    def write(store: Folder, path: str, rows: Sequence[Row], schema: pa.Schema) -> None:
        (store.root / path).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema), store.root / path)

    @staticmethod
    def record(record_id: str, **more: Any) -> Row:
        content = hexed(more.pop("content_id", record_id))
        start = {"source": "s", "uri": f"{record_id}.png", "kind": "image", "meta": "{}", "content_id": content}
        return {"record_id": hexed(record_id), **start, **more}

    @staticmethod
    def sample(sample_id: str, **more: Any) -> Row:
        record = more.pop("record_id", f"r-{sample_id}")
        start = {"record_id": hexed(record), "content_id": hexed(record), "source": "s", "uri": f"{record}.png"}
        span = {"start_us": 0, "end_us": 0, "media": "media/m.tar", "member": f"{record}.png", "kind": "image"}
        return {"sample_id": hexed(sample_id), **start, **span, **more}


_FAILURE = pa.struct(FAILURE)


class Build:
    """A build to decide on."""

    def __init__(self, store: Folder, files: list[PartitionFiles], fields: dict[str, SignalField]) -> None:
        self.store, self.files, self.fields = store, files, fields
        self.tokenized: dict[str, list[str]] = {}

    def tokenize(self, failures: Mapping[str, Row | None], part: int = 0) -> None:
        """A fragment of tokens of a partition: ids, and where they failed why."""
        rows = [{"sample_id": hexed(i), "ids": [1, 2], **(why or {})} for i, why in failures.items()]
        schema = pa.schema([SAMPLES.field(0), pa.field("ids", pa.list_(pa.int32())), *FAILURE])
        name = self.files[part].name
        path = f"tokenized/t/{name}-{len(self.tokenized.get(name, []))}.arrow"
        (self.store.root / path).parent.mkdir(parents=True, exist_ok=True)
        with pa.ipc.new_file(str(self.store.root / path), schema) as file:
            for row in rows:
                file.write_table(pa.Table.from_pylist([row], schema))
        self.tokenized.setdefault(name, []).append(path)

    def without(self, group: str) -> Build:
        """The same without a group of signals."""
        files = [replace(f, signals={g: p for g, p in f.signals.items() if g != group}) for f in self.files]
        return Build(self.store, files, self.fields)

    def decide(
        self,
        rules: Sequence[Rule] = (),
        near: Sequence[NearDuplicates] = (),
        records: Sequence[Rule] = (),
        engine: Any = None,
        **more: Any,
    ) -> Decided:
        options = Decide(rules=list(rules), near_duplicates=list(near), records=list(records))
        return decide(
            self.store,
            self.files,
            options,
            self.fields,
            HOMES,
            {g: g for g in GROUPS},
            seed=0,
            engine=engine or LocalEngine(),
            failed=self.tokenized,
            **more,
        )

    def ledger(self, *args: Any, **more: Any) -> pa.Table:
        """All fragments of verdicts, checked: nothing lost, sums right, every keeper kept."""
        decided = self.decide(*args, **more)
        tables = [pq.read_table(self.store.root / f.path) for f in decided.fragments]
        for fragment, table in zip(decided.fragments, tables, strict=True):
            assert table.schema.equals(LEDGER)
            for level, counts in fragment.counts.items():
                found = [r["outcome"] for r in table.to_pylist() if r["level"] == level]
                assert {o: found.count(o) for o in counts} == counts
        whole = pa.concat_tables(tables)
        records = sum(pq.read_metadata(self.store.root / f.records).num_rows for f in self.files)
        checked_counts([f.counts for f in decided.fragments], records=records)
        sound(whole)
        return whole

    def verdicts(self, *args: Any, level: str = "sample", **more: Any) -> dict[str, Row]:
        """Ledger rows of one level by name, without their nulls."""
        out = {}
        for row in self.ledger(*args, **more).to_pylist():
            if row["level"] == level:
                row |= {c: named(row[c]) for c in ("id", "record_id", "duplicate_of") if row[c] is not None}
                out[row["id"]] = {k: v for k, v in row.items() if v is not None}
        return out


def sound(ledger: pa.Table) -> None:
    """Law 1, row by row."""
    with connect() as db:
        db.register("ledger", ledger)
        for broken, query in LAWS:
            assert not db.execute(query).fetchall(), broken


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables(tmp_path_factory.mktemp("tables [it's]*?"))


def refused(build: Build, *args: Any, **more: Any) -> str:
    with pytest.raises(CurateError) as caught:
        build.decide(*args, **more)
    return caught.value.message


@pytest.fixture(scope="session", name="refused")
def refused_fixture() -> Any:
    return refused
