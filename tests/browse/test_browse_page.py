"""The page in a real browser, used as a person does."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from PIL import Image

if TYPE_CHECKING:
    from conftest import Served
    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")


def cell(page: Page, name: str) -> None:
    """Open the inspector of what is called so."""
    page.locator("#grid button", has_text=name).first.click()
    page.locator("#inspect h2", has_text=name).wait_for()


def matches(page: Page, count: int) -> None:
    page.locator("#total", has_text=re.compile(rf"^{count:,} match")).wait_for()


def test_a_verdict_and_a_search_narrow_the_grid_and_can_be_taken_back(page: Page) -> None:
    everything = page.locator("#total").inner_text()
    page.locator("#facets button", has_text="failed").first.click()
    matches(page, 1)
    assert "broken.jpg" in page.locator("#grid").inner_text()
    page.get_by_role("button", name="Remove the filter Verdict: failed").click()
    page.locator("#total", has_text=everything).wait_for()
    page.keyboard.press("/")
    page.keyboard.type("GINGER")
    matches(page, 1)
    assert "chelsea.png" in page.locator("#grid").inner_text()


def test_a_sort_by_a_signal_orders_the_grid(page: Page) -> None:
    page.get_by_label("Sort by").select_option("brightness")
    page.locator("#grid .soft", has_text="brightness").first.wait_for()
    shown = [text.split()[-1] for text in page.locator("#grid .soft").all_inner_texts() if text.startswith("bright")]
    values = [float(value) for value in shown]
    assert len(values) > 3
    assert values == sorted(values)


def test_thumbnails_are_drawn(page: Page) -> None:
    from playwright.sync_api import expect

    expect(page.locator("#grid img").first).not_to_have_js_property("naturalWidth", 0)


def test_what_a_rule_dropped_says_its_rule_value_and_threshold(page: Page) -> None:
    rule = page.locator("#facets button", has_text="brightness <= 150")
    dropped = int(rule.locator("span").inner_text())
    rule.click()
    matches(page, dropped)
    page.get_by_role("button", name="Remove the filter Rule that dropped it: brightness <= 150").wait_for()
    page.locator("#grid button").first.click()
    said = page.locator("#inspect")
    said.get_by_text("dropped: brightness <= 150").first.wait_for()
    assert "the threshold 150" in said.inner_text()


def test_an_image_that_the_server_does_not_give_says_so(page: Page) -> None:
    page.route("**/look/*/large", lambda route: route.abort())
    cell(page, "chelsea.png")
    page.locator("#inspect").get_by_text("It cannot be shown: The server does not answer").wait_for()


def test_a_clip_plays_to_its_middle(page: Page) -> None:
    cell(page, "bikes.mp4")
    video = page.locator("#inspect video")
    video.wait_for()
    video.evaluate("v => v.readyState || new Promise(done => {v.onloadedmetadata = done})")
    at = video.evaluate(
        "v => new Promise(done => {v.onseeked = () => done([v.currentTime, v.duration]);"
        "v.currentTime = v.duration / 2})"
    )
    assert at[1] > 1
    assert at[0] == pytest.approx(at[1] / 2, abs=0.1)


def test_a_clip_moves_while_the_pointer_is_on_it(page: Page, address: str) -> None:
    page.get_by_label("Search").fill("bikes")
    image = page.locator("#grid button[title='bikes.mp4'] img").first
    still = image.get_attribute("src")
    assert still is not None
    image.hover()
    page.locator("#grid img[src$=moving]").wait_for()
    moving = httpx.get(address + still.replace("small", "moving")).content
    with Image.open(io.BytesIO(moving)) as opened:
        assert getattr(opened, "n_frames", 1) > 4
    page.mouse.move(0, 0)
    page.locator(f"#grid img[src='{still}']").wait_for()


def test_markup_in_a_caption_is_text(page: Page) -> None:
    cell(page, "coffee.png")
    caption = page.locator("#inspect .caption").first
    assert "<img src=x onerror=" in caption.inner_text()
    assert caption.locator("img").count() == 0
    assert page.title() == "browsed · curate browse"


def test_a_long_caption_and_a_failed_record_can_be_inspected(page: Page) -> None:
    cell(page, "rocket.jpg")
    assert page.locator("#inspect .caption").first.bounding_box()["height"] < 200  # type: ignore[index]
    cell(page, "broken.jpg")
    page.locator("#inspect").get_by_text("failed").first.wait_for()


def test_the_keyboard_opens_moves_and_closes(page: Page) -> None:
    page.locator("#grid button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    page.locator("#inspect h2").wait_for()
    page.keyboard.press("Escape")
    assert page.locator("#inspect").is_hidden()
    assert page.evaluate("document.activeElement === document.querySelectorAll('#grid button')[1]")


def test_what_is_alike_stands_side_by_side(page: Page) -> None:
    cell(page, "coffee-small.jpg")
    thumbs = page.locator("#inspect .thumbs").first
    assert thumbs.locator("button").count() == 2
    thumbs.get_by_role("button", name="kept").click()
    page.locator("#inspect h2", has_text="coffee.png").wait_for()
    page.locator("#inspect").get_by_role("heading", name="Tokens").wait_for()


def test_a_question_that_fails_says_so_on_the_page(page: Page) -> None:
    page.route("**/page", lambda route: route.continue_(post_data='{"sort": "nothing"}'))
    page.locator("#facets button", has_text="failed").first.click()
    page.get_by_role("alert").get_by_text("this build has no number nothing").wait_for()
    page.unroute("**/page")


def test_media_that_were_purged_are_said_to_be_gone(
    blank: Page, browsed_build: Path, served: Served, tmp_path: Path
) -> None:
    shutil.copytree(browsed_build, tmp_path / "purged")
    shutil.rmtree(tmp_path / "purged" / "media")
    with served(tmp_path / "purged") as address:
        blank.goto(address)
        blank.locator("#grid .shot", has_text="cannot be shown").first.wait_for()
        cell(blank, "chelsea.png")
        blank.locator("#inspect").get_by_text("its medium is gone").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_violation(page: Page, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    cell(page, "coffee.png")
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
