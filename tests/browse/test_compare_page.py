"""Two builds compared in a real browser."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from once import once
from run_curate import curate

from curate.browse.columns import Columns
from curate.browse.compare import Compared
from curate.browse.table import open_table
from curate.storage import open_store

if TYPE_CHECKING:
    from conftest import Served
    from playwright.sync_api import Page
    from plugin_build import PluginBuild

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")


@pytest.fixture(scope="session")
def moved_build(browsed_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same build with another rule."""

    def make(root: Path) -> None:
        shutil.copytree(browsed_build, root / "build")
        text = (browsed_build.parent / "recipe.yaml").read_text().replace("max: 150", "max: 100")
        (root / "recipe.yaml").write_text(text)
        done = curate(
            *("run", root / "recipe.yaml", "--out", root / "build", "--no-dashboard", "--quiet"),
            PHOTOS=str(browsed_build.parent / "photos"),
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return once(tmp_path_factory, "moved", make) / "build"


def test_samples_that_changed_sides_are_shown_by_rule(
    blank: Page, browsed_build: Path, moved_build: Path, served: Served
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = blank
    with served(moved_build, browsed_build) as address:
        page.goto(address)
        page.get_by_role("button", name="Compare").click()
        table = page.locator("#sides table")
        table.wait_for()
        now, was = (
            httpx.post(f"{address}{side}page", json={"where": [{"field": "outcome", "is": ["kept"]}]}).json()["total"]
            for side in ("", "other/")
        )
        kept = table.locator("tr", has=page.locator("th.kept")).inner_text().split()
        assert kept == ["kept", str(was), str(now), f"\u2212{was - now}"]
        way = page.get_by_role("button", name="kept \u2192 dropped: brightness <= 100")
        fell = int(way.inner_text().split()[-1])
        way.click()
        page.locator("#flipped button").first.wait_for()
        assert page.locator("#flipped button").count() == fell
        page.locator("#flipped button").first.click()
        page.locator("#inspect").get_by_text("dropped: brightness <= 100").first.wait_for()
        page.locator("#spreads .card", has_text="brightness").wait_for()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()


def test_samples_that_one_build_alone_has_are_shown_as_it_has_them(
    blank: Page, browsed_build: Path, plugin_build: PluginBuild, served: Served
) -> None:
    page = blank
    with served(browsed_build, plugin_build.build) as address:
        page.goto(address)
        page.get_by_role("button", name="Compare").click()
        page.get_by_role("button", name="not there \u2192 kept").click()
        page.locator("#flipped button").first.wait_for()
        page.get_by_role("button", name="duplicate \u2192 not there").click()
        page.locator('#flipped [data-n^="other/"]').first.click()
        page.locator("#inspect h2", has_text="coffee_small.jpg").wait_for()


def test_two_builds_without_a_common_sample(browsed_build: Path, tmp_path: Path) -> None:
    with open_table(open_store(browsed_build), tmp_path) as browsed:
        strange = []
        for number, file in enumerate(browsed.files):
            table = pq.read_table(file)
            ids = pa.array([value[::-1] for value in table["id"].to_pylist()])
            strange.append(tmp_path / f"{number}.parquet")
            pq.write_table(table.set_column(table.column_names.index("id"), "id", ids), strange[-1])
        other = replace(browsed, files=tuple(strange))
        told = Compared(browsed, Columns(browsed), other, Columns(other)).about()
    assert told["common"] == 0
    assert {(flip["was"], flip["now"]) for flip in told["flips"]} >= {("not there", "kept"), ("kept", "not there")}
