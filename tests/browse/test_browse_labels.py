"""Samples labelled good or bad: what is kept, what rules make of it, and the page's keys."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from curate.browse import query
from curate.browse.columns import Columns
from curate.browse.labels import EXPORTED, Labelled, Labels
from curate.browse.moving import Moving
from curate.browse.table import Browsed, open_table
from curate.schema.errors import CurateError
from curate.storage import open_store

if TYPE_CHECKING:
    from conftest import Served
    from playwright.sync_api import Page


@contextmanager
def opened(build: Path, cache: Path) -> Iterator[tuple[Browsed, Labels]]:
    with open_table(open_store(build), cache) as browsed:
        yield browsed, Labels(browsed, Columns(browsed))


def row_of(browsed: Browsed, name: str) -> int:
    [row] = query.page(browsed, {"search": name})["rows"]
    return int(row["n"])


def test_the_last_mark_counts_and_outlives_the_server(browsed_build: Path, tmp_path: Path) -> None:
    with opened(browsed_build, tmp_path) as (browsed, labels):
        cat, brick, coins = (row_of(browsed, name) for name in ("chelsea.png", "brick.png", "coins.png"))
        for n, label in ((cat, "bad"), (brick, "bad"), (coins, "good"), (cat, "good"), (coins, None)):
            told = labels.mark({"n": n, "label": label})
        assert told == {"good": 1, "bad": 1, "rows": {cat: "good", brick: "bad"}}
    with opened(browsed_build, tmp_path) as (browsed, labels):
        assert labels.told() == told
        found = query.page(browsed, {"where": [{"field": "label", "is": ["bad"]}]})["rows"]
        assert [row["n"] for row in found] == [brick]
        assert query.facets(browsed, {})["label"] == [{"value": "good", "n": 1}, {"value": "bad", "n": 1}]
        table = pq.read_table(BytesIO(labels.exported("parquet")))
        assert table.schema == EXPORTED
        assert [uri.rpartition("/")[2] for uri in table["uri"].to_pylist()] == ["brick.png", "chelsea.png"]
        assert table["label"].to_pylist() == ["bad", "good"]
        text = pyarrow.csv.read_csv(BytesIO(labels.exported("csv")))
        assert text.to_pylist() == table.to_pylist()


def test_a_label_of_what_lies_twice_passes_where_one_of_them_does() -> None:
    twice = Labelled(*(np.array(a) for a in ([0, 4, 9, 10], [0, 4, 8, 9], [0, 2, 3], [True, False, True])))
    assert twice.agree(np.array([False, True, True, False])) == {"precision": 1 / 2, "recall": 1 / 2}
    assert twice.agree(np.zeros(4, bool)) == {"precision": None, "recall": 0}


def test_precision_and_recall_are_those_counted_by_hand(browsed_build: Path, tmp_path: Path) -> None:
    with opened(browsed_build, tmp_path) as (browsed, labels):
        moving = Moving(browsed, Columns(browsed), labels, None)
        assert moving.judge({})["labels"] is None
        rows = query.rows(browsed, "SELECT n, brightness, outcome FROM rows WHERE level = 'sample'")
        for i, row in enumerate(rows):
            labels.mark({"n": row["n"], "label": "good" if i % 3 else "bad"})
        good = [row for i, row in enumerate(rows) if i % 3]
        found = moving.judge({})
        assert found["labelled"] == len(rows)
        kept = [row for row in rows if row["outcome"] == "kept"]
        right = sum(row in good for row in kept)
        assert found["labels"] == {"precision": right / len(kept), "recall": right / len(good)}
        for limit in (90, 115, 150):
            asked = {"changes": [{"rule": 0, "key": "max", "value": limit}]}
            [bound] = [one for one in moving.judge(asked)["bounds"] if one["field"] == "brightness"]
            passes = [row for row in rows if row["brightness"] is None or row["brightness"] <= limit]
            right = sum(row in good for row in passes)
            assert 0 < right < len(passes)
            assert bound["labels"] == {"precision": right / len(passes), "recall": right / len(good)}


@pytest.mark.parametrize(
    "asked",
    [{"n": 0, "label": "great"}, {"n": 0, "label": ["good"]}, {"n": True, "label": "good"}, {"n": 10**9}, {}],
)
def test_what_is_no_label_is_refused_and_not_written(
    browsed_build: Path, tmp_path: Path, asked: dict[str, Any]
) -> None:
    with opened(browsed_build, tmp_path) as (browsed, labels):
        with pytest.raises(CurateError):
            labels.mark(asked)
        assert not browsed.labels.exists()


def test_what_another_server_labels_is_told_too(browsed_build: Path, tmp_path: Path) -> None:
    with opened(browsed_build, tmp_path) as (browsed, mine), opened(browsed_build, tmp_path) as (_, other):
        cat, brick = (row_of(browsed, name) for name in ("chelsea.png", "brick.png"))
        mine.mark({"n": cat, "label": "good"})
        assert other.told()["rows"] == {cat: "good"}
        other.mark({"n": cat, "label": "bad"})
        other.mark({"n": brick, "label": "good"})
        assert mine.told()["rows"] == {cat: "bad", brick: "good"}
        found = query.page(browsed, {"where": [{"field": "label", "is": ["bad"]}]})["rows"]
        assert [row["n"] for row in found] == [cat]
        browsed.labels.unlink()
        assert mine.told() == {"good": 0, "bad": 0, "rows": {}}
        mine.mark({"n": brick, "label": "bad"})
        assert other.told()["rows"] == {brick: "bad"}


def test_a_record_without_samples_and_a_damaged_file_are_said(browsed_build: Path, tmp_path: Path) -> None:
    with opened(browsed_build, tmp_path) as (browsed, labels):
        with pytest.raises(CurateError, match="only samples are labelled"):
            labels.mark({"n": row_of(browsed, "broken.jpg"), "label": "bad"})
        labels.mark({"n": row_of(browsed, "coins.png"), "label": "bad"})
        browsed.labels.write_text(browsed.labels.read_text() + '{"id": "0", "label": "great"}\n')
    with pytest.raises(CurateError, match="line 2 of"), opened(browsed_build, tmp_path):
        pass


def press(page: Page, name: str, key: str, label: str) -> None:
    """Press a key on a thumbnail of the grid, and wait for its label."""
    cell = page.locator("#grid button", has_text=name)
    cell.focus()
    cell.press(key)
    page.locator(f"#grid button:focus .label[class='label {label}']").wait_for(state="attached")


def test_keys_mark_samples_and_everything_follows(
    blank: Page, browsed_build: Path, served: Served, tmp_path: Path
) -> None:
    pytest.importorskip("playwright.sync_api", reason="pip install -e '.[dev]'")
    from axe_playwright_python.sync_playwright import Axe

    page, build = blank, tmp_path / "build"
    shutil.copytree(browsed_build, build)
    with served(build) as address:
        page.goto(address)
        press(page, "chelsea.png", "g", "good")
        press(page, "coins.png", "g", "good")
        press(page, "grass.png", "b", "bad")
        press(page, "brick.png", "b", "bad")
        press(page, "brick.png", "u", "")
        page.locator("#grid button", has_text="page.png").click()  # brighter than 150
        page.locator("#inspect h2", has_text="page.png").wait_for()
        page.keyboard.press("g")
        page.locator("#inspect .label", has_text="good").wait_for()
        page.locator("#labelled", has_text="3 good, 1 bad").wait_for()
        page.locator("#grid button", has_text="broken.jpg").focus()
        page.keyboard.press("g")
        page.get_by_role("alert").get_by_text("only samples are labelled").wait_for()
    with served(build) as address:
        page.goto(address)
        page.locator("#facets button", has_text="good").click()
        page.locator("#total", has_text="3 matches").wait_for()
        assert page.locator("#grid .label.good").count() == 3
        files = []
        for name in ("CSV", "Parquet"):
            with page.expect_download() as download:
                page.get_by_role("link", name=name).click()
            files.append(download.value.path())
        table = pq.read_table(files[1])
        assert pyarrow.csv.read_csv(files[0]).to_pylist() == table.to_pylist()
        said = {
            uri.rpartition("/")[2]: label
            for uri, label in zip(*(table[c].to_pylist() for c in ("uri", "label")), strict=True)
        }
        assert said == {"chelsea.png": "good", "coins.png": "good", "grass.png": "bad", "page.png": "good"}
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
        page.get_by_role("button", name="Decide").click()
        row = page.locator("#funnel tr", has_text="brightness <= 150")
        row.get_by_text("precision 0.67, recall 0.67 on 4 labels").wait_for()
        page.get_by_label("at most", exact=True).fill("")
        page.get_by_label("at most", exact=True).press("Enter")
        page.locator("#kept").get_by_text("precision 1.00, recall 1.00 on 4 labels").wait_for()
        found = Axe().run(page)
        assert found.violations_count == 0, found.generate_report()
