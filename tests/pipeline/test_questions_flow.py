"""A run that asks for questions and answers of what is said in clips, and looks for faults of captions."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import duckdb
import pytest
from chat_server import running
from PIL import Image
from small import Project, package_file

PAGE = Path(__file__).parents[2] / "docs" / "captions.md"
RECIPE = """\
name: questions
sources:
  - {kind: folder, name: here, path: media, licence: test}
annotate:
  - {name: voice_activity}
  - {name: asr}
  - {name: caption_flags, script: latin}
  - {name: caption_flags, of: asr_text, n: 2}
caption:
  captioners:
    - {name: qa, model: m, endpoint: URL, schema: howtovqa}
decide:
  rules:
    - {field: caption_other_script, max: 0.5}
    - {field: caption_markup, max: 0.5}
    - {field: asr_text_refusal, max: 0}
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
"""


def test_rows_of_start_end_question_answer_and_rules_on_captions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CURATE_CACHE", str(tmp_path / "cache"))
    media = tmp_path / "media"
    media.mkdir()
    shutil.copy(package_file("psychopy", "demos/coder/stimuli/jwpIntro.mp4"), media / "speech.mp4")
    for name, text in {"cup": "A red cup", "чашка": "Красная чашка", "page": "<p><b>cup</b></p>"}.items():
        Image.new("RGB", (80, 60), (9 * len(text), 0, 0)).save(media / f"{name}.png")
        (media / f"{name}.txt").write_text(text)
    with running() as server:
        answer = (
            '{"pairs": [{"question": "Who speaks?", "answer": "Jon"}, {"question": "Where?", "answer": "Nottingham"}]}'
        )
        server.faults.append(f"say {answer}")
        build = tmp_path / "build"
        Project(tmp_path).run(build, "--workers", 1, recipe=RECIPE.replace("URL", server.url))
    assert ["Nottingham" in asked.prompt for asked in server.asked] == [True], "the images say nothing"

    monkeypatch.chdir(build)
    (query,) = re.findall(r"^    (SET VARIABLE qa.*?)\n\n", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    rows = duckdb.execute(query).fetchall()
    assert [row[2:] for row in rows] == [("Who speaks?", "Jon"), ("Where?", "Nottingham")]
    assert [row[:2] for row in rows] == [(0, pytest.approx(5.8, abs=0.3))] * 2, "seconds of the clip"

    # the query has set what the ledger's files are
    dropped = duckdb.execute(
        "SELECT uri, rule, value FROM read_parquet(getvariable('ledger')) WHERE level = 'sample' AND rule IS NOT NULL"
    )
    assert {Path(uri).stem: (rule, value) for uri, rule, value in dropped.fetchall()} == {
        "чашка": ("caption_other_script <= 0.5", 1),
        "page": ("caption_markup <= 0.5", pytest.approx(14 / 17)),
    }
