"""How soon `curate browse` shows a million samples, how soon a dragged rule is redrawn, and what that takes.

The build is made up (`parts/made_build.py`): measurements of a million samples, and a few hundred real images that they
share. A real browser (Chromium) opens the page, drags a rule back and forth, asks for the samples nearest to one, and
opens the map. Bars: the first view 1.5 s after the server is up, a redraw 150 ms at the 95th percentile, 1 GB of memory
of the server, 500 MB of the page.

    python benchmarks/browse.py                    # a million samples
    python benchmarks/browse.py --rows 100000 --folder /tmp/made    # kept there, and used again
    python benchmarks/browse.py --rows 4000 --failed 1000000        # and so many failed records
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MOVES = 200
"""Steps of the pointer while a line is dragged."""

SETTLE_SECONDS = 10.0
"""A browser that has just been started is busy with itself, and slow to show anything; a person's has been open."""

STEP_SECONDS = 0.016
"""Between two of them, as a screen of 60 images a second gives them."""


@contextmanager
def served(build: Path, cache: Path) -> Iterator[tuple[str, int, float]]:
    """The page's address, the server's process, and the seconds until it is up."""
    command = [sys.executable, "-m", "curate.cli.main", "browse", str(build), "--cache", str(cache)]
    start = perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        try:
            yield address, server.pid, perf_counter() - start
        finally:
            server.send_signal(signal.SIGINT)


def look(browser: Browser, address: str, server: int) -> dict[str, Any]:
    """What the page takes, used as a person does."""
    out: dict[str, Any] = {}
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    start = perf_counter()
    page.goto(address)
    page.locator("#facets button").first.wait_for()
    page.locator("#grid li").first.wait_for()
    out["first view s"] = perf_counter() - start
    while not page.evaluate("[...document.querySelectorAll('#grid img')].slice(0, 18).every(i => i.naturalWidth)"):
        sleep(0.02)  # the page's policy lets no string be evaluated, so the browser cannot wait by itself
    out["thumbnails s"] = perf_counter() - start
    out["filter s"] = _seconds(page, lambda: page.locator("#facets button", has_text="dropped").first.click())
    out["sort s"] = _seconds(page, lambda: page.get_by_label("Sort by").select_option("aesthetic"))
    out["search s"] = _seconds(page, lambda: page.get_by_label("Search").fill("knead"))
    _seconds(page, lambda: page.get_by_label("Search").fill(""))
    _seconds(page, page.locator("#chosen button").first.click)
    out["failed s"] = _seconds(page, lambda: page.locator("#facets button", has_text="failed").first.click())
    out["cause s"] = _seconds(page, lambda: page.locator("#facets [data-facet^=error]").first.click())
    for _ in range(2):
        _seconds(page, page.locator("#chosen button").first.click)
    start = perf_counter()
    page.get_by_role("button", name="Decide").click()
    page.locator("#kept b").wait_for(timeout=120_000)
    out["decide s"] = perf_counter() - start
    out |= drag(page)
    out |= compare(page)
    out["server MB"] = _memory(server, "VmHWM")
    out["page MB"] = sum(map(_share, _renderers(browser)))
    page.close()
    return out


def compare(page: Page) -> dict[str, Any]:
    """By an embedding of 64 numbers: the nearest to a sample, the map of all samples, and what lies in half of it."""
    page.locator("[data-view=find]").click()
    page.locator("#grid button").first.click()
    button = page.locator("#inspect").get_by_role("button", name="tiny", exact=True)
    button.wait_for()
    start = perf_counter()
    button.click()
    page.locator("#inspect [aria-live] .thumbs button").first.wait_for(timeout=120_000)
    out: dict[str, Any] = {"nearest s": perf_counter() - start}
    start = perf_counter()
    page.locator("[data-view=map]").click()
    page.locator("#map[aria-busy=false]").wait_for(timeout=120_000)
    out["map s"] = perf_counter() - start
    out["map points"] = int(page.locator("#map-about").inner_text().split()[0].replace(",", ""))
    start = perf_counter()
    page.locator("#map-select").click()
    page.locator("#map-total", has_text="samples").wait_for()
    return {**out, "lasso s": perf_counter() - start}


def _seconds(page: Page, act: Callable[[], object]) -> float:
    """Until the grid has been drawn anew."""
    page.evaluate(_WATCH)
    start = perf_counter()
    act()
    page.evaluate("window.drawn")
    return perf_counter() - start


_WATCH = """
const grid = document.querySelector('#grid');
window.drawn = new Promise(done => new MutationObserver(done).observe(grid, {childList: true}));
0
"""


def drag(page: Page) -> dict[str, Any]:
    """Redraws while a line is dragged back and forth, from the pointer's event to what is drawn, ms."""
    page.evaluate("performance.clearMeasures()")
    plot = page.locator("#focus .plot").bounding_box()
    grip = page.locator("#focus .line.least").bounding_box()
    assert plot is not None
    assert grip is not None
    page.mouse.move(grip["x"] + grip["width"] / 2, grip["y"] + grip["height"] / 2)
    page.mouse.down()
    for i in range(MOVES):
        place = 0.35 - 0.3 * math.cos(i / 12)
        page.mouse.move(plot["x"] + plot["width"] * place, plot["y"] + plot["height"] / 2)
        sleep(STEP_SECONDS)
    page.mouse.up()
    page.locator("#decide[aria-busy=false]").wait_for()
    found = sorted(page.evaluate("performance.getEntriesByName('redraw').map(one => one.duration)"))
    told = {name: found[min(len(found) - 1, int(len(found) * share))] for name, share in (("p50", 0.5), ("p95", 0.95))}
    return {"redraws": len(found), "redraw p50 ms": told["p50"], "redraw p95 ms": told["p95"]}


def _renderers(browser: Browser) -> list[int]:
    """Processes that draw pages."""
    told = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")
    return [int(one["id"]) for one in told["processInfo"] if one["type"] == "renderer"]


def _memory(pid: int, key: str) -> float:
    """MB of a process: `VmRSS` now, `VmHWM` at most."""
    said = Path(f"/proc/{pid}/status").read_text()
    return int(said.split(f"{key}:")[1].split()[0]) * 1024 / 1e6


def _share(pid: int) -> float:
    """MB of a process, of what it shares with others its part (PSS)."""
    said = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(said.split("\nPss:")[1].split()[0]) * 1024 / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--failed", type=int, help="failed records beside them, in place of one for each hundred")
    parser.add_argument("--folder", type=Path, help="keep what is made here, and use it again")
    args = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("there is no chromium: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory(prefix="curate-benchmark-") as scratch:
        made = [str(args.rows), *([] if args.failed is None else [str(args.failed)])]
        build = (args.folder or Path(scratch)) / "-".join(made)
        if not (build / "manifest.json").exists():
            start = perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "parts.made_build", build, *made],
                cwd=Path(__file__).parent,
                check=True,
                capture_output=True,
                text=True,
            )
            print(f"made in {perf_counter() - start:.0f} s: {done.stdout.strip()}", flush=True)
        cache = Path(scratch) / "cache"
        with sync_playwright() as playwright:
            options = ["--no-sandbox"] if os.geteuid() == 0 else []
            for what in ("new", "again"):
                browser = playwright.chromium.launch(executable_path=chromium, args=options)
                sleep(SETTLE_SECONDS)
                with served(build, cache) as (address, server, seconds):
                    found = {"server up s": seconds, **look(browser, address, server)}
                print(what, json.dumps({name: round(value, 3) for name, value in found.items()}), flush=True)
                browser.close()


if __name__ == "__main__":
    main()
