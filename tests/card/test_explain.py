"""The whole story of one input: found by any of its names, told from its partition, its shard and the ledger."""

from __future__ import annotations

from pathlib import Path

import pytest
from card_build import Builder, Watched, committed, image_item, items, photo

from curate.card.explain import Trace, explain
from curate.schema.errors import CurateError


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return committed(Builder(tmp_path_factory.mktemp("build"), items()))


def told(build: Path, what: str) -> str:
    return explain(build, what).text()


def sample(story: Trace, number: int = 0) -> str:
    return str(story.samples[number]["sample_id"])


def test_a_kept_image_has_its_signals_its_duplicates_and_its_tokens(build: Path) -> None:
    story = explain(build, "chelsea.png")
    [cat] = story.samples
    assert cat["verdict"] == {"outcome": "kept"}
    assert cat["signals"]["vector"] == "vector of 4"
    assert cat["signals"]["caption"] == "A ginger cat looks at the camera"
    assert [d["uri"] for d in cat["duplicates"]] == ["copies/cat small.jpg"]
    assert cat["tokens"]["tok_rgb@256"].startswith("1 x 32 x 32 ids, first ")
    assert "tokens/train/shard-0000" in cat["tokens"]["caption"]
    assert cat["tokens"]["tok_audio@16k"] == "missing"
    assert "signal sharpness = " in story.text()
    assert "(recipe: min 20)" in story.text()


def test_clips_of_a_film_are_told_in_order_and_one_can_be_named(build: Path) -> None:
    film = explain(build, "film.mp4")
    assert [s["about"]["start_us"] for s in film.samples] == [0, 2_000_000]
    second = sample(film, 1)
    assert [s["sample_id"] for s in explain(build, second[:20]).samples] == [second]


def test_a_drop_a_failure_and_a_failed_record(build: Path) -> None:
    assert "dropped by rule sharpness >= 20: value " in told(build, "faults/blurred.jpg")
    cut_off = told(build, "tail missing.mp4")
    assert "failed in annotate, attempt 1: MediaError: the video ends at 2.0 s" in cut_off
    assert "signal sharpness = failed in annotate: MediaError" in cut_off
    assert "failed in ingest, attempt 1: MediaError: the file is empty" in told(build, "empty.mp4")


def test_samples_of_a_duplicate_record_have_no_verdict_and_are_not_told(build: Path) -> None:
    copy = explain(build, "copies/rocket again.jpg")
    assert copy.samples == []
    assert copy.record["verdict"]["match"] == "exact"
    kept = explain(build, copy.record["verdict"]["duplicate_of"])
    assert [d["uri"] for d in kept.record["duplicates"]] == ["copies/rocket again.jpg"]
    assert len(kept.samples) == 1, "its one sample has the id of the copy's"


def test_names_that_fit_many_or_none(build: Path) -> None:
    with pytest.raises(CurateError, match=r"'\.wav' names 4 records; say which") as many:
        explain(build, ".wav")
    assert "sound 0.wav" in many.value.hint
    with pytest.raises(CurateError, match="nothing in this build is called 'sound'") as near:
        explain(build, "sound")
    assert near.value.hint == "uris that contain it: sound 0.wav, sound 1.wav, sound 2.wav"
    with pytest.raises(CurateError, match="nothing in this build") as nothing:
        explain(build, "no such thing")
    assert "of the ledger" in nothing.value.hint


def test_one_partition_and_one_shard_are_opened(build: Path) -> None:
    watched = Watched(build)
    explain(watched, "chelsea.png")
    opened = [path for path in watched.opened if not path.startswith("verdicts/")]
    own = [path for path in opened if "folder-0000000000000000-" in path]
    assert {path.partition("/")[0] for path in own} == {"records", "samples", "signals"}
    [shard] = set(opened) - set(own)
    assert shard.startswith("tokens/train/")
    assert len(list((build / "tokens/train").iterdir())) > 2


def test_the_shard_is_found_in_partition_order_too(tmp_path: Path) -> None:
    ordered = committed(Builder(tmp_path, items(), order="partition"))
    [cat] = explain(ordered, "chelsea.png").samples
    assert cat["tokens"]["caption"].endswith(" row 1")
    assert "shard-00000-" in cat["tokens"]["caption"]


def test_the_same_bytes_twice_in_a_partition_keep_their_own_words(tmp_path: Path) -> None:
    rocket = photo("rocket.jpg", 64)
    copy = image_item("copy.jpg", rocket, "words of the copy", outcome="duplicate", of_record=True, same_as="a.jpg")
    twice = committed(Builder(tmp_path, [copy, image_item("a.jpg", rocket, "A rocket")]))
    [kept] = explain(twice, "a.jpg").samples
    assert kept["signals"]["caption"] == "A rocket"
