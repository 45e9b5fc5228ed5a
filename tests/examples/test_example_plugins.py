"""Each plugin of `examples/plugins` works in a real run, named the way a user names it, and is as short as it says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plugin_build import CAPTIONS, EXAMPLES, PluginBuild
from skimage import data

import curate
from curate.storage.tables import read_table


@pytest.fixture(scope="module")
def told(plugin_build: PluginBuild) -> dict[str, Any]:
    """Of each uri what `curate explain` says."""
    return {uri: json.loads(plugin_build.curate("explain", plugin_build.build, uri, "--json")) for uri in CAPTIONS}


def ledger(build: PluginBuild, level: str) -> dict[str, dict[str, Any]]:
    """Rows of the ledger by uri."""
    opened = curate.open(build.build)
    paths = [file.path for file in opened.store.files("verdicts")]
    rows = [row for path in paths for row in read_table(opened.store, path).to_pylist()]
    return {row["uri"]: row for row in rows if row["level"] == level}


def signals(build: PluginBuild, field: str) -> dict[str, Any]:
    """Values of a field by sample."""
    store = curate.open(build.build).store
    found: dict[str, Any] = {}
    for file in store.files("signals"):
        table = read_table(store, file.path)
        if field in table.column_names:
            found |= dict(zip(table["sample_id"].to_pylist(), table[field].to_pylist(), strict=True))
    return found


@pytest.mark.parametrize("file", sorted((EXAMPLES / "plugins").glob("*.[py]*")), ids=lambda path: path.name)
def test_an_example_is_at_most_thirty_lines(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines)) <= 120


def test_there_is_one_of_each_kind() -> None:
    kinds = {"signal", "source", "captioner", "dedup", "tokenizer", "view", "export", "recipe"}
    assert {path.stem for path in (EXAMPLES / "plugins").glob("*.[py]*")} == kinds


def test_every_row_of_the_source_has_its_record(plugin_build: PluginBuild) -> None:
    records = ledger(plugin_build, "record")
    assert set(records) == set(CAPTIONS)
    assert records["gone.png"]["outcome"] == records["text.jpg"]["outcome"] == "failed"
    assert records["gone.png"]["message"] == "there is no such file"


def test_the_signal_is_what_the_paper_says_and_a_rule_can_use_it(plugin_build: PluginBuild) -> None:
    samples, values = ledger(plugin_build, "sample"), signals(plugin_build, "colourfulness")
    assert samples["camera.png"]["outcome"] == "dropped"
    assert samples["camera.png"]["rule"].startswith("colourfulness")
    assert samples["camera.png"]["value"] == 0
    # the paper's formula on the whole photograph; the signal sees the centre square at 224 px
    rgb = data.chelsea().astype(float)
    rg, yb = rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    whole = np.hypot(rg.std(), yb.std()) + 0.3 * np.hypot(rg.mean(), yb.mean())
    assert values[samples["chelsea.png"]["id"]] == pytest.approx(whole, rel=0.15)
    assert values[samples["coffee.png"]["id"]] > 33


def test_the_method_finds_the_copy_and_says_how_alike_it_is(plugin_build: PluginBuild) -> None:
    samples = ledger(plugin_build, "sample")
    copy = samples["coffee_small.jpg"]
    assert (copy["outcome"], copy["match"], copy["duplicate_of"]) == ("duplicate", "near", samples["coffee.png"]["id"])
    assert copy["similarity"] * 64 == pytest.approx(round(copy["similarity"] * 64))  # a share of 64 bits
    assert 0.9 <= copy["similarity"] <= 1
    assert {u for u, row in samples.items() if row["outcome"] == "kept"} == {
        *("astronaut.png", "chelsea.png", "rocket.jpg", "coffee.png")
    }


def test_the_captioner_is_asked_where_the_source_has_no_words(plugin_build: PluginBuild) -> None:
    samples, said = ledger(plugin_build, "sample"), signals(plugin_build, "caption")
    assert said[samples["chelsea.png"]["id"]] == CAPTIONS["chelsea.png"]
    assert said[samples["rocket.jpg"]["id"]].startswith("A wide image of ")


def test_the_view_gives_text_and_ids(plugin_build: PluginBuild) -> None:
    lines = plugin_build.curate("stream", plugin_build.build, "--view", "plugins.view:TextToImage").splitlines()
    items = [json.loads(line) for line in lines]
    assert {item["ids"] for item in items} == {"uint16[1024]"}
    assert CAPTIONS["chelsea.png"] in {item["text"] for item in items}
    assert len(items) == 4


def test_the_view_makes_batches_too(plugin_build: PluginBuild, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    from curate.shards.views import view_of

    view = view_of("plugins.view:TextToImage")
    (batch,) = curate.stream(plugin_build.build, view=view, batch=8)
    assert [ids.shape for ids in batch["ids"]] == [(1024,)] * 4
    assert all(isinstance(text, str) for text in batch["text"])


def test_the_tokenizer_gives_the_image_back_roughly(plugin_build: PluginBuild, tmp_path: Path) -> None:
    (tmp_path / "cat.png").write_bytes((plugin_build.root / "chelsea.png").read_bytes())
    said = plugin_build.curate("tokenizers", "eval", "plugins.tokenizer:MeanColours", "--media", tmp_path, "--json")
    assert json.loads(said)["psnr_db"] > 15
    first = next(iter(curate.stream(plugin_build.build)))
    assert (first["tok_colours@128"].shape, first["tok_colours@128"].dtype) == ((1, 16, 16), np.uint8)


def test_the_export_has_every_sample_once(plugin_build: PluginBuild, tmp_path: Path) -> None:
    plugin_build.curate("export", plugin_build.build, "--format", "plugins.export:JsonLines", "--out", tmp_path / "x")
    lines = [json.loads(line) for file in (tmp_path / "x/train").iterdir() for line in file.read_text().splitlines()]
    streamed = {sample["sample_id"]: sample for sample in curate.stream(plugin_build.build)}
    assert {line["id"] for line in lines} == set(streamed)
    for line in lines:
        assert line["ids"]["tok_rgb@256"] == streamed[line["id"]]["tok_rgb@256"].tolist()
    assert CAPTIONS["astronaut.png"] in {line["text"]["caption"] for line in lines}


def test_an_unknown_option_of_the_source_names_the_nearest(plugin_build: PluginBuild, tmp_path: Path) -> None:
    recipe = (EXAMPLES / "plugins/recipe.yaml").read_text().replace("name: photos,", "name: photos, tabel: x,")
    (tmp_path / "r.yaml").write_text(recipe)
    env = {"PYTHONPATH": f"{EXAMPLES}:{':'.join(filter(None, sys.path))}", "PHOTOS": str(plugin_build.root)}
    command = [sys.executable, "-m", "curate.cli.main", "run", str(tmp_path / "r.yaml"), "--dry-run"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown option `tabel`" in done.stderr
    assert "did you mean `table`?" in done.stderr


def test_the_same_by_the_python_api(plugin_build: PluginBuild) -> None:
    build = curate.open(plugin_build.build)
    assert build.manifest.counts.samples["kept"] == 4
    assert build.verify().ok
    assert build.explain("chelsea.png") == json.loads(
        plugin_build.curate("explain", plugin_build.build, "chelsea.png", "--json")
    )
