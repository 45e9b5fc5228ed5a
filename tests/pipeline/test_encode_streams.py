"""The worker that tokenizes: a stream that is added costs itself, an earlier failure counts once. No Ray."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from curate.pipeline.annotate import Context
from curate.pipeline.decodes import DECODES
from curate.pipeline.fetch import PARTITION
from curate.pipeline.listing import Listing
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import LIGHT, Paths
from curate.pipeline.streams import StreamPlan
from curate.pipeline.tokenize import LOOKED, Encode
from curate.schema.ids import content_id
from curate.schema.recipe import Caption, Cut, Stream
from curate.schema.tables import LEDGER, SAMPLES
from curate.schema.verdict import Failure
from curate.shards.fragments import read_fragment, write_fragment
from curate.shards.schema import KEY_NAMES
from curate.signals.caption import CaptionSignal
from curate.storage import Folder
from curate.storage.tables import write_table
from curate.tokenizers import zoo

SOME = Partition("web-0123456789abcdef", "web", 2)
IDS = [content_id(name) for name in (b"one", b"two")]


class There(Listing):
    """A listing of this process."""

    def __init__(self, build: Folder) -> None:
        self._paths = pa.array([s.path for s in build.files("tokenized")], pa.string())


class Counts:
    """What a board is told."""

    def __init__(self) -> None:
        self.sums: dict[str, int] = {}

    def add(self, stage: str, **counts: int) -> None:
        for name, count in counts.items():
            self.sums[name] = self.sums.get(name, 0) + count

    def spent(self, stage: str, source: str, sums: Mapping[str, float]) -> None:
        pass

    def lease(self, stage: str, partition: str) -> bool:
        return False

    def release(self, stage: str, partition: str) -> None:
        pass


def plan(name: str, tokenizer: str) -> StreamPlan:
    return StreamPlan(Stream(name=name, tokenizer=tokenizer), zoo.card(tokenizer), tokenizer)


IMAGES, WORDS = plan("tok_rgb@256", "image-fsq-64k"), plan("caption", "text-bpe-8k")


def encoded(root: Path, failures: list[Failure | None]) -> tuple[Folder, dict[str, Any], dict[str, int]]:
    """Words are added to a build that has tokens of two images, and no longer has the images."""
    build, paths = Folder(root), Paths.of({"web": None}, Cut(), [CaptionSignal.of(Caption(), [])])
    where = {"start_us": 0, "end_us": 0, "media": "media/gone.tar", "member": "a", "offset": 0, "bytes": 9}
    about = dict.fromkeys(SAMPLES.names) | {"source": "web", "uri": "a", "kind": "image"} | where
    rows = [about | {"sample_id": i, "record_id": i, "content_id": i} for i in IDS]
    samples = pa.Table.from_pylist(rows, schema=SAMPLES)
    write_table(build, paths.samples(SOME.name, "web"), samples)
    words = pa.table({"sample_id": IDS, "caption": ["a cat", "a dog"]})
    write_table(build, paths.signals(SOME.name, "web", LIGHT), words)
    kept = [dict.fromkeys(LEDGER.names, "") | {"level": "sample", "id": i, "record_id": i} for i in IDS]
    empty = {f.name: None for f in LEDGER if f.type != pa.string()}
    ledger = pa.Table.from_pylist([row | empty | {"outcome": "kept"} for row in kept], schema=LEDGER)
    write_table(build, "verdicts/a.parquet", ledger)
    ids = [None if failure else np.zeros((1, *IMAGES.spec.shape[1:]), IMAGES.spec.dtype) for failure in failures]
    path = f"{IMAGES.prefix(paths, SOME)}0123456789abcdef.arrow"
    write_fragment(build, path, IMAGES.spec, samples.select(KEY_NAMES), ids, failures)

    board = Counts()
    context = Context(build, paths, There(build), board, {})  # type: ignore[arg-type]
    head = dict(zip(PARTITION.names, ([SOME.name], ["web"], [""], [2], [0]), strict=True))
    block = pa.table({**head, "verdicts": ["verdicts/a.parquet"], LOOKED.name: pa.array([[]], LOOKED.type)})
    [row] = Encode(context, [IMAGES, WORDS], [])(block).drop_columns([DECODES.name]).to_pylist()
    return build, row, board.sums


def test_a_stream_that_is_added_costs_itself(tmp_path: Path) -> None:
    build, row, _ = encoded(tmp_path, [None, None])
    made = dict(row["fragments"])
    assert {name: len(paths) for name, paths in made.items()} == {"tok_rgb@256": 1, "caption": 1}
    assert read_fragment(build, made["caption"][0]).column("sample_id").to_pylist() == IDS


def test_what_failed_in_one_stream_is_one_failure_of_the_partition(tmp_path: Path) -> None:
    failure = Failure("tokenize:decode", "MediaError", "cut off")
    _, row, shown = encoded(tmp_path, [failure, None])
    assert row["tokenize"] == {"total": 2, "reused": 0, "failed": 1, "retries": 0}
    assert (shown["passed"], shown["failed"], shown["reused"]) == (1, 1, 0)
