"""The map, nearest neighbours and decoded tokens in a real browser."""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.models.torchvision_shim import ensure_torchvision
from curate.schema.manifest import MANIFEST
from curate.shards.commit import read_manifest
from curate.shards.lists import read_files, write_lists
from curate.signals.clip import Clip, ClipOptions
from curate.storage import Folder
from curate.storage.tables import write_named_table

if TYPE_CHECKING:
    from conftest import Served
    from playwright.sync_api import Page

pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")

SAID = "a ginger cat"
DRAWN = """() => {
  const canvas = document.querySelector('#points');
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let i = 0; i < data.length; i += 4) if (data[i + 3]) seen.add(data.slice(i, i + 3).join());
  return [...seen].map((one) => one.split(',').map(Number));
}"""
"""Colours of the map."""


def rows(address: str, **asked: object) -> dict[str, Any]:
    found: dict[str, Any] = httpx.post(address + "page", json={"limit": 200, **asked}).raise_for_status().json()
    return found


def row_of(address: str, name: str) -> dict[str, Any]:
    return next(row for row in rows(address)["rows"] if row["uri"].endswith(name))


def inspected(page: Page, name: str) -> None:
    page.locator("#grid button", has_text=name).first.click()
    page.locator("#inspect h2", has_text=name).wait_for()


def mapped(page: Page) -> dict[str, float]:
    """Show the map; where it is."""
    page.get_by_role("button", name="Map").click()
    page.locator("#map[aria-busy=false]").wait_for()
    box = page.locator("#plane").bounding_box()
    assert box is not None
    return dict(box)


def place(
    box: dict[str, float], across: float, up: float, zoom: float = 1, left: float = 0, low: float = 0
) -> tuple[float, float]:
    """Pixels of a place on the map, whose points keep 8 of them off the edge, where `left` and `low` is its corner."""
    across, up = (across - left) * zoom, (up - low) * zoom
    return box["x"] + 8 + across * (box["width"] - 16), box["y"] + 8 + (1 - up) * (box["height"] - 16)


def zoomed(page: Page, said: str, left: float, low: float) -> None:
    """Wait until the map shows so much of it from a corner on."""
    page.locator("#map-zoom", has_text=said).wait_for()
    shown = [float(one) for one in (page.locator("#window").get_attribute("viewBox") or "").split()]
    assert shown == pytest.approx([left, 1 - low - shown[3], shown[2], shown[2]], abs=1e-3)


def points(address: str) -> np.ndarray:
    """Places of all points, across and up, from 0 to 1."""
    told = httpx.post(address + "map/points", json={"field": "tiny_image"}).content
    return np.frombuffer(told, "<u2").reshape(-1, 2) / 65535


def test_the_nearest_samples_stand_with_their_cosine(page: Page, address: str) -> None:
    inspected(page, "rocket.jpg")
    page.get_by_role("button", name="tiny_image", exact=True).click()
    first = page.locator("#inspect [aria-live] .thumbs button").first
    first.wait_for()
    assert "rocket-small.jpg" in (first.get_attribute("title") or "")
    assert float(first.inner_text()) > 0.98
    page.locator("#inspect [aria-live]").get_by_role("button", name="Show all").click()
    page.locator("#grid .soft", has_text="cosine 1.0000").first.wait_for()
    shown = [float(text.split()[-1]) for text in page.locator("#grid .soft").all_inner_texts()]
    assert len(shown) > 10
    assert shown == sorted(shown, reverse=True)
    page.get_by_role("button", name="Remove the filter Nearest by tiny_image").click()
    page.locator("#total", has_text=f"{rows(address)['total']} matches").wait_for()


def test_a_lasso_on_the_map_becomes_a_filter(page: Page, address: str) -> None:
    box = mapped(page)
    polygon = [(0.01, 0.99), (0.6, 0.99), (0.6, 0.5), (0.3, 0.2), (0.01, 0.01)]
    page.mouse.move(*place(box, *polygon[0]))
    page.mouse.down()
    for corner in polygon[1:]:
        page.mouse.move(*place(box, *corner), steps=5)
    page.mouse.up()
    inside = rows(address, lasso={"field": "tiny_image", "polygon": polygon})["total"]
    assert 0 < inside < rows(address, near={"field": "tiny_image", "row": row_of(address, "coffee.png")["n"]})["total"]
    page.locator("#map-total", has_text=f"{inside} samples in the lasso").wait_for()
    page.get_by_role("button", name="Show in Find").click()
    page.locator("#total", has_text=f"{inside} matches").wait_for()
    page.locator("#facets button", has_text="kept").first.click()
    page.get_by_role("button", name="Remove the filter On the map of tiny_image").click()
    page.get_by_role("button", name="Remove the filter Verdict: kept").wait_for()


