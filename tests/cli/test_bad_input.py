"""What a user gets wrong is answered by a sentence and a way out, an exit code that is not 0, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_curate import typed

RECIPE = """\
name: mine
sources:
  - {kind: folder, name: here, path: media}
annotate:
  - name: sharpness
tokenize:
  streams:
    - {name: tok_rgb, tokenizer: image-fsq-64k}
"""


def refused(tmp_path: Path, change: tuple[str, str], *more: object) -> str:
    recipe = tmp_path / "r.yaml"
    (tmp_path / "media").mkdir(exist_ok=True)
    recipe.write_text(RECIPE.replace(*change))
    done = typed("run", recipe, "--out", tmp_path / "out", *more)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "manifest.json").exists()
    return done.stderr


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("name: sharpness", "name: sharpnes"), ["r.yaml:5", "sharpnes", "sharpness"]),
        (("name: sharpness", "{name: sharpness, size: 3}"), ["r.yaml:5", "size"]),
        (("name: sharpness", "{name: clip, model: ViT-B-23, pretrained: x}"), ["r.yaml:5", "ViT-B-23", "ViT-B-32"]),
        (("image-fsq-64k", "image-fsq-46k"), ["r.yaml:8", "did you mean 'image-fsq-64k'?", "audio-rvq-4kbps"]),
        (("path: media", "path: nowhere"), ["r.yaml:3", "nowhere"]),
        (("path: media", "path: '${NOWHERE}/x'"), ["r.yaml:3", "NOWHERE"]),
        (
            ("annotate:", "decide: {rules: [{field: sharpness, min: -1}]}\nannotate:"),
            ["r.yaml:4", "-1", "0 to 1040400 grey levels^2".replace("1040400", "1.0404e+06")],
        ),
        (("annotate:", "decide: {rules: [{field: motion, min: 1}]}\nannotate:"), ["r.yaml:4", "motion"]),
        (
            ("annotate:", "decide: {near_duplicates: [{embedding: sharpness}]}\nannotate:"),
            ["r.yaml:4", "sharpness", "not a vector"],
        ),
    ],
)
def test_a_wrong_recipe(tmp_path: Path, change: tuple[str, str], says: list[str]) -> None:
    message = refused(tmp_path, change)
    for part in says:
        assert part in message


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("image-fsq-64k}", "image-fsq-64k, compute: {device: cuda}}"), 8),
        (("annotate:", "compute: {device: cuda}\nannotate:"), 4),
    ],
)
def test_a_gpu_that_is_not_there(tmp_path: Path, change: tuple[str, str], line: int, more: tuple[str, ...]) -> None:
    image(tmp_path / "media")
    message = refused(tmp_path, change, *more)
    assert f"r.yaml:{line}: tok_rgb is to run on a GPU, and there is none" in message
    assert "device: auto" in message


def test_a_dry_run_says_where_models_would_run(tmp_path: Path) -> None:
    image(tmp_path / "media")
    (tmp_path / "r.yaml").write_text(RECIPE)
    run = ("run", tmp_path / "r.yaml", "--dry-run", "--workers", 2)
    lines = typed(*run).stdout.splitlines()
    [row] = [line for line in lines if line.startswith("| tokenize")]
    assert [cell.strip() for cell in row.split("|")[2:8]] == ["decoding, tok_rgb", "cpu", "float32", "1", "0.5", "-"]
    events = [json.loads(line) for line in typed(*run, "--json").stdout.splitlines()]
    [placed] = [event for event in events if event["event"] == "placement"]
    assert [(pool["stage"], pool["models"], pool["workers"]) for pool in placed["pools"]] == [
        ("annotate", ["light"], [2, 2]),
        ("tokenize", ["tok_rgb"], [2, 2]),
    ]
    assert {event["event"] for event in events} == {"note", "placement"}


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_a_folder_without_media(tmp_path: Path, more: tuple[str, ...]) -> None:
    message = refused(tmp_path, ("", ""), *more)
    assert "r.yaml:3" in message


def test_no_such_recipe() -> None:
    done = typed("run", "quikstart")
    assert done.returncode == 2
    assert "did you mean 'quickstart'?" in done.stderr


def image(folder: Path) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(folder / "a.png")


def test_ray_that_is_not_there(tmp_path: Path) -> None:
    image(tmp_path / "media")
    message = refused(tmp_path, ("", ""), "--address", "127.0.0.1:1")
    assert "Ray is not reachable at 127.0.0.1:1" in message
    assert "ray start --head" in message


def test_an_address_and_workers_contradict_each_other(tmp_path: Path) -> None:
    image(tmp_path / "media")
    assert "--workers" in refused(tmp_path, ("", ""), "--address", "auto", "--workers", 2)


def test_an_out_that_cannot_be_made(tmp_path: Path) -> None:
    image(tmp_path / "media")
    (tmp_path / "r.yaml").write_text(RECIPE)
    (tmp_path / "file").write_text("in the way")
    done = typed("run", tmp_path / "r.yaml", "--out", tmp_path / "file" / "build", "--workers", 1)
    assert done.returncode == 2
    assert "choose another --out" in done.stderr


@pytest.mark.parametrize("command", ["verify", "explain", "card", "stream"])
def test_looking_at_what_is_not_a_build(tmp_path: Path, command: str) -> None:
    more = ["x"] if command == "explain" else []
    done = typed(command, tmp_path, *more)
    assert done.returncode == 2
    assert "there is no build here" in done.stderr
    assert "curate run" in done.stderr
