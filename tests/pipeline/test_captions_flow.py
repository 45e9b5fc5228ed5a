"""A run whose captions come from an endpoint: what is refused before, a budget that stops it, and the whole of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from chat_server import MODEL, ChatServer, running
from PIL import Image
from small import Project

from curate.cli.job_package import pack
from curate.pipeline.plan import make_plan
from curate.schema.errors import CurateError
from curate.schema.recipe_file import RecipeFile
from curate.shards.commit import read_manifest

KEY = "sk-0123456789abcdef-very-secret"
RECIPE = """\
name: captions
partition: 2
sources:
  - {kind: folder, name: here, path: media, licence: test}
annotate:
  - name: brightness
caption:
  prefer: [lengths_medium, given]
  captioners:
    - name: plain
      model: m
      endpoint: URL
      prompt: "{kind}. It says: {text}."
      frames: 3
      calls: {api_key_env: MY_KEY, max_requests: 3, concurrency: 1}
    - name: lengths
      model: m
      endpoint: URL
      prompt: "{plain} Brightness {brightness}."
      schema:
        type: object
        properties:
          short: {type: string}
          medium: {type: string}
          frames_seen: {type: integer, minimum: 0, maximum: 9}
      frames: 3
      calls: {api_key_env: MY_KEY}
decide:
  rules:
    - {field: lengths_frames_seen, min: 1}
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
"""


def fading_clip(path: Path) -> None:
    """Two seconds from red to blue, without a cut."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(24):
            share = i / 23
            pixels = np.full((48, 64, 3), (255 * (1 - share), 0, 255 * share), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def server() -> Iterator[ChatServer]:
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, server: ChatServer) -> tuple[Path, str, str]:
    """Four images and a clip; a run that a budget of three requests stops, and the same without it.

    Returns:
        The folder, and what the two runs printed.
    """
    root = tmp_path_factory.mktemp("captions")
    (root / "media").mkdir()
    for name, colour in {
        "green": (0, 255, 0),
        "white": (255, 255, 255),
        "red": (255, 0, 0),
        "black": (9, 9, 9),
    }.items():
        Image.new("RGB", (80, 60), colour).save(root / "media" / f"{name}.png")
        (root / "media" / f"{name}.txt").write_text(f"It is {name}")
    fading_clip(root / "media" / "fading.mp4")
    recipe = RECIPE.replace("URL", server.url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MY_KEY", KEY)
        patch.setenv("CURATE_CACHE", str(root / "cache"))
        project = Project(root)
        project.recipe.write_text(recipe)
        stopped = project.curate("run", project.recipe, "--out", root / "build", "--workers", 1, ok=False)
        assert stopped.returncode == 2, stopped.stdout + stopped.stderr
        assert not (root / "build/manifest.json").exists()
        committed = {path: path.read_bytes() for path in (root / "build/signals/plain").iterdir()}
        assert committed
        more = recipe.replace("max_requests: 3", "max_requests: 30")
        ended = project.run(root / "build", "--workers", 1, recipe=more)
        assert {path: path.read_bytes() for path in committed} == committed
    return root, stopped.stdout + stopped.stderr, ended.stdout + ended.stderr


def column(root: Path, group: str, field: str) -> dict[str, Any]:
    """Values of a field by sample."""
    tables = [pq.read_table(path) for path in (root / "build/signals" / group).glob("*.parquet")]
    return {row["sample_id"]: row[field] for table in tables for row in table.to_pylist()}


def test_a_budget_stops_the_run_and_what_was_asked_is_not_asked_again(
    built: tuple[Path, str, str], server: ChatServer
) -> None:
    _, stopped, _ = built
    assert "captioner plain: its budget of this run is spent (max_requests: 3)" in stopped
    assert "what was committed is kept" in stopped
    plain = [asked.prompt for asked in server.asked if asked.prompt.startswith(("image.", "video."))]
    assert len(plain) == len(set(plain)) == 5


def test_captions_are_of_what_each_sample_shows(built: tuple[Path, str, str]) -> None:
    root, _, _ = built
    plain = column(root, "plain", "plain")
    colours = ["red, purple, blue", "green", "white", "red", "black"]
    assert sorted(plain.values()) == sorted(f"Frames: {some}." for some in colours)
    medium, caption = column(root, "lengths", "lengths_medium"), column(root, "light-kept", "caption")
    assert medium == caption == plain
    assert set(column(root, "light-kept", "caption_source").values()) == {"lengths_medium"}
    seen = column(root, "lengths", "lengths_frames_seen")
    assert {plain[sample]: count for sample, count in seen.items()}["Frames: red, purple, blue."] == 3
    assert sorted(seen.values()) == [1, 1, 1, 1, 3]
    (by,) = set(column(root, "plain", "plain_by").values())
    assert json.loads(by)["model"] == MODEL


def test_a_captioner_reads_what_earlier_ones_say(built: tuple[Path, str, str], server: ChatServer) -> None:
    prompts = [asked.prompt for asked in server.asked]
    assert "image. It says: It is green." in prompts
    assert "video. It says: ." in prompts
    assert any(prompt.startswith("Frames: red, purple, blue. Brightness ") for prompt in prompts)


def test_the_build_is_whole_and_says_what_made_it(built: tuple[Path, str, str]) -> None:
    manifest = read_manifest(built[0] / "build")
    assert manifest.counts.samples["kept"] == manifest.counts.samples["total"] == 5
    said = {signal["name"]: signal for signal in manifest.signals}
    assert said["plain"]["options"]["prompt"] == "{kind}. It says: {text}."
    assert {"calls", "meter"}.isdisjoint(said["plain"]["options"])


def test_the_key_is_in_no_file_and_in_nothing_that_was_printed(
    built: tuple[Path, str, str], server: ChatServer
) -> None:
    root, stopped, ended = built
    assert {asked.key for asked in server.asked} == {f"Bearer {KEY}"}
    assert KEY not in stopped + ended
    files = [path for path in root.rglob("*") if path.is_file()]
    assert len(files) > 20
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


PLAN = RECIPE.replace("URL", "http://127.0.0.1:9/v1")


WRONG = [
    ("{text}.", "{txt}.", "13: the prompt names `txt`, which no earlier signal gives; did you mean `text`"),
    ("{kind}.", "{lengths_short}", "13: the prompt names `lengths_short`, which no earlier signal gives"),
    ("{kind}.", "{kind", "13: the prompt is no template"),
    ("MY_KEY, max", "NO_KEY, max", "15: the environment has no NO_KEY, the key of captioner plain"),
    ("frames: 3", "schema: lenghts", "14: no schema `lenghts`; did you mean `lengths`"),
    ("type: integer", "type: int", "20: the schema is no JSON schema: .*frames_seen"),
    ("  short:", "  Short:", "20: the property 'Short' cannot name a field"),
    ("name: plain", "name: caption", "10: a captioner cannot be called `caption`"),
    ("[lengths_medium", "[lengths_median", "8: prefer names `lengths_median`.*; did you mean `lengths_medium`"),
    ("min: 1", "min: 10", "30: threshold 10 for lengths_frames_seen is outside its range 0 to 9"),
    ("frames: 3", "frmes: 3", "14: unknown key .*frmes'; did you mean 'frames'"),
    ("MY_KEY, max", f"{KEY}, max", "15: .*never the key itself"),
]


@pytest.mark.parametrize(("old", "new", "says"), WRONG, ids=[new.strip().replace(KEY, "a key") for _, new, _ in WRONG])
def test_what_is_wrong_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, says: str
) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    assert old in PLAN
    (tmp_path / "r.yaml").write_text(PLAN.replace(old, new, 1))
    with pytest.raises(CurateError, match=rf"r\.yaml:{says}") as error:
        make_plan(RecipeFile.load(tmp_path / "r.yaml"))
    assert KEY not in str(error.value)
    assert KEY not in json.dumps(error.value.args)


def test_the_recipe_itself_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", KEY)
    (tmp_path / "r.yaml").write_text(PLAN)
    plan = make_plan(RecipeFile.load(tmp_path / "r.yaml"))
    assert [signal.name for signal in plan.signals] == ["brightness", "plain", "lengths", "caption"]


def test_a_job_is_told_which_keys_its_nodes_need(tmp_path: Path) -> None:
    (tmp_path / "media").mkdir()
    (tmp_path / "media/a.txt").touch()
    (tmp_path / "sent").mkdir()
    (tmp_path / "r.yaml").write_text(PLAN)
    packed = pack(RecipeFile.load(tmp_path / "r.yaml"), [tmp_path / "media"], code=False, to=tmp_path / "sent")
    assert packed.variables == ["MY_KEY"]
