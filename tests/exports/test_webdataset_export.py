"""An export to WebDataset is read back by webdataset, goes on after a crash, and never mixes two builds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import webdataset
from plugin_build import PluginBuild

import curate
from curate.exports import Export, export
from curate.schema.errors import CurateError
from curate.shards.commit import file_digest
from curate.storage import Folder


def test_webdataset_reads_what_was_written(plugin_build: PluginBuild, tmp_path: Path) -> None:
    said = json.loads(plugin_build.curate("export", plugin_build.build, "--out", tmp_path / "tars", "--json"))
    assert (said["samples"], said["files"], said["were_there"]) == (4, 1, 0)
    tars = [str(path) for path in sorted((tmp_path / "tars").rglob("*.tar"))]
    read = {item["__key__"]: item for item in webdataset.WebDataset(tars, shardshuffle=False).decode()}
    streamed = {sample["sample_id"]: sample for sample in curate.stream(plugin_build.build)}
    assert set(read) == set(streamed)
    for key, item in read.items():
        for stream in ("tok_rgb@256", "tok_colours@128", "caption"):
            assert np.array_equal(item[f"{stream}.npy"], streamed[key][stream])
            assert item[f"{stream}.npy"].dtype == streamed[key][stream].dtype
        assert item["json"]["kind"] == "image"
    assert "a ginger cat looks at the camera" in {item["txt"] for item in read.values()}


def test_what_is_there_stays_and_the_bytes_are_the_same(plugin_build: PluginBuild, tmp_path: Path) -> None:
    first = list(export(plugin_build.build, "webdataset", tmp_path / "a"))
    again = list(export(plugin_build.build, "webdataset", tmp_path / "a"))
    assert [one.was_there for one in first] == [False]
    assert [one.was_there for one in again] == [True]
    list(export(plugin_build.build, "webdataset", tmp_path / "b"))
    digests = [file_digest(Folder(tmp_path / name), first[0].paths[0]) for name in "ab"]
    assert digests[0] == digests[1]
    assert json.loads((tmp_path / "a/export.json").read_text())["rows"] == 4


def test_another_export_or_anything_else_is_not_written_over(plugin_build: PluginBuild, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(CurateError, match="is not empty, and holds no export"):
        list(export(plugin_build.build, "webdataset", tmp_path))
    list(export(plugin_build.build, "webdataset", tmp_path / "x"))
    with pytest.raises(CurateError, match="holds another export"):
        list(export(plugin_build.build, "webdataset", tmp_path / "x", ["train", "train"]))
    with pytest.raises(CurateError, match="has no split 'nope'"):
        list(export(plugin_build.build, "webdataset", tmp_path / "y", ["nope"]))


class Forgetful(Export):
    """Leaves out the last sample of each shard."""

    name, suffix = "forgetful", ".txt"

    def shard(self, samples, file):  # type: ignore[no-untyped-def]
        ids = [sample.sample_id for sample in samples][:-1]
        file.write_text("".join(ids))
        return len(ids)


def test_a_file_with_fewer_samples_than_its_shard_is_refused(plugin_build: PluginBuild, tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"has 3 samples, the manifest says 4"):
        list(export(plugin_build.build, f"{__name__}:Forgetful", tmp_path / "z"))
    assert list((tmp_path / "z").rglob("*.txt")) == []
