"""A run whose media came with one caption forty times."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import duckdb
import pytest
from chat_server import running
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
    project.curate("run", project.recipe, "--out", build, "--workers", 2)
    rows = duckdb.sql(
        f"SELECT outcome, rule, value, threshold FROM '{build}/verdicts/*.parquet' WHERE level = 'sample'"
    )
    assert Counter(rows.fetchall()) == {
        ("dropped", "copies of caption <= 39", 40.0, 39.0): 40,
        ("dropped", "brightness >= 5", 0.0, 5.0): 1,
        ("kept", None, None, None): 6,
    }
    assert "copies of caption &lt;= 39" in (build / "card/index.html").read_text()
    said = project.curate("explain", build, "00.png").stdout
    assert "copies of caption <= 39" in said
    assert "(recipe: copies max 39)" in said


@pytest.mark.long
def test_what_a_captioner_says_too_often_is_dropped_at_the_second_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    media = tmp_path / "media"
    media.mkdir()
    for i in range(15):
        colour = (250, 2 * i, 0) if i < 12 else (0, 2 * i, 250)
        Image.new("RGB", (48 + i, 48), colour).save(media / f"{i:02d}.png")
    Image.new("RGB", (48, 48)).save(media / "black.png")  # no captioner sees it
    project, build = Project(tmp_path), tmp_path / "build"
    with running() as server:
        captioner = f"caption:\n  captioners:\n    - {{name: short, model: m, endpoint: {server.url}}}\ndecide:"
        project.recipe.write_text(RECIPE.replace("decide:", captioner).replace("caption, max: 39", "short, max: 11"))
        project.curate("run", project.recipe, "--out", build, "--until", "look", "--workers", 2)
    assert len(server.asked) == 15
    # verdicts before the look lie there, too
    rows = duckdb.sql(
        f"SELECT DISTINCT id, value FROM '{build}/verdicts/*.parquet' WHERE rule = 'copies of short <= 11'"
    )
    assert [value for _, value in rows.fetchall()] == [12] * 12
