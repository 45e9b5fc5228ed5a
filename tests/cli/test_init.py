"""`curate init` and `curate run PATH` as a newcomer meets them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from PIL import Image
from run_curate import curate, typed

from curate.shards.commit import read_manifest
from curate.storage import Folder


def photos(root: Path) -> None:
    (root / "photos").mkdir()
    for i in range(6):
        Image.effect_noise((80, 60), 30 + 10 * i).convert("RGB").save(root / "photos" / f"{i}.png")
    (root / "photos" / "0.txt").write_text("noise, and not much of it")


def test_init_says_what_it_found_and_the_next_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    photos(tmp_path)
    done = typed("init", "photos")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "wrote photos.yaml",
        "  folder photos: 6 records: 6 image; 1 with text",
        "  streams: tok_rgb@256, caption",
        "next: curate run photos.yaml --dry-run   # checks it; without --dry-run it runs",
    ]
    before = (tmp_path / "photos.yaml").read_bytes()
    again = typed("init", "photos")
    assert again.returncode == 2
    assert "photos.yaml is there already" in again.stderr
    assert (tmp_path / "photos.yaml").read_bytes() == before
    told = json.loads(typed("init", "photos", "--out", "other.yaml", "--json").stdout)
    assert told["recipe"] == "other.yaml"
    assert told["sources"][0]["kinds"] == {"image": 6}
    command, *words = shlex.split(told["next"])
    assert command == "curate"
    dry = typed(*words, "--dry-run")
    assert dry.returncode == 0, dry.stderr
    assert "source photos: 6 records" in dry.stdout
    missing = typed("init", "fotos")
    assert missing.returncode == 2
    assert "did you mean 'photos'?" in missing.stderr


def test_media_run_without_a_recipe_and_again_with_the_one_that_was_made(tmp_path: Path) -> None:
    photos(tmp_path)
    done = curate("run", "photos/", "--workers", "2", "--no-dashboard", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "wrote photos.yaml" in done.stderr
    build = Folder(tmp_path / "build" / "photos")
    manifest = read_manifest(build)
    assert [stream.name for stream in manifest.streams] == ["tok_rgb@256", "caption"]
    assert manifest.counts.records["sampled"] == 6
    recipe = tmp_path / "photos.yaml"
    recipe.write_text(recipe.read_text().replace("min: 10", "min: 12"))  # what a person changes stays
    dry = curate("run", "photos", "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert "photos.yaml, which was there" in dry.stderr
    assert "'min': 12" in dry.stdout
    recipe.write_text(recipe.read_text().replace("path: photos", "path: elsewhere"))
    other = curate("run", "photos", cwd=tmp_path)
    assert other.returncode == 2
    assert "is no recipe of photos" in other.stderr
