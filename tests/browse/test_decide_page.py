"""Rules dragged in a real browser, saved, and run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from run_curate import curate

if TYPE_CHECKING:
    from conftest import Served
    from playwright.sync_api import Locator, Page

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")


def opened(page: Page) -> Page:
    page.get_by_role("button", name="Decide").click()
    page.locator("#kept b").wait_for()
    page.locator("#focus .line").first.wait_for()
    return page


def kept(page: Page) -> int:
    return int(page.locator("#kept b").inner_text().replace(",", ""))


def drag(page: Page, line: Locator, to: float) -> None:
    """Drag a line of the large chart to a place along the axis, 0 to 1, as a hand does."""
    plot = page.locator("#focus .plot").bounding_box()
    grip = line.bounding_box()
    assert plot is not None
    assert grip is not None
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * to, plot["y"] + plot["height"] / 2, steps=8)
    page.mouse.up()
    settled(page)


def saving(page: Page) -> None:
    """Opens the difference that saving would make."""
    page.get_by_role("button", name="Save …").click()
    page.locator("#save[open]").wait_for()


def settled(page: Page) -> None:
    """Waits until what is drawn is what the lines say."""
    page.locator("#decide[aria-busy=false]").wait_for()


def test_a_dragged_rule_is_saved_and_a_run_keeps_what_the_page_said(
    blank: Page, browsed_build: Path, served: Served, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(browsed_build.parent / "recipe.yaml", recipe)
    shutil.copytree(browsed_build, tmp_path / "build")
    before = recipe.read_text()
    with served(tmp_path / "build", "--recipe", recipe) as address:
        page = blank
        page.goto(address)
        opened(page)
        start = kept(page)
        drag(page, page.locator("#focus .line.most"), 0.4)
        assert kept(page) < start
        falls = page.locator("#changed h2", has_text="What falls").inner_text()
        assert int(falls.split(": ")[1]) > 0
        assert page.locator("#near h3", has_text="above the line: dropped").count() == 1
        first = page.get_by_role("button", name="just above the line: dropped").first
        name = r"sample \d+, brightness ([\d.]+), just above the line: dropped, (kept|dropped) in the build"
        told = re.fullmatch(name, first.get_attribute("aria-label") or "")
        assert told is not None
        assert float(told[1]) > float(page.get_by_label("at most", exact=True).input_value())
        said, value = kept(page), float(page.get_by_label("at most", exact=True).input_value())
        saving(page)
        diff = page.locator("#diff").inner_text()
        assert "-    - {field: brightness, max: 150}  # luma" in diff
        assert f"+    - {{field: brightness, max: {value:g}}}  # luma" in diff
        assert recipe.read_text() == before
        page.get_by_role("button", name="Write").click()
        page.locator("#save-title", has_text="is written").wait_for()
        assert f"curate run {recipe}" in page.locator("#command").inner_text()
        page.get_by_role("button", name="Close", exact=True).click()
        assert recipe.read_text() == before.replace("max: 150", f"max: {value:g}")
        page.locator("#kept b", has_text=str(said)).wait_for()
        assert page.get_by_role("button", name="Reset").is_disabled()
    done = curate(
        *("run", recipe, "--out", tmp_path / "build", "--until", "decide", "--no-dashboard", "--json"),
        PHOTOS=str(browsed_build.parent / "photos"),
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    [funnel] = [line for line in lines if line["event"] == "funnel"]
    assert sum(row["count"] for row in funnel["rows"] if (row["level"], row["outcome"]) == ("sample", "kept")) == said


def test_keys_move_a_line_and_reset_takes_it_back(page: Page) -> None:
    opened(page)
    start = kept(page)
    line = page.locator("#focus .line.most")
    line.focus()
    for _ in range(10):
        line.press("PageDown")
    settled(page)
    assert kept(page) < start
    assert re.fullmatch(r"at most [\d.]+ luma 0-255", line.get_attribute("aria-valuetext") or "")
    line.press("End")
    settled(page)
    assert line.get_attribute("aria-valuetext") == "off"
    assert kept(page) > start
    page.get_by_role("button", name="Reset").click()
    settled(page)
    assert kept(page) == start


def test_a_new_rule_begins_at_the_end_of_an_axis_and_without_a_recipe_its_text_is_shown(page: Page) -> None:
    opened(page)
    page.locator(".card[data-field=contrast] .pick").click()
    page.get_by_label("at least", exact=True).fill("40")
    page.get_by_label("at least", exact=True).press("Enter")
    page.locator("#funnel", has_text="contrast >= 40").wait_for()
    saving(page)
    assert "field: contrast, min: 40" in page.locator("#diff").inner_text()
    assert page.get_by_role("button", name="Write").is_hidden()


def test_a_bound_outside_a_range_is_refused_in_a_sentence(page: Page) -> None:
    opened(page)
    page.get_by_label("at most", exact=True).fill("999")
    page.get_by_label("at most", exact=True).press("Enter")
    page.get_by_role("alert").get_by_text("outside its range").wait_for()


def test_what_comes_back_can_be_inspected(page: Page) -> None:
    opened(page)
    page.get_by_label("at most", exact=True).fill("")
    page.get_by_label("at most", exact=True).press("Enter")
    page.locator("#changed h2", has_text="What comes back").wait_for()
    page.locator("#changed .thumbs button").first.click()
    page.locator("#inspect").get_by_text("dropped: brightness <= 150").first.wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation_in_decide(page: Page, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    opened(page)
    drag(page, page.locator("#focus .line.most"), 0.5)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    saving(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
