"""Runs of thousands of inputs at default settings: what a quickstart is too small to show."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from mid_media import Truth, make_folder, make_table, make_tars, served
from small import Project

from curate.shards.commit import read_manifest
from curate.shards.verify import verify

IMAGES = """\
name: images
sources:
  - {kind: webdataset, name: tars, path: "tars/*.tar"}
annotate:
  - name: sharpness
  - name: brightness
  - name: tiny_image
decide:
  near_duplicates:
    - {embedding: tiny_image, threshold: 0.98}
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
"""

ALL = """\
name: all
sources:
  - {kind: webdataset, name: tars, path: "tars/*.tar"}
  - {kind: folder, name: folder, path: folder}
  - {kind: table, name: web, path: web/table.csv, base_url: "BASE", fetch: {allow_private: true}}
annotate:
  - name: sharpness
  - name: brightness
  - name: motion
  - name: loudness
  - name: voice_activity
  - name: tiny_image
decide:
  near_duplicates:
    - {embedding: tiny_image, threshold: 0.98}
tokenize:
  streams:
    - {name: tok_audio@16k, tokenizer: audio-rvq-4kbps}
    - {name: caption, tokenizer: text-bpe-8k}
"""


def check(build: Path, said: str, *truths: Truth) -> None:
    """Laws 1, 2 and 12 of a finished build."""
    assert "Traceback" not in said
    manifest = read_manifest(build)
    records, samples = manifest.counts.records, manifest.counts.samples
    assert records["total"] == sum(t.records for t in truths)
    for counts, passed in ((records, "sampled"), (samples, "kept")):
        assert counts["total"] == counts[passed] + counts["dropped"] + counts["duplicate"] + counts["failed"]
    assert records["duplicate"] == sum(t.exact for t in truths)
    assert records["failed"] + samples["failed"] == sum(t.broken for t in truths), "each broken file, and nothing else"
    assert samples["duplicate"] == sum(t.near for t in truths)
    assert verify(build).problems == []
    shown = sum(split.samples for split in manifest.splits)
    assert shown == samples["kept"], "no sample is lost on the way to the shards"
    files = Counter(path.relative_to(build).parent.as_posix() for path in build.rglob("*") if path.is_file())
    partitions = files["records"]
    assert partitions <= 2 + records["total"] // 1024 + 250 // 32, "files grow with partitions"
    assert max(n for folder, n in files.items() if not folder.startswith("tokens/")) <= partitions, "one a partition"
    assert sum(files.values()) <= 12 * partitions + 8


def test_two_thousand_images_at_default_settings(tmp_path: Path) -> None:
    truth = make_tars(tmp_path / "tars", 2000)
    recipe = tmp_path / "images.yaml"
    recipe.write_text(IMAGES)
    done = Project(tmp_path).curate("run", recipe, "--out", tmp_path / "build", "--workers", 2)
    check(tmp_path / "build", done.stderr, truth)


@pytest.mark.long
def test_thousands_of_all_kinds_at_default_settings(tmp_path: Path) -> None:
    truths = [make_tars(tmp_path / "tars", 5000), make_folder(tmp_path / "folder", 50, 200)]
    truths.append(make_table(tmp_path / "web", 200))
    recipe, build = tmp_path / "all.yaml", tmp_path / "build"
    with served(tmp_path / "web") as base:
        recipe.write_text(ALL.replace("BASE", base))
        done = Project(tmp_path).curate("run", recipe, "--out", build, "--workers", 2)
        check(build, done.stderr, *truths)
        before = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in build.rglob("*") if p.is_file()}
        again = Project(tmp_path).curate("run", recipe, "--out", build, "--workers", 2)
    assert "Traceback" not in again.stderr
    written = {
        p.relative_to(build).parts[0] for p, was in before.items() if (p.stat().st_ino, p.stat().st_mtime_ns) != was
    }
    assert written <= {"card", "entries", "units", "verdicts", "versions", "manifest.json"}, "all that is dear is there"
    verdicts = ds.dataset(build / "verdicts", format="parquet").to_table(filter=ds.field("level") == "sample")
    kinds = Counter(verdicts["kind"].to_pylist())
    assert kinds["video"] >= 49
    assert kinds["audio"] == 199


@pytest.mark.long
def test_a_partition_takes_a_fixed_number_of_requests(tmp_path: Path) -> None:
    roots = {partitions: tmp_path / str(partitions) for partitions in (3, 9)}
    for partitions, root in roots.items():
        make_tars(root / "tars", 8 * partitions)
        (root / "images.yaml").write_text(f"partition: 8\n{IMAGES}")
    command = [sys.executable, Path(__file__).with_name("counted.py"), *roots.values()]
    driver = subprocess.run([*map(str, command)], check=True, capture_output=True, text=True).stdout.split()[-1]
    by_driver, by_tasks = {}, {}
    for partitions, root in roots.items():
        lines = [line.split(" ") for line in (root / "log").read_text().splitlines()]
        by_driver[partitions] = Counter(method for pid, method, _ in lines if pid == driver)
        card = next(pid for pid, _, path in lines if path == "card/index.html")  # it shows as many images of any build
        of_tasks = (line for line in lines if line[0] != driver and line[:2] != [card, "read_range"])
        by_tasks[partitions] = Counter(method for _, method, _ in of_tasks)
    assert by_tasks[3]["files"] == by_tasks[9]["files"] == 0, "no task lists a stage"
    assert by_driver[3]["files"] == by_driver[9]["files"] > 0, "the driver lists as often, however many there are"
    assert {m: n / 9 for m, n in by_tasks[9].items()} == pytest.approx(
        {m: n / 3 for m, n in by_tasks[3].items()}, abs=1.5
    )
    assert sum(by_tasks[9].values()) / 9 < 50
    read_whole = {path.split("/")[0] for line in lines if line[1] == "chunks" for path in line[2:]}
    assert read_whole <= {"card"}, "digests are made where bytes are written"
    assert (by_driver[9].total() - by_driver[3].total()) / 6 < 50
