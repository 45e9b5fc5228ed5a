"""Labels are signals: rules read their numbers, streams are of their fields, and no tokenizer computes one again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from once import once
from small import Project, package_file

from curate.pipeline.plan import make_plan
from curate.schema.errors import CurateError
from curate.schema.ids import content_id
from curate.schema.recipe_file import RecipeFile
from curate.shards.commit import read_manifest
from curate.shards.stream import stream
from curate.signals.labels import unpacked
from curate.tokenizers import zoo
from curate.tokenizers.labels import make_labels

RECIPE = """\
name: labels
partition: 4
sources:
  - {kind: folder, name: here, path: media, licence: test}
annotate:
  - name: brightness
decide:
  rules:
    - {field: edges_share, min: 0.02}
    - {field: metadata_contrast, min: 5}
tokenize:
  streams:
    - {name: tok_canny_edge@256, tokenizer: canny-edge}
    - {name: color_palette, tokenizer: color-palette}
    - {name: metadata, tokenizer: metadata}
"""
IMAGES = ("astronaut.png", "chelsea.png", "coffee.png")


def write(root: Path, text: str = RECIPE) -> Path:
    recipe = root / "small.yaml"
    recipe.write_text(text)
    return recipe


def make(root: Path) -> None:
    """Three photographs, a flat image and a sound; the build lies beside them."""
    from PIL import Image

    (root / "media").mkdir()
    for name in IMAGES:
        shutil.copy(package_file("skimage", f"data/{name}"), root / "media")
        (root / "media" / name).with_suffix(".txt").write_text("It has four words.")
    Image.new("RGB", (300, 200), (90, 120, 30)).save(root / "media" / "flat.png")
    shutil.copy(package_file("psychopy", "tests/data/Electronic_Chime-KevanGC-495939803.wav"), root / "media")
    Project(root).run(root / "build", "--workers", 1, recipe=RECIPE)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return once(tmp_path_factory, "labels", make)


@pytest.fixture(scope="module")
def samples(built: Path) -> dict[str, dict[str, Any]]:
    """By the name of the file."""
    names = {content_id(path.read_bytes()): path.name for path in (built / "media").iterdir()}
    return {names.get(s["sample_id"], "sound"): s for s in stream(built / "build")}


def labels(build: Path) -> dict[str, dict[str, Any]]:
    """Rows of the group of signals without a model, by sample."""
    rows: dict[str, dict[str, Any]] = {}
    for path in sorted((build / "signals/light").glob("*.parquet")):
        rows |= {row["sample_id"]: row for row in pq.read_table(path).to_pylist()}
    return rows


def test_a_rule_on_a_number_of_a_label_drops_a_flat_image(built: Path, samples: dict[str, dict[str, Any]]) -> None:
    counts = read_manifest(built / "build").counts.samples
    assert (counts["kept"], counts["dropped"], counts["failed"]) == (4, 1, 0)
    assert "flat.png" not in samples
    said = json.loads(Project(built).curate("explain", built / "build", "flat.png", "--json").stdout)
    assert "edges_share" in json.dumps(said)
    with pytest.raises(CurateError, match=r"edges_share"):
        make_plan(RecipeFile.load(write(built, RECIPE.replace("min: 0.02", "min: 2"))))


def test_ids_are_those_of_the_committed_labels(built: Path, samples: dict[str, dict[str, Any]]) -> None:
    rows, tokenizers = labels(built / "build"), {n: zoo.load(n) for n in ("canny-edge", "color-palette", "metadata")}
    streams = {"tok_canny_edge@256": "canny-edge", "color_palette": "color-palette", "metadata": "metadata"}
    for name in IMAGES:
        sample = samples[name]
        row = rows[sample["sample_id"]]
        edges = unpacked(row["edges"])
        assert edges.shape == (1, 256, 256)
        assert row["edges_share"] == pytest.approx(edges.mean())
        assert row["palette_colours"] == len(row["palette"]) == 7
        assert row["metadata_caption_n_words"] == 4
        for stream_name, tokenizer in streams.items():
            [field] = tokenizers[tokenizer].card.needs
            [ids] = tokenizers[tokenizer].encode([row[field]])
            assert np.array_equal(ids, sample[stream_name])


def test_audio_has_no_label_and_is_not_lost(samples: dict[str, dict[str, Any]]) -> None:
    assert samples["sound"]["kind"] == "audio"
    assert all(samples["sound"][name] is None for name in ("tok_canny_edge@256", "color_palette", "metadata"))


def test_the_card_shows_labels_as_any_signal(built: Path) -> None:
    page = (built / "build/card/index.html").read_text()
    for field in ("edges_share", "palette_colours", "metadata_contrast", "metadata_entropy"):
        assert field in page
    assert "could not be shown" not in page
    said = Project(built).curate("explain", built / "build", "chelsea.png").stdout
    assert "array of 1 x 256 x 256" in said
    assert json.loads(Project(built).curate("verify", built / "build", "--json").stdout)["problems"] == []


@pytest.mark.long
def test_another_tokenizer_of_the_same_labels_computes_no_label_again(built: Path, tmp_path: Path) -> None:
    """The build goes on with another image tokenizer of the same edges: fragments of signals are as they were."""
    root = tmp_path / "again"
    shutil.copytree(built, root)
    before = {path.name: path.read_bytes() for path in (root / "build/signals/light").iterdir()}
    make_labels(root / "other", "edges", {}, "tok_canny_edge@256", "image-fsq-64k-f16")
    changed = RECIPE.replace("tokenizer: canny-edge", "tokenizer: other")
    done = Project(root).run(root / "build", "--workers", 1, "--json", recipe=changed)
    ends = {}
    for line in (done.stdout + done.stderr).splitlines():
        if line.startswith("{") and "stage" in (said := json.loads(line)):
            ends[said["stage"]] = said
    assert ends["annotate"]["reused"] == 5, "all samples"
    assert {path.name: path.read_bytes() for path in (root / "build/signals/light").iterdir()} == before
    old, new = (
        {s["sample_id"]: s for s in stream(folder / "build") if s["kind"] == "image"} for folder in (built, root)
    )
    assert old.keys() == new.keys()
    for sample_id, sample in new.items():
        assert sample["tok_canny_edge@256"].shape == (1, 16, 16)
        assert np.array_equal(sample["color_palette"], old[sample_id]["color_palette"])


def test_a_signal_of_annotate_gives_the_field_where_it_looks_at_the_same_frames(built: Path) -> None:
    named = RECIPE.replace("- name: brightness", "- {name: edges, low: 50}")
    plan = make_plan(RecipeFile.load(write(built, named)))
    assert [s.name for s in plan.signals].count("edges") == 1
    assert {s.name: s.options.model_dump() for s in plan.signals}["edges"]["low"] == 50
    assert [s.name for s in plan.signals] == ["edges", "palette", "caption", "metadata"]
    with pytest.raises(CurateError, match="canny-edge is of other frames than the field `edges` is of") as error:
        make_plan(RecipeFile.load(write(built, named.replace("low: 50", "size: 128"))))
    assert "size: 256, fps: 1, max_frames: 8" in error.value.hint


def test_two_tokenizers_of_other_labels_with_one_field_are_refused(built: Path) -> None:
    make_labels(built / "fine", "edges", {"low": 10}, "tok_fine@256", "image-fsq-64k")
    more = RECIPE + "    - {name: tok_fine@256, tokenizer: fine}\n"
    with pytest.raises(CurateError, match="fine is of other labels than the field `edges` holds"):
        make_plan(RecipeFile.load(write(built, more)))
    make_labels(built / "finer", "edges", {"low": 10, "field": "fine"}, "tok_fine@256", "image-fsq-64k")
    plan = make_plan(RecipeFile.load(write(built, more.replace("tokenizer: fine", "tokenizer: finer"))))
    assert {"edges_share", "fine_share"} <= plan.fields.keys()
