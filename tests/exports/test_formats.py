"""Each format gives back what was put in: every sample once, ids in their type and shape, the missing as missing."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import yaml
from exported import exported_samples
from object_store import ObjectStore
from readers import read_energon, read_litdata, read_mds
from tiny import Tokens

from curate.exports import export
from curate.schema.errors import CurateError
from curate.shards.commit import read_manifest
from curate.shards.sequence import FlatVocabulary, SequenceView
from curate.shards.stream import stream
from curate.storage import open_store

SPLITS = {"train": 0.75, "held": 0.25}
STREAMS = ("tok_rgb@32", "tok_audio@16k", "caption", "clip_global")


@pytest.fixture(scope="module")
def truth() -> dict[str, Tokens]:
    return {sample.sample_id: sample for sample in exported_samples()}


def check(found: list[dict[str, Any]], truth: dict[str, Tokens]) -> None:
    """Records of `Columns` are the samples."""
    assert sorted(record["sample_id"] for record in found) == sorted(truth)
    for record in found:
        sample = truth[record["sample_id"]]
        assert record["content_id"] == sample.content_id
        assert (record["kind"], record["start_us"], record["end_us"]) == (sample.kind, sample.start_us, sample.end_us)
        missing = record["missing"] if isinstance(record["missing"], list) else json.loads(record["missing"])
        assert missing == [name for name in STREAMS if sample.ids.get(name) is None]
        for name in STREAMS:
            wanted = sample.ids.get(name)
            assert record[name].dtype == (np.float16 if name == "clip_global" else np.uint16)
            assert record[name].size == 0 if wanted is None else np.array_equal(record[name], wanted)
        said = "" if len(sample.ids["caption"]) == 0 else ": a café, dans l’été"
        assert record["caption_text"].endswith(said)


def test_mds_by_its_published_format(export_build: Path, tmp_path: Path, truth: dict[str, Tokens]) -> None:
    list(export(export_build, "mds", tmp_path))
    check([record for split in SPLITS for record in read_mds(tmp_path / split)], truth)


def test_litdata_by_its_published_format(export_build: Path, tmp_path: Path, truth: dict[str, Tokens]) -> None:
    list(export(export_build, "litdata", tmp_path))
    check([record for split in SPLITS for record in read_litdata(tmp_path / split)], truth)


def test_energon_by_its_published_format(export_build: Path, tmp_path: Path, truth: dict[str, Tokens]) -> None:
    list(export(export_build, "energon", tmp_path))
    found = {sample["__key__"]: sample for split in SPLITS for sample in read_energon(tmp_path, split)}
    assert set(found) == set(truth)
    for key, sample in truth.items():
        there = {name for name in STREAMS if sample.ids.get(name) is not None}
        assert set(found[key]) == {"__key__", "json", "txt", *(f"{name}.npy" for name in there)}
        for name in there:
            assert np.array_equal(np.load(io.BytesIO(found[key][f"{name}.npy"])), sample.ids[name])
        assert json.loads(found[key]["json"])["kind"] == sample.kind


def test_a_bucket_holds_the_same_bytes(export_build: Path, tmp_path: Path, s3: ObjectStore) -> None:
    bucket = s3.fresh()
    for name in ("energon", "mds", "parquet"):
        list(export(export_build, name, tmp_path / name))
        list(export(export_build, name, f"{bucket}/{name}"))
        there, here = open_store(f"{bucket}/{name}"), open_store(tmp_path / name)
        assert [file.path for file in there.files()] == [file.path for file in here.files()]
        assert all(there.read(file.path) == here.read(file.path) for file in here.files())


def test_datasets_reads_parquet_with_its_card(export_build: Path, tmp_path: Path, truth: dict[str, Tokens]) -> None:
    list(export(export_build, "parquet", tmp_path / "hub"))
    loaded = datasets.load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == set(SPLITS)
    rows = [row for split in loaded.values() for row in split.with_format("arrow").iter(1)]
    assert len(rows) == len(truth)
    for row in (table.to_pylist()[0] for table in rows):
        sample = truth[row["sample_id"]]
        for name in STREAMS:
            wanted = sample.ids.get(name)
            assert (
                row[name] is None
                if wanted is None
                else np.array_equal(np.array(row[name]).reshape(wanted.shape), wanted)
            )
    assert loaded["train"].features["tok_rgb@32"].feature.feature.feature.dtype == "uint16"
    head = yaml.safe_load((tmp_path / "hub/README.md").read_text().split("---\n")[1])
    assert head["configs"][0]["data_files"][0]["path"] == "held/*.parquet"


def test_mlcroissant_finds_nothing_wrong_and_reads_the_records(
    export_build: Path, tmp_path: Path, truth: dict[str, Tokens], caplog: pytest.LogCaptureFixture
) -> None:
    import mlcroissant

    list(export(export_build, "croissant", tmp_path))
    data = mlcroissant.Dataset(str(tmp_path / "croissant.json"))
    assert not data.metadata.issues.errors
    assert "not standard" not in caplog.text
    found = {}
    for split in SPLITS:
        for row in data.records(split):
            found[row[f"{split}/sample_id"].decode()] = {name.partition("/")[2]: value for name, value in row.items()}
    assert set(found) == set(truth)
    for key, sample in truth.items():
        assert found[key]["start_us"] == sample.start_us
        for name in STREAMS:
            wanted = sample.ids.get(name)
            assert found[key][name] is None if wanted is None else np.array_equal(found[key][name], wanted)


@pytest.mark.filterwarnings("ignore:Transformer Engine and Apex are not installed")
def test_megatron_core_reads_sequences(export_build: Path, tmp_path: Path) -> None:
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    chosen = ["tok_rgb@32", "tok_audio@16k", "caption"]
    written = list(export(export_build, "megatron", tmp_path, streams=chosen))
    for split in SPLITS:
        shown = [item["tokens"] for item in stream(export_build, split, SequenceView(chosen), shuffle=False)]
        read: list[Any] = []
        for prefix in (tmp_path / split / "data_args.txt").read_text().split()[1::2]:
            data = IndexedDataset(str(tmp_path / prefix))
            read += [np.array(data[i]) for i in range(len(data))]  # its map is closed with it
        assert len(read) == len(shown)
        assert all(np.array_equal(tokens, wanted) for tokens, wanted in zip(read, shown, strict=True))
        weights = (tmp_path / split / "data_args.txt").read_text().split()[::2]
        assert sum(map(int, weights)) == sum(map(len, shown))
    assert sum(shard.samples for shard in written) == 60
    said = json.loads((tmp_path / "vocabulary.json").read_text())
    assert said["offset"] == FlatVocabulary.of(read_manifest(export_build)).offset


def test_megatron_refuses_what_has_no_ids(export_build: Path, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match="'clip_global' holds features, not ids"):
        list(export(export_build, "megatron", tmp_path))
    assert list(tmp_path.iterdir()) == []
