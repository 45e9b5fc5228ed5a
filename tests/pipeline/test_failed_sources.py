"""A source that fails whole ends the run early, and by what says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from small import Project

from curate.pipeline.failed_sources import ALL, FEWEST, FIRST, check_leading, leading, leading_units
from curate.schema.errors import CurateError
from curate.sources.base import Unit

RECIPE = """\
name: two
sources:
  - {kind: folder, name: here, path: media}
  - {kind: table, name: web, path: web.csv}
annotate: [{name: brightness}]
tokenize: {streams: [{name: caption, tokenizer: text-bpe-8k}]}
"""


def unit(source: str, name: str) -> Unit:
    return Unit(source, name, "", 0, {})


def row(error: str | None = "FetchError", message: str = "status 404", uri: str = "a.jpg") -> dict[str, Any]:
    return {"stage": "ingest", "error": error, "message": message, "uri": uri}


def test_the_unit_that_speaks_for_a_source_comes_first_and_is_drawn() -> None:
    """A sorted table begins with what is alike, such as a dead domain."""
    units = [unit("a", f"a{i}") for i in range(100)] + [unit("b", "b0"), unit("c", "c0"), unit("c", "c1")]
    found = leading_units(units, ["c"])
    (first, what), second, *others = found
    assert (first.source, what) == ("a", FIRST)
    assert first.name != "a0"
    assert second == (units[100], ALL)
    assert others == [(one, None) for one in units if one not in (first, units[100])]
    assert leading_units(units, ["c"]) == found
    assert leading_units([*units[::-1]], ["c"])[1] == (first, FIRST), "not by their order"


def test_what_is_drawn_of_a_source_is_never_all_of_it() -> None:
    [(_, what)] = leading_units([unit("a", "1")], [], ["a"])
    assert what == FIRST
    assert leading(what, FEWEST - 1, True) is None, "a trial of a few records that are broken goes on"
    assert leading(what, FEWEST, True) == FIRST


@pytest.mark.parametrize(
    ("of_unit", "rows", "is_last", "what"),
    [
        (ALL, 3, True, ALL),
        (ALL, 3, False, None),  # a partition of three clips of a table of millions tells nothing
        (ALL, FEWEST, False, FIRST),
        (FIRST, 3, True, None),  # the first of many small tars
        (FIRST, FEWEST, True, FIRST),
        (None, 1024, True, None),
    ],
)
def test_a_first_partition_speaks_for_its_source_when_it_is_large_or_all(
    of_unit: str | None, rows: int, is_last: bool, what: str | None
) -> None:
    assert leading(of_unit, rows, is_last) == what


def test_the_commonest_cause_is_named_with_the_way_out() -> None:
    rows = [row(message="no answer", uri="first.jpg"), *[row(uri=f"{i}.jpg") for i in range(1200)], row("OSError")]
    with pytest.raises(CurateError) as raised:
        check_leading(FIRST, "web", rows)
    assert raised.value.message == (
        "the 1,202 records of source 'web' that were read first all failed: "
        "1,201 records  ingest FetchError  0.jpg: status 404"
    )
    assert "`max_failed: 1`" in raised.value.hint
    with pytest.raises(CurateError, match=r"^all 3 records of source 'web' failed"):
        check_leading(ALL, "web", rows[:3])
    with pytest.raises(CurateError, match=r"^the only record of source 'web' failed"):
        check_leading(ALL, "web", rows[:1])


@pytest.mark.parametrize(("what", "rows"), [(None, [row()]), (ALL, [row(), row(None)]), (ALL, [])])
def test_one_good_record_is_enough(what: str | None, rows: list[dict[str, Any]]) -> None:
    check_leading(what, "web", rows)


def dead_source(root: Path) -> Project:
    """Four images, and a table of forty addresses that are none of the internet."""
    (root / "media").mkdir()
    for i in range(4):
        Image.new("RGB", (64, 64), (40 * i, 90, 200)).save(root / "media" / f"{i}.png")
        (root / "media" / f"{i}.txt").write_text(f"a plain colour, number {i}")
    urls = [f"http://127.0.0.1:9/{i}.jpg" for i in range(40)]
    (root / "web.csv").write_text("\n".join(["uri", *urls]) + "\n")
    return Project(root)


def refused(project: Project) -> None:
    out = project.root / "out"
    done = project.curate("run", project.recipe, "--out", out, "--workers", 2, ok=False)
    assert done.returncode == 2
    assert "curate: all 40 records of source 'web' failed" in done.stderr
    assert "40 records  ingest FetchError  http://127.0.0.1:9/0.jpg: 127.0.0.1 is not a public" in done.stderr
    assert "allow_private" in done.stderr
    assert "Traceback" not in done.stderr
    assert "exception" not in done.stderr
    assert not list(out.glob("fetched/web-*"))
    assert not (out / "manifest.json").exists()


def test_a_dead_source_ends_the_run(tmp_path: Path) -> None:
    project = dead_source(tmp_path)
    project.recipe.write_text(RECIPE)
    refused(project)


@pytest.mark.long
def test_a_dead_source_ends_the_run_until_it_is_allowed(tmp_path: Path) -> None:
    project = dead_source(tmp_path)
    out = tmp_path / "out"
    project.recipe.write_text(RECIPE)
    for _ in range(2):  # nothing of it is kept, so the same command finds it again
        refused(project)
    project.run(out, "--workers", 2, recipe=RECIPE + "max_failed: 1\n")
    project.recipe.write_text(RECIPE)  # what was built is judged by the recipe as it is now
    done = project.curate("run", project.recipe, "--out", out, "--workers", 2, ok=False)
    assert done.returncode == 2
    assert "all 40 records of source 'web' failed" in done.stderr
    assert "--retry-failed" in done.stderr
