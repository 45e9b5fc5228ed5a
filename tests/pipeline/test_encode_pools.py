"""Tokens of a partition are the same bytes beside the decoder and in workers behind it. No Ray."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from gpu_signal import NOTES
from PIL import Image
from test_encode_streams import IMAGES, WORDS, Counts, There

from curate.pipeline.annotate import Context
from curate.pipeline.blocks import VIEW
from curate.pipeline.decodes import DECODES
from curate.pipeline.flow import BATCH
from curate.pipeline.partitions import Partition
from curate.pipeline.paths import LIGHT, Paths
from curate.pipeline.rows import PARTITION, unnested
from curate.pipeline.streams import StreamPlan
from curate.pipeline.tokenize import LOOKED, RESULT, Encode, EncodeStream
from curate.schema.fields import RunsOn
from curate.schema.ids import content_id
from curate.schema.recipe import Caption, Cut, Stream
from curate.schema.tables import LEDGER, SAMPLES
from curate.shards.fragments import read_failed, read_fragment
from curate.signals.caption import CaptionSignal
from curate.storage import Folder
from curate.storage.retry import retries
from curate.storage.tables import write_table
from curate.tokenizers import zoo

SOME = Partition("web-0123456789abcdef", "web", 5)
PATHS = Paths.of({"web": None}, Cut(), [CaptionSignal.of(Caption(), [])])
TWICE = replace(IMAGES, use=Stream(name="tok_again@256", tokenizer="image-fsq-64k"))
STREAMS = [IMAGES, WORDS, TWICE]


def made(root: Path) -> Folder:
    """A build with five samples of noise to tokenize, of which the second cannot be decoded."""
    build = Folder(root)
    files = []
    for i in range(5):
        file = io.BytesIO()
        noise = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(file, "png")
        files.append(file.getvalue()[: 100 if i == 1 else None])
    build.write("media/a.tar", b"".join(files))
    ids = [content_id(data) for data in files]
    rows = [
        dict.fromkeys(SAMPLES.names)
        | {"source": "web", "uri": f"{i}", "kind": "image", "start_us": 0, "end_us": 0}
        | {"sample_id": ids[i], "record_id": ids[i], "content_id": ids[i]}
        | {"media": "media/a.tar", "member": f"{i}", "offset": sum(map(len, files[:i])), "bytes": len(data)}
        for i, data in enumerate(files)
    ]
    write_table(build, PATHS.samples(SOME.name, "web"), pa.Table.from_pylist(rows, schema=SAMPLES))
    words = pa.table({"sample_id": ids, "caption": ["a cat", "a dog", None, "two birds", ""]})
    write_table(build, PATHS.signals(SOME.name, "web", LIGHT), words)
    empty = dict.fromkeys(LEDGER.names, "") | {f.name: None for f in LEDGER if f.type != pa.string()}
    kept = [empty | {"level": "sample", "id": i, "record_id": i, "outcome": "kept"} for i in ids]
    write_table(build, "verdicts/a.parquet", pa.Table.from_pylist(kept, schema=LEDGER))
    return build


def tokens(build: Folder, here: Sequence[StreamPlan], later: Sequence[StreamPlan]) -> tuple[dict[str, Any], Any]:
    """The row that comes out, and what the board was told."""
    board = Counts()
    context = Context(build, PATHS, There(build), board, {})  # type: ignore[arg-type]
    head = dict(zip(PARTITION.names, ([SOME.name], ["web"], [""], [5], [0]), strict=True))
    row = Encode(context, here, later)(
        pa.table({**head, "verdicts": ["verdicts/a.parquet"], LOOKED.name: pa.array([[]], LOOKED.type)})
    )
    for i, stream in enumerate(later):
        row = EncodeStream(context, stream, later[i + 1 :])(row)
        if later[i + 1 :]:
            views = [n for n in unnested(row, BATCH).column_names if n.startswith(VIEW)]
            assert len(views) <= len({s.view for s in later[i + 1 :] if s.view is not None}), "dropped when unneeded"
    assert row.schema.names == RESULT.names
    return row.drop_columns([DECODES.name]).to_pylist()[0], board.sums


def files(build: Folder) -> dict[str, bytes]:
    return {s.path: (build.root / s.path).read_bytes() for s in build.files("tokenized")}


@pytest.mark.parametrize("most", [1 << 30, 0])
@pytest.mark.parametrize("here", [[0, 1], [1], []])
def test_fragments_do_not_tell_which_worker_made_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: list[int], most: int
) -> None:
    retries.take()  # of earlier tests in this process
    together = made(tmp_path / "together")
    row, told = tokens(together, STREAMS, [])
    assert (row["tokenize"], told["passed"], told["failed"]) == (
        {"total": 5, "reused": 0, "failed": 1, "retries": 0},
        4,
        1,
    )
    monkeypatch.setattr("curate.pipeline.flow.MOST_FLOWING", most)
    monkeypatch.setattr("curate.pipeline.examined.BATCH_ROWS", 2)
    apart = made(tmp_path / "apart")
    later = [s for i, s in enumerate(STREAMS) if i not in here]
    other, shown = tokens(apart, [STREAMS[i] for i in here], later)
    assert files(apart) == files(together)
    assert {**other, "fragments": sorted(other["fragments"])} == {**row, "fragments": sorted(row["fragments"])}
    assert {n: shown[n] for n in ("passed", "failed", "reused")} == {n: told[n] for n in ("passed", "failed", "reused")}
    [images] = dict(other["fragments"])["tok_rgb@256"]
    assert read_failed(apart, images).to_pylist() == [read_fragment(apart, images).column("sample_id")[1].as_py()]


@pytest.mark.parametrize("lost", ["tok_rgb@256", "tok_again@256", "caption"])
def test_a_stream_that_is_lost_is_encoded_alone(tmp_path: Path, lost: str) -> None:
    build = made(tmp_path)
    row, _ = tokens(build, [WORDS], [IMAGES, TWICE])
    whole = files(build)
    build.remove(dict(row["fragments"])[lost])
    assert len(files(build)) == len(whole) - 1
    again, shown = tokens(build, [WORDS], [IMAGES, TWICE])
    assert (again, files(build)) == (row, whole)
    assert shown["passed"] + shown["failed"] + shown["reused"] == 5
    nothing, shown = tokens(build, [WORDS], [IMAGES, TWICE])
    assert (nothing["fragments"], nothing["tokenize"]["failed"], shown["reused"]) == (row["fragments"], 1, 5)


@pytest.mark.parametrize("rows", [128, 1])
@pytest.mark.parametrize("most", [1 << 30, 0])
def test_a_tokenizer_on_a_gpu_is_handed_the_same_whatever_the_decoder_gave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int, most: int
) -> None:
    (tmp_path / "notes").mkdir()
    monkeypatch.setenv(NOTES, str(tmp_path / "notes"))
    monkeypatch.setattr("curate.pipeline.flow.MOST_FLOWING", most)
    monkeypatch.setattr("curate.pipeline.flow.BATCH_ROWS", 1)
    monkeypatch.setattr("curate.pipeline.flow.HANDED_BATCHES", 1)
    monkeypatch.setattr("curate.pipeline.examined.BATCH_ROWS", rows)
    name = "gpu_signal:Greys"
    greys = StreamPlan(Stream(name="greys", tokenizer=name), zoo.card(name), name, on=RunsOn("cuda", batch=2))
    tokens(made(tmp_path / "build"), [WORDS], [greys])
    [notes] = (tmp_path / "notes").iterdir()
    said = [line.split() for line in notes.read_text().splitlines()]
    assert [line[1:4] for line in said] == [["cuda", "float32", "2"]] * 3
    assert [line[-1] for line in said] == ["1", "2", "1"], "of five samples, the second is broken; two at once"
