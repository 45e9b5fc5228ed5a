"""What the recipe's `media` and `cut.shots.detector` do before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from curate.media import reader
from curate.pipeline.paths import Paths
from curate.pipeline.plan import make_plan
from curate.schema.errors import CurateError
from curate.schema.recipe import Caption, Cut, Media
from curate.schema.recipe_file import RecipeFile
from curate.signals.caption import CaptionSignal

RECIPE = """name: mine
sources:
  - {name: web, kind: folder, path: media}
annotate: [{name: brightness}]
MORE
tokenize: {streams: [{name: s, tokenizer: x}]}
"""


def plan(folder: Path, more: str) -> None:
    file = folder / "r.yaml"
    file.write_text(RECIPE.replace("MORE", more))
    make_plan(RecipeFile.load(file))


def test_the_recipe_names_the_readers_that_there_are() -> None:
    assert get_args(Media.model_fields["reader"].annotation) == reader.READERS


def test_a_reader_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "find_spec", lambda name: None)
    with pytest.raises(CurateError, match=r"r\.yaml:5.*the reader decord is not installed") as found:
        plan(tmp_path, "media: {reader: decord}")
    assert "curate-tokens[decord]" in found.value.hint


def test_a_shot_detector_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CurateError, match=r"r\.yaml:5.*no shot detector `contnt`.*did you mean .content.") as found:
        plan(tmp_path, "cut: {shots: {detector: contnt}}")
    assert "adaptive, content" in found.value.hint


def test_what_is_made_of_pixels_names_another_reader() -> None:
    signals = [CaptionSignal.of(Caption(), [])]
    usual, named, other = (Paths.of({"web": None}, Cut(), signals, *some) for some in ([], ["pyav"], ["decord"]))
    assert usual == named
    assert [usual.records("p", "web"), usual.samples("p", "web")] == [
        other.records("p", "web"),
        other.samples("p", "web"),
    ]
    group = next(iter(usual.groups))
    assert usual.signals("p", "web", group) != other.signals("p", "web", group)
    assert usual.tokens_prefix("p", "web", "s", 1) != other.tokens_prefix("p", "web", "s", 1)
