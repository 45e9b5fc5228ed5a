"""Small tables of records, samples and signals, written as Parquet the way a build holds them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.schema.fields import SignalField
from curate.schema.tables import FAILURE, RECORDS, SAMPLES

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
"""Fields of made-up signals, named as real ones."""


class Tables:
    """Writes rows to Parquet files; columns that a row does not name get a default or null."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.written = 0
        self.fields = FIELDS
        self.failed = FAILED

    def write(self, rows: Sequence[Row], schema: pa.Schema, parts: int = 1) -> list[str]:
        """Files of about equal size; more parts than rows give empty files."""
        step = -(-len(rows) // parts) or 1
        files = []
        for i in range(parts):
            self.written += 1
            file = self.folder / f"part-{self.written:06d}.parquet"
            pq.write_table(pa.Table.from_pylist(list(rows[i * step : (i + 1) * step]), schema), file)
            files.append(str(file))
        return files

    def records(self, rows: Iterable[Row], parts: int = 1) -> list[str]:
        return self.write([self.record(**row) for row in rows], RECORDS, parts)

    def samples(self, rows: Iterable[Row], parts: int = 1) -> list[str]:
        return self.write([self.sample(**row) for row in rows], SAMPLES, parts)

    def signals(self, rows: Iterable[Row], parts: int = 1) -> list[str]:
        columns = [pa.field(f.name, f.type) for f in FIELDS.values()]
        return self.write(list(rows), pa.schema([pa.field("sample_id", pa.string(), False), *columns, *FAILURE]), parts)

    @staticmethod
    def record(record_id: str, **more: Any) -> Row:
        start = {"source": "s", "uri": f"{record_id}.png", "kind": "image", "meta": "{}", "content_id": record_id}
        return {"record_id": record_id, **start, **more}

    @staticmethod
    def sample(sample_id: str, **more: Any) -> Row:
        record = f"r-{sample_id}"
        start = {"record_id": record, "content_id": record, "source": "s", "uri": f"{record}.png", "kind": "image"}
        span = {"start_us": 0, "end_us": 0, "media": "media/shard-000000.tar", "member": f"{record}.png"}
        return {"sample_id": sample_id, **start, **span, **more}


@pytest.fixture(scope="session")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Tables:
    return Tables(tmp_path_factory.mktemp("tables [it's]*?"))


def by_id(ledger: pa.Table) -> dict[str, Row]:
    """Ledger rows by id, without their nulls."""
    return {row["id"]: {k: v for k, v in row.items() if v is not None} for row in ledger.to_pylist()}


@pytest.fixture(scope="session", name="by_id")
def by_id_fixture() -> Any:
    return by_id
