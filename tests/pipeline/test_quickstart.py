"""The main job, whole: `curate run quickstart`, with every model and every fault that was put into its media."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pytest
from small import Project

import curate
from curate.shards.commit import read_manifest
from curate.shards.sequence import FlatVocabulary


@pytest.fixture(scope="module")
def records(quickstart: Path) -> dict[str, dict[str, Any]]:
    rows = ds.dataset(quickstart / "verdicts", format="parquet").to_table().to_pylist()
    return {row["uri"]: row for row in rows if row["level"] == "record"}


@pytest.fixture(scope="module")
def samples(quickstart: Path) -> dict[str, list[dict[str, Any]]]:
    out: dict[str, list[dict[str, Any]]] = {}
    for row in ds.dataset(quickstart / "verdicts", format="parquet").to_table().to_pylist():
        if row["level"] == "sample":
            out.setdefault(row["uri"], []).append(row)
    return out


def signal(build: Path, name: str) -> dict[str, dict[str, Any]]:
    rows = ds.dataset(build / "signals" / name, format="parquet").to_table().to_pylist()
    return {row["sample_id"]: row for row in rows}


def test_it_says_what_it_did(quickstart: Path) -> None:
    """It shows every stage, and ends with the path of a card to open and the command that streams."""
    said, progress = ((quickstart.parent / name).read_text() for name in ("stdout", "stderr"))
    assert f"card:   {quickstart}/card/index.html" in said
    assert f"stream {quickstart} --bench" in said
    for stage in ("ingest", "annotate", "decide", "tokenize", "pack", "card"):
        assert f"\n{stage} " in "\n" + progress, "progress of every stage is shown"


def test_its_manifest_says_where_streams_lie_in_one_vocabulary(quickstart: Path) -> None:
    manifest = read_manifest(quickstart)
    words = FlatVocabulary.of(manifest)
    assert {s.name: s.flat for s in manifest.streams} == {s.name: words.block(s.name) for s in manifest.streams}


def test_it_takes_what_it_promises(quickstart: Path) -> None:
    rows = ds.dataset(quickstart / "records", format="parquet").to_table().to_pylist()
    kinds = [row["kind"] for row in rows]
    assert kinds.count("video") >= 5
    assert kinds.count("image") >= 60
    assert kinds.count("audio") >= 10
    assert sum(row["text"] is not None for row in rows) >= 60


def test_verify_finds_nothing_wrong(quickstart: Path, project: Project) -> None:
    report = json.loads(project.curate("verify", quickstart, "--json").stdout)
    assert report["problems"] == []
    assert report["ok"]
    for level, parts in (
        ("records", ("sampled", "dropped", "duplicate", "failed")),
        ("samples", ("kept", "dropped", "duplicate", "failed")),
    ):
        assert report[level]["total"] == sum(report[level][part] for part in parts)


@pytest.mark.parametrize(
    ("uri", "stage", "says"),
    [
        ("faults/empty.png", "ingest:probe", "empty"),
        ("faults/a_text_file.jpg", "ingest:probe", "text file"),
        ("faults/truncated_without_index.mp4", "ingest:probe", "moov"),
        ("missing.jpg", "ingest", "404"),
        ("slow.jpg", "ingest", "3 s"),
        ("wrong_length.jpg", "ingest", "cut off"),
        ("too_large.jpg", "ingest", "4000000"),
    ],
)
def test_records_that_cannot_be_opened_failed(records: Mapping[str, Any], uri: str, stage: str, says: str) -> None:
    row = records[uri]
    assert (row["outcome"], row["stage"]) == ("failed", stage)
    assert says in row["message"]


def test_samples_that_cannot_be_decoded_failed_and_their_neighbours_did_not(samples: Mapping[str, Any]) -> None:
    [corrupt] = samples["faults/corrupt.jpg"]
    assert (corrupt["outcome"], corrupt["stage"]) == ("failed", "annotate:decode")
    cut_off = sorted(samples["faults/truncated_in_its_media.mp4"], key=lambda row: row["start_us"])
    assert cut_off[-1]["outcome"] == "failed"
    assert all(row["outcome"] != "failed" for row in cut_off[:-1])
    failed = {uri for uri, rows in samples.items() for row in rows if row["outcome"] == "failed"}
    assert failed == {"faults/corrupt.jpg", "faults/truncated_in_its_media.mp4"}


def test_blurred_and_dark_images_are_dropped_by_their_rules(samples: Mapping[str, Any]) -> None:
    [blurred], [dark] = samples["faults/blurred_house.jpg"], samples["faults/dark_swimming.jpg"]
    assert (blurred["outcome"], blurred["rule"]) == ("dropped", "sharpness >= 25")
    assert blurred["value"] < blurred["threshold"] == 25
    assert (dark["outcome"], dark["rule"]) == ("dropped", "brightness >= 10")


def test_swapped_captions_score_below_right_ones(quickstart: Path, samples: Mapping[str, Any]) -> None:
    for uri in ("faults/swapped_caption_coffee.png", "faults/swapped_caption_cat.png"):
        [row] = samples[uri]
        assert (row["outcome"], row["rule"]) == ("dropped", "conse_score >= 0.13")
    scores = [r["conse_score"] for r in signal(quickstart, "conse").values() if r["conse_score"] is not None]
    assert len(scores) > 60
    assert -1 <= min(scores) < max(scores) <= 1
    assert np.median(scores) > 0.2


def test_duplicates_name_their_keeper(records: Mapping[str, Any], samples: Mapping[str, Any]) -> None:
    copy = records["faults/exact_copy_of_grace_hopper.jpg"]
    assert (copy["outcome"], copy["match"]) == ("duplicate", "exact")
    assert copy["duplicate_of"] == records["photos/grace_hopper.jpg"]["id"]
    [flower], [keeper] = samples["faults/reencoded_flower.jpg"], samples["photos/flower.jpg"]
    assert (flower["outcome"], flower["match"], flower["duplicate_of"]) == ("duplicate", "near", keeper["id"])
    assert flower["similarity"] >= 0.98
    bikes = {row["id"] for row in samples["videos/bikes.mp4"]}
    clips = [row for row in samples["faults/reencoded_bikes.mp4"] if row["outcome"] == "duplicate"]
    assert clips, "clips of the re-encoded video are found"
    assert {row["duplicate_of"] for row in clips} <= bikes


def test_shots_of_a_video_with_known_cuts(samples: Mapping[str, Any]) -> None:
    # cuts at frames 30, 76, 137, 187 and 242 of 25 a second
    starts = sorted(row["start_us"] for row in samples["videos/bikes.mp4"])
    assert starts == [frame * 40_000 for frame in (0, 30, 76, 137, 187, 242)]


def test_captions_are_given_or_composed_and_say_which(quickstart: Path, samples: Mapping[str, Any]) -> None:
    captions = signal(quickstart, "caption")
    assert {row["caption_source"] for row in captions.values()} >= {"given", "composed", "none"}
    [lecture] = samples["videos/lecturer.mp4"]
    said = captions[lecture["id"]]
    assert said["caption_source"] == "composed"
    assert "Nottingham" in said["caption"], "Whisper hears what is said"
    assert all(row["caption"] != "" for row in captions.values())


def test_tokens_round_trip_to_something_like_the_original(quickstart: Path) -> None:
    from curate.tokenizers import zoo

    manifest = read_manifest(quickstart)
    assert {s.name: s.dtype for s in manifest.streams} == {
        "tok_rgb@256": "uint16",
        "tok_audio@16k": "uint16",
        "caption": "uint16",
    }
    text = zoo.load("text-bpe-8k")
    seen = set()
    for sample in curate.stream(quickstart, shuffle=False):
        if sample["caption"] is not None:
            seen.update(text.decode([sample["caption"]]))
    assert any("Nottingham" in caption for caption in seen)


def test_explain_tells_the_story_of_a_drop_a_failure_and_a_duplicate(quickstart: Path, project: Project) -> None:
    blurred = project.curate("explain", quickstart, "blurred_house.jpg").stdout
    assert "dropped by rule sharpness >= 25: value 4." in blurred
    assert "signal brightness = " in blurred
    failed = project.curate("explain", quickstart, "faults/truncated_without_index.mp4").stdout
    assert "failed in ingest:probe, attempt 1: MediaError" in failed
    keeper = project.curate("explain", quickstart, "photos/flower.jpg").stdout
    assert "its near duplicate: " in keeper
    assert "reencoded_flower.jpg" in keeper
    assert "tokens tok_rgb@256: 1 x 32 x 32 ids" in keeper
    none = project.curate("explain", quickstart, "no such thing", ok=False)
    assert none.returncode == 2


def test_the_card_is_one_page_without_outside_references(quickstart: Path) -> None:
    page = (quickstart / "card" / "index.html").read_text()
    assert 'src="http' not in page
    assert "<script" not in page
    assert page.count("<audio") >= 2
    assert page.count("data:image/jpeg;base64,") > 50
    for words in ("sharpness &gt;= 25", "FetchError", "image-fsq-64k", "audio-rvq-4kbps"):
        assert words in page
    assert "PSNR" in page
    assert "SI-SDR" in page
    assert "127.0.0.1" not in page, "the port of the demonstration's server differs from run to run"


def test_stream_command_prints_and_measures(quickstart: Path, project: Project) -> None:
    lines = project.curate("stream", quickstart, "--count", 3).stdout.splitlines()
    assert len(lines) == 3
    assert all("sample_id" in json.loads(line) for line in lines)
    measured = json.loads(project.curate("stream", quickstart, "--bench", "--seconds", 0.5, "--json").stdout)
    assert measured["samples_per_s"] > 0
