"""Media in a bucket instead of a folder: the same build, byte for byte, through a store that fails all the time."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import pytest
from faulty_proxy import PASSING, faulty_proxy, seeded
from object_store import ObjectStore
from small import Project, digests, package_file

from curate.storage import open_store

RECIPE = """\
name: buckets
partition: 3
sources:
  - {kind: folder, name: files, path: "${MEDIA}/files"}
  - {kind: webdataset, name: tars, path: "${MEDIA}/tars/*.tar"}
  - {kind: table, name: rows, path: "${MEDIA}/t.csv"}
annotate:
  - name: sharpness
tokenize:
  streams:
    - {name: tok_rgb@256, tokenizer: image-fsq-64k}
    - {name: caption, tokenizer: text-bpe-8k}
"""


def make_media(folder: Path) -> None:
    images = [package_file("skimage", f"data/{name}") for name in ("astronaut.png", "coffee.png", "rocket.jpg")]
    (folder / "files").mkdir(parents=True)
    (folder / "tars").mkdir()
    for image in images:
        shutil.copy(image, folder / "files")
        (folder / "files" / image.name).with_suffix(".txt").write_text(f"This is {image.stem}.")
    (folder / "files/false.jpg").write_text("not a picture")
    with tarfile.open(folder / "tars/t.tar", "w") as tar:
        tar.add(package_file("skimage", "data/chelsea.png"), "a/cat.png")
        info = tarfile.TarInfo("a/cat.txt")
        info.size = 6
        tar.addfile(info, io.BytesIO(b"A cat."))
        tar.addfile(tarfile.TarInfo("a/empty.png"))
    (folder / "t.csv").write_text("uri,text\nfiles/coffee.png,the same again\nfiles/none.png,\n")


@pytest.mark.long
def test_the_build_does_not_depend_on_where_the_media_lie(
    tmp_path: Path, s3: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    make_media(tmp_path / "media")
    there = s3.fresh()
    for path in (tmp_path / "media").rglob("*"):
        if path.is_file():
            open_store(there).write(path.relative_to(tmp_path / "media").as_posix(), path.read_bytes())
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("MEDIA", str(tmp_path / "media"))
    project.run(tmp_path / "local", recipe=RECIPE)
    monkeypatch.setenv("MEDIA", there)
    with faulty_proxy(s3.endpoint, s3.key, s3.secret) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
        proxy.choose = seeded(11, 0.3, [fault for fault in PASSING if fault not in ("stall", "drip")])
        done = project.run(tmp_path / "remote", recipe=RECIPE)
        assert proxy.injected.total() >= 3
    assert digests(tmp_path / "remote") == digests(tmp_path / "local")
    counts = json.loads((tmp_path / "local/manifest.json").read_text())["counts"]["records"]
    assert (counts["total"], counts["failed"]) == (8, 3)
    for said in (
        done.stdout,
        done.stderr,
        *(p.read_bytes().decode("latin-1") for p in (tmp_path / "remote").rglob("*.*")),
    ):
        assert s3.secret not in said
    # wrong credentials: the source's line in the recipe, and what to set
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "WRONG-SECRET")
    done = project.curate("run", project.recipe, "--out", tmp_path / "refused", ok=False)
    assert done.returncode == 2
    assert "small.yaml:4: " in done.stderr
    assert "refuses these credentials" in " ".join(done.stderr.split())
    assert "WRONG-SECRET" not in done.stdout + done.stderr
