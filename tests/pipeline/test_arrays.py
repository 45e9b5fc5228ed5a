"""Rasters from a folder of `.npy` to token shards and out of them again, by the example's tokenizer."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from skimage import data
from small import Project

from curate.schema.ids import content_id
from curate.shards.stream import stream
from curate.tokenizers import zoo

EXAMPLES = Path(__file__).parents[2] / "examples"
RECIPE = """\
name: rasters
partition: 4
sources:
  - {kind: folder, name: here, path: media, licence: test}
annotate:
  - name: tiny_image
tokenize:
  streams:
    - {name: tok_raster@128, tokenizer: "raster_tokenizer:RasterTokenizer"}
"""


def test_a_folder_of_rasters_becomes_token_shards_and_bad_ones_fail_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = tmp_path / "media"
    media.mkdir()
    rng = np.random.default_rng(0)
    rasters = [np.kron(rng.integers(0, 65536, (6, 16, 16), np.uint16), np.ones((8, 8), np.uint16)) for _ in range(3)]
    for i, raster in enumerate(rasters):
        np.save(media / f"tile{i}.npy", raster)
    np.save(media / "five_channels.npy", rasters[0][:5])
    np.save(media / "nan.npy", np.full((6, 128, 128), np.nan, np.float32))
    np.save(media / "pickled.npy", np.array([{}], object), allow_pickle=True)
    (media / "cut.npy").write_bytes((media / "tile0.npy").read_bytes()[:-100])
    (tmp_path / "rasters.yaml").write_text(RECIPE)
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES))
    monkeypatch.syspath_prepend(str(EXAMPLES))
    project, build = Project(tmp_path), tmp_path / "build"
    project.curate("run", tmp_path / "rasters.yaml", "--out", build, "--workers", 2)
    project.curate("verify", build)

    held = {sample["sample_id"]: sample["tok_raster@128"] for sample in stream(build)}
    assert held.keys() == {content_id((media / f"tile{i}.npy").read_bytes()) for i in range(3)}
    tokenizer = zoo.load("raster_tokenizer:RasterTokenizer")
    for i, raster in enumerate(rasters):
        [ids] = tokenizer.encode([raster])
        np.testing.assert_array_equal(held[content_id((media / f"tile{i}.npy").read_bytes())], ids)

    records = {r["record_id"]: r["uri"] for r in rows_below(build, "records")}
    samples = {s["sample_id"]: records[s["record_id"]] for s in rows_below(build, "samples")}
    failed = {
        (records | samples)[row["id"]]: (row["stage"], row["message"])
        for row in rows_below(build, "verdicts")
        if row["outcome"] == "failed"
    }
    assert failed.keys() == {"five_channels.npy", "nan.npy", "pickled.npy", "cut.npy"}
    for name in ("five_channels.npy", "nan.npy"):
        assert failed[name][0] == "tokenize:tok_raster@128"
        assert "expected uint16" in failed[name][1]
    assert failed["pickled.npy"] == (
        "ingest:probe",
        "pickled.npy is an array (.npy) of pickled Python objects, which are never read.",
    )
    assert "but holds" in failed["cut.npy"][1]


MASKS = """\
name: masks
sources:
  - {kind: webdataset, name: shards, path: "masks-*.tar", licence: test}
  - {kind: folder, name: here, path: media, licence: test}
annotate:
  - name: tiny_image
tokenize:
  streams:
    - {name: tok_mask@64, tokenizer: mask-vq-1k}
"""


@pytest.mark.long
def test_masks_from_a_tar_and_a_folder_are_tokenized_and_an_array_beside_an_image_is_passed_over(
    tmp_path: Path,
) -> None:
    masks = np.zeros((3, 64, 64, 1), np.float32)
    masks[0, 10:50, 20:40] = masks[1, :32] = masks[2, 8:24, 8:24] = 1
    with tarfile.open(tmp_path / "masks-0.tar", "w") as tar:
        for name, raw in (
            ("a.npy", npy(masks[0])),
            ("b.npy", npy(masks[1])),
            ("grey.npy", npy(masks[0] / 2)),
            ("pictured.jpg", jpeg()),
            ("pictured.npy", npy(masks[1])),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    (tmp_path / "media").mkdir()
    for name, raw in (("c.npy", npy(masks[2])), ("too.jpg", jpeg()), ("too.npy", npy(masks[0]))):
        (tmp_path / "media" / name).write_bytes(raw)
    (tmp_path / "masks.yaml").write_text(MASKS)
    project, build = Project(tmp_path), tmp_path / "build"
    project.curate("run", tmp_path / "masks.yaml", "--out", build, "--workers", 2)
    project.curate("verify", build)

    held = {s["sample_id"]: s["tok_mask@64"] for s in stream(build) if s["tok_mask@64"] is not None}
    assert held.keys() == {content_id(npy(mask)) for mask in masks}
    for mask in masks:
        [ids] = zoo.load("mask-vq-1k").encode([mask])
        np.testing.assert_array_equal(held[content_id(npy(mask))].reshape(4, 4), ids)
    records = [r["uri"].rpartition("/")[2] for r in rows_below(build, "records")]
    assert sorted(r.rpartition("#")[2] for r in records) == sorted(
        ["a", "b", "grey", "pictured", "c.npy", "too.jpg"]
    ), records
    [failed] = [row for row in rows_below(build, "verdicts") if row["outcome"] == "failed"]
    assert "0 outside a mask and 1 inside" in failed["message"]


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def jpeg() -> bytes:
    file = io.BytesIO()
    Image.fromarray(data.chelsea()).save(file, "JPEG")
    return file.getvalue()


def rows_below(build: Path, folder: str) -> list[dict[str, Any]]:
    return [row for path in (build / folder).rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
