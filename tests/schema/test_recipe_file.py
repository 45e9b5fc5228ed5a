"""A recipe that is wrong is refused with file, line, what is allowed, and the nearest name."""

from __future__ import annotations

from pathlib import Path

import pytest

from curate.schema.errors import CurateError
from curate.schema.json_schemas import SCHEMAS, schema_text
from curate.schema.package_data import data_folder
from curate.schema.recipe_file import RecipeFile

GOOD = """\
name: mine
sources:
  - kind: folder
    name: here
    path: media
annotate:
  - name: sharpness
tokenize:
  streams:
    - {name: tok_rgb, tokenizer: image-fsq-64k}
"""


def load(tmp_path: Path, text: str) -> RecipeFile:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return RecipeFile.load(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(CurateError) as exc:
        load(tmp_path, text)
    return str(exc.value)


def test_the_good_one_loads_and_knows_its_lines(tmp_path: Path) -> None:
    file = load(tmp_path, GOOD)
    assert file.recipe.sources[0].name == "here"
    assert file.recipe.partition == 1024
    assert "r.yaml:7: no such model" in str(file.error(("annotate", 0, "name"), "no such model"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("name: mine", "name: mine\nsauces: 1"), ["r.yaml:2", "'sauces'", "did you mean 'sources'?"]),
        (
            ("    path: media", "    path: media\n    licens: x"),
            ["r.yaml:6", "did you mean 'licence'?", "allowed: kind"],
        ),
        (("  - kind: folder\n    name", "  - name"), ["r.yaml:3", "needs a key 'kind'", "webdataset"]),
        (("    path: media\n", ""), ["r.yaml:3", "sources.0.path", "missing"]),
        (("annotate:", "cut: {min_seconds: soon}\nannotate:"), ["r.yaml:6", "cut.min_seconds", "number", "'soon'"]),
        (("annotate:", "media: {reader: pyva}\nannotate:"), ["r.yaml:6", "did you mean 'pyav'?"]),
        (("annotate:", "cut: {min_seconds: 9}\nannotate:"), ["r.yaml:6", "twice min_seconds"]),
        (("annotate:", "pack: {splits: {a: 0.5}}\nannotate:"), ["r.yaml:6", "add up to 1"]),
        (("annotate:", "decide: {rules: [{field: sharpness}]}\nannotate:"), ["r.yaml:6", "needs one of min"]),
        (("annotate:", "seed: 1\nseed: 2\nannotate:"), ["r.yaml:7", "'seed' occurs twice", "line 6"]),
        (("name: mine", "name: mine\npartition: 0"), ["r.yaml:2", "partition", "greater than or equal to 1"]),
        (("name: mine", "name: mine\npartition: 65537"), ["r.yaml:2", "partition", "less than or equal to 65536"]),
        (("name: mine", "name: ../mine"), ["r.yaml:1", "name"]),
        (("name: mine", "name: [mine"), ["r.yaml:", "not valid YAML"]),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, change: tuple[str, str], says: list[str]) -> None:
    message = refused(tmp_path, GOOD.replace(*change, 1))
    for part in says:
        assert part in message


def test_no_such_recipe_names_the_built_in_ones() -> None:
    with pytest.raises(CurateError, match=r"did you mean 'quickstart'"):
        RecipeFile.load("quikstart")


def test_a_recipe_that_is_not_a_mapping(tmp_path: Path) -> None:
    assert "a recipe is a mapping" in refused(tmp_path, "- a\n- b\n")


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_the_schemas_folder_is_true(name: str) -> None:
    assert (data_folder("schemas") / f"{name}.schema.json").read_text() == schema_text(name), (
        f"run: curate schema {name} > schemas/{name}.schema.json"
    )


@pytest.mark.parametrize("path", sorted(data_folder("pipelines").glob("*.yaml")), ids=lambda p: p.stem)
def test_built_in_recipes_load(path: Path) -> None:
    assert RecipeFile.load(path.stem).recipe.name == path.stem


def test_what_the_manifest_holds_is_a_recipe_again(tmp_path: Path) -> None:
    rule = "decide: {rules: [{field: licence, in: [cc-by]}]}\n"
    recipe = load(tmp_path, GOOD.replace("name: sharpness", "{name: sharpness, for: kept}") + rule).recipe
    assert type(recipe).model_validate(recipe.model_dump(mode="json")) == recipe