def test_a_rectangle_is_chosen_by_the_keyboard_alone(page: Page, address: str) -> None:
    mapped(page)
    for name, value in (("Across from", 0), ("Across to", 100), ("Up from", 0), ("Up to", 60)):
        page.get_by_label(name, exact=True).focus()
        page.keyboard.press("Control+a")
        page.keyboard.type(str(value))
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    asked = {"field": "tiny_image", "polygon": [[0, 0], [1, 0], [1, 0.6], [0, 0.6]]}
    page.locator("#map-total", has_text=f"{rows(address, lasso=asked)['total']} samples").wait_for()


def test_a_press_on_a_point_inspects_its_sample(page: Page, address: str) -> None:
    box = mapped(page)
    across, up = points(address)[5]
    n = httpx.post(address + "map/row", json={"field": "tiny_image", "point": 5}).json()
    page.mouse.click(*place(box, across, up))
    told = httpx.get(f"{address}sample/{n}").json()
    page.locator("#inspect h2", has_text=told["row"]["uri"]).wait_for()


def test_keys_zoom_and_move_and_a_lasso_holds_what_is_drawn_in_it(page: Page, address: str) -> None:
    box = mapped(page)
    whole = page.locator("#points").evaluate("canvas => canvas.toDataURL()")
    page.locator("#plane").focus()
    for key in ("+", "+", "-", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
    zoomed(page, "× 2.0", 0.125, 0.125)
    some = points(address)
    drawn = [tuple(one) for one in some if ((one > 0.14) & (one < 0.61)).all()]
    assert drawn, "some points are shown"
    for across, up in drawn:
        x, y = place(box, across, up, 2, 0.125, 0.125)
        pixel = [round(x - box["x"]), round(y - box["y"])]
        data = page.locator("#points").evaluate(
            "(c, at) => c.getContext('2d').getImageData(...at, 1, 1).data[3]", pixel
        )
        assert data > 0, (across, up)
    polygon = [(0.13, 0.13), (0.6, 0.13), (0.6, 0.5), (0.13, 0.6)]
    page.mouse.move(*place(box, *polygon[0], 2, 0.125, 0.125))
    page.mouse.down()
    for corner in polygon[1:]:
        page.mouse.move(*place(box, *corner, 2, 0.125, 0.125), steps=5)
    page.mouse.up()
    inside = rows(address, lasso={"field": "tiny_image", "polygon": polygon})["total"]
    assert 0 < inside < len(some)
    page.locator("#map-total", has_text=f"{inside} sample").wait_for()
    page.get_by_role("button", name="Clear").click()
    page.locator("#plane").press("0")
    zoomed(page, "× 1.0", 0, 0)
    assert page.locator("#points").evaluate("canvas => canvas.toDataURL()") == whole


def test_wheel_buttons_and_a_drag_with_shift_keep_the_point_under_the_pointer(page: Page, address: str) -> None:
    box = mapped(page)
    across, up = points(address)[5]
    told = httpx.get(
        f"{address}sample/{httpx.post(address + 'map/row', json={'field': 'tiny_image', 'point': 5}).json()}"
    )
    x, y = place(box, across, up)
    page.mouse.move(x, y)
    page.mouse.wheel(0, -1000)
    zoom = math.exp(2)
    page.locator("#map-zoom", has_text=f"× {zoom:.1f}").wait_for()
    page.mouse.click(x, y)
    page.locator("#inspect h2", has_text=told.json()["row"]["uri"]).wait_for()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Zoom in").click()
    page.get_by_role("button", name="Zoom out").click()
    page.mouse.move(x, y)
    page.keyboard.down("Shift")
    page.mouse.down()
    page.mouse.move(x + 30 * (x < box["x"] + box["width"] / 2) - 15, y, steps=3)  # towards the middle: there is map
    page.mouse.up()
    page.keyboard.up("Shift")
    assert page.locator("#outline").get_attribute("points") == "", "it draws no lasso"
    page.mouse.click(x + 30 * (x < box["x"] + box["width"] / 2) - 15, y)
    page.locator("#inspect h2", has_text=told.json()["row"]["uri"]).wait_for()


def test_two_fingers_zoom_and_move(page: Page) -> None:
    box = mapped(page)
    session = page.context.new_cdp_session(page)

    def touch(kind: str, *fingers: tuple[float, float]) -> None:
        found = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(fingers)]
        session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": found})

    x, y = place(box, 0.5, 0.5)
    touch("touchStart", (x - 50, y))
    touch("touchStart", (x - 50, y), (x + 50, y))
    touch("touchMove", (x - 100, y), (x + 100, y))
    touch("touchMove", (x - 100 + 40, y), (x + 100 + 40, y))
    touch("touchEnd")
    zoomed(page, "× 2.0", 0.25 - 20 / (box["width"] - 16), 0.25)
    assert page.locator("#outline").get_attribute("points") == ""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_map_is_drawn_in_the_colours_of_its_legend(page: Page, scheme: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    mapped(page)
    drawn = page.evaluate(DRAWN)
    legend = page.locator("#map-legend i").evaluate_all(
        "all => all.map(i => i.style.background.match(/[0-9]+/g).map(Number))"
    )
    assert len(legend) >= 3
    seen = np.array(drawn)
    for colour in legend:  # points that are not quite opaque come back rounded
        assert np.abs(seen - colour).max(axis=1).min() <= 2, (colour, drawn)
    page.get_by_label("Colour by").select_option("brightness")
    page.locator("#map-legend .ramp").wait_for()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_tokens_decode_next_to_their_original(page: Page) -> None:
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import expect

    inspected(page, "chelsea.png")
    page.get_by_role("button", name="Decode its tokens").click()
    images = page.locator("#inspect .trip img")
    images.first.wait_for(timeout=300_000)
    assert images.count() == 3
    for image in images.all():
        expect(image).not_to_have_js_property("naturalWidth", 0)
    page.locator("#inspect").get_by_text("which decode to the text").wait_for()
    assert SAID in page.locator("#inspect .caption").last.inner_text()
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    inspected(page, "hum.wav")
    page.get_by_role("button", name="Decode its tokens").click()
    heard = page.get_by_label("sound: decoded")
    heard.wait_for(timeout=300_000)
    heard.evaluate("a => a.readyState || new Promise((done, no) => {a.onloadedmetadata = done; a.onerror = no})")
    assert heard.evaluate("a => a.duration") > 0.5


@pytest.fixture(scope="module")
def clip_build(browsed_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The same build as if CLIP, a small one with random weights, had looked at it: one image has the embedding of the
    text SAID."""
    ensure_torchvision()
    import open_clip
    import torch
    from safetensors.torch import save_file

    root = tmp_path_factory.mktemp("clip")
    torch.manual_seed(3)
    save_file(open_clip.create_model("ViT-S-32").state_dict(), root / "small.safetensors")
    signal = Clip(ClipOptions(model="ViT-S-32", pretrained=str(root / "small.safetensors")))
    signal.load_texts()
    shutil.copytree(browsed_build, root / "build")
    store = Folder(root / "build")
    manifest = read_manifest(store)
    files = read_files(store, manifest)
    rng = np.random.default_rng(0)
    for file in [file for file in files if file.path.startswith("samples/")]:
        samples = pq.read_table(store.root / file.path)
        vectors = rng.standard_normal((samples.num_rows, signal.embed_dim)).astype(np.float32)
        for i, uri in enumerate(samples["uri"].to_pylist()):
            if uri.endswith("astronaut.png"):
                vectors[i] = signal.embed_text(SAID)
        column = pa.FixedSizeListArray.from_arrays(vectors.ravel(), signal.embed_dim)
        table = pa.table({"sample_id": samples["sample_id"], "clip_image": column})
        partition = file.path.removeprefix("samples/").rpartition("-")[0]
        files.append(write_named_table(store, f"signals/clip/{partition}", table))
    about = signal.gives[1]
    field = {"name": about.name, "unit": "", "range": [None, None], "kinds": list(about.kinds), "about": about.about}
    manifest.signals.append(
        {
            "name": "clip",
            "version": signal.version(),
            "options": signal.made_by(),
            "fields": [{**field, "type": str(about.type)}],
        }
    )
    manifest.lists = write_lists(store, files)
    store.write(MANIFEST, manifest.model_dump_json().encode())
    yield store.root
    shutil.rmtree(root)


def test_samples_are_found_by_a_text_that_is_like_them(blank: Page, clip_build: Path, served: Served) -> None:
    page = blank
    with served(clip_build) as address:
        page.goto(address)
        page.get_by_label("Like a text").fill(SAID)
        page.keyboard.press("Enter")
        page.locator("#grid .soft", has_text="cosine 1.0000").wait_for(timeout=300_000)
        assert "astronaut.png" in page.locator("#grid li").first.inner_text()
        page.get_by_role("button", name="Remove the filter Nearest by clip_image").click()
        page.locator("#grid .soft", has_text="cosine").first.wait_for(state="detached")
