"""A run whose media came with one caption forty times."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import duckdb
from PIL import Image
from small import Project

RECIPE = """\
name: copies
partition: 10
sources:
  - {kind: folder, name: here, path: media, licence: test}
annotate:
  - {name: brightness}
decide:
  rules:
    - {field: brightness, min: 5}
    - {copies_of: caption, max: 39}
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
"""


def test_a_caption_of_forty_samples_takes_them_away(tmp_path: Path) -> None:
    media = tmp_path / "media"
    media.mkdir()
    captions = ["Image not available", "IMAGE  not\navailable "] * 20 + [f"A cup of tea, {i}" for i in range(6)]
    for i, caption in enumerate(captions):
        Image.new("RGB", (48 + i, 48), (100, 2 * i, 90)).save(media / f"{i:02d}.png")
        (media / f"{i:02d}.txt").write_text(caption)
    Image.new("RGB", (48, 48)).save(media / "black.png")
    (media / "black.txt").write_text("image not available")  # an earlier rule drops it: it is not counted

    project, build = Project(tmp_path), tmp_path / "build"
    project.recipe.write_text(RECIPE)
    said = project.curate("run", project.recipe, "--out", build, "--until", "decide", "--workers", 2)
    assert "copies of caption <= 39" in said.stdout + said.stderr
    rows = duckdb.sql(
        f"SELECT outcome, rule, value, threshold FROM '{build}/verdicts/*.parquet' WHERE level = 'sample'"
    )
    assert Counter(rows.fetchall()) == {
        ("dropped", "copies of caption <= 39", 40.0, 39.0): 40,
        ("dropped", "brightness >= 5", 0.0, 5.0): 1,
        ("kept", None, None, None): 6,
    }
