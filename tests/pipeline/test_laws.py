"""The laws of the design, on a real build: real media, real models, real processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow.dataset as ds
import pytest
from small import RECIPE, Project, digests
from small import shown as shown_files

from curate.shards.commit import read_manifest

Copy = Callable[[Path], Path]


def ledger(build: Path, level: str) -> dict[str, dict[str, object]]:
    """Verdicts by uri (records) or id (samples)."""
    rows = ds.dataset(build / "verdicts", format="parquet").to_table().to_pylist()
    return {row["uri" if level == "record" else "id"]: row for row in rows if row["level"] == level}


# 1. Nothing is lost


def test_what_goes_in_comes_out_as_exactly_one_verdict(small_build: Path, project: Project) -> None:
    records = ledger(small_build, "record")
    media = {p.name for p in (project.root / "media").iterdir() if p.suffix != ".txt"}
    assert set(records) == media
    counts = read_manifest(small_build).counts
    for level, passed in ((counts.records, "sampled"), (counts.samples, "kept")):
        assert level["total"] == level[passed] + level["dropped"] + level["duplicate"] + level["failed"]
    assert counts.records["total"] == len(media)
    samples = ledger(small_build, "sample")
    sampled = {row["id"] for row in records.values() if row["outcome"] == "sampled"}
    cut = ds.dataset(small_build / "samples").to_table(columns=["sample_id", "record_id"]).to_pylist()
    # what was cut of a record that is then found to be a duplicate is no sample of the build
    assert counts.samples["total"] == len(samples) == sum(row["record_id"] in sampled for row in cut)
    assert set(samples) == {row["sample_id"] for row in cut if row["record_id"] in sampled}


def test_verify_agrees(small_build: Path, project: Project) -> None:
    report = json.loads(project.curate("verify", small_build, "--json").stdout)
    assert report["ok"]
    assert report["problems"] == []
    assert {s["name"] for s in report["streams"]} == {"tok_rgb@256", "tok_audio@16k", "caption"}
    assert all(s["ids"] > 0 for s in report["streams"])


# 2. An error is not a drop


@pytest.mark.parametrize(
    ("uri", "says"),
    [("truncated.mp4", "moov"), ("empty.png", "empty"), ("text.jpg", "")],
)
def test_what_cannot_be_opened_failed_and_takes_no_neighbour_along(small_build: Path, uri: str, says: str) -> None:
    records = ledger(small_build, "record")
    assert records[uri]["outcome"] == "failed"
    assert records[uri]["error"] == "MediaError"
    assert says in str(records[uri]["message"]).lower()
    good = {
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "bikes.mp4",
        "bunny.mp4",
        "speech.mp4",
        "chime.wav",
    }
    assert {u for u in good if records[u]["outcome"] != "sampled"} == set()


def test_the_faults_get_the_verdicts_that_they_were_made_for(small_build: Path) -> None:
    records = ledger(small_build, "record")
    copy = records["chelsea_exact_copy.png"]
    # keeper of exact duplicates: the one with text
    assert (copy["outcome"], copy["match"], copy["duplicate_of"]) == (
        "duplicate",
        "exact",
        records["chelsea.png"]["id"],
    )
    samples = {row["uri"]: row for row in ledger(small_build, "sample").values() if row["kind"] == "image"}
    assert samples["blurred.png"]["outcome"] == "dropped"
    assert samples["blurred.png"]["rule"] == "sharpness >= 40"
    assert float(str(samples["blurred.png"]["value"])) < float(str(samples["blurred.png"]["threshold"])) == 40
    again = samples["coffee_reencoded.jpg"]
    assert (again["outcome"], again["match"]) == ("duplicate", "near")
    assert again["duplicate_of"] == samples["coffee.png"]["id"]
    assert samples["coffee.png"]["outcome"] == "kept"


# 3. Score once, decide late


MOVED = RECIPE.replace("min: 40", "min: 4000")
"""With a rule that drops most samples, and all of some partitions."""


def test_moving_a_threshold_recomputes_no_model(small_build: Path, project: Project, copy_of: Copy) -> None:
    build = copy_of(small_build)
    before = {p: p.stat().st_ino for p in build.rglob("*") if p.is_file()}
    done = project.run(build, recipe=MOVED)
    # no signal file was written again, and every sample that is still kept had its tokens
    for path, inode in before.items():
        if any(path.is_relative_to(build / folder) for folder in ("signals", "tokenized", "pairs")):
            assert path.stat().st_ino == inode
    assert "annotate   " in done.stderr
    line = [text for text in done.stderr.splitlines() if text.startswith("annotate")][-1]
    total = line.split("/")[1].split(" ")[0]
    assert f"{total} reused" in line
    assert read_manifest(build).counts.samples["dropped"] > read_manifest(small_build).counts.samples["dropped"]


@pytest.mark.long
def test_a_moved_threshold_gives_the_bytes_of_a_fresh_run_which_a_person_starts_on_a_terminal(
    small_build: Path, project: Project, copy_of: Copy
) -> None:
    build = copy_of(small_build)
    project.run(build, recipe=MOVED)
    fresh = build.parent / "fresh"
    shown = project.curate_in_a_terminal("run", project.recipe, "--out", fresh)
    assert "annotate" in shown
    assert "eta" in shown, "progress moves while it runs"
    assert shown_files(build) == shown_files(fresh)


def test_a_threshold_outside_the_range_is_refused_before_anything_runs(project: Project, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.replace("{field: brightness, min: 20,", "{field: brightness, min: 300,"))
    done = project.curate("run", recipe, "--out", tmp_path / "out", ok=False)
    assert done.returncode == 2
    assert "r.yaml:18" in done.stderr
    assert "300" in done.stderr
    assert "0 to 255" in done.stderr
    assert not (tmp_path / "out").exists()


# 6. Same input, same recipe, same bytes; 7. Commit, then count


def test_one_worker_and_two_give_the_same_bytes(small_build: Path, project: Project) -> None:
    one = project.root / "one"
    project.run(one, "--workers", 1)
    assert digests(one) == digests(small_build)


def test_a_second_run_of_a_finished_build_changes_nothing(small_build: Path, project: Project, copy_of: Copy) -> None:
    build = copy_of(small_build)
    project.run(build)
    assert digests(build) == digests(small_build)


# 8. Ids are exact; 9. Alignment is by key


def test_streams_meet_by_key_and_missing_ones_are_null(small_build: Path) -> None:
    import curate

    kinds = {}
    for split in ("train", "val"):
        for sample in curate.stream(small_build, split=split, shuffle=False):
            kinds[sample["sample_id"]] = sample["kind"]
            rgb, audio = sample["tok_rgb@256"], sample["tok_audio@16k"]
            if sample["kind"] == "image":
                assert rgb.shape == (1, 32, 32)
                assert audio is None
            if sample["kind"] == "audio":
                assert rgb is None
                assert audio.shape[1] == 8
            if rgb is not None:
                assert rgb.dtype == "uint16"
                assert rgb.max() < 64000
    kept = {i for i, row in ledger(small_build, "sample").items() if row["outcome"] == "kept"}
    assert set(kinds) == kept
