"""Runs that end before the build is made, and thresholds that are moved in between."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from small import RECIPE, Project, digests

from curate.card import write_card
from curate.pipeline.cluster import connect
from curate.pipeline.plan import make_plan, open_sources
from curate.pipeline.progress import console
from curate.pipeline.run import Result, run
from curate.schema.recipe_file import RecipeFile
from curate.shards.commit import read_manifest
from curate.storage import Folder


@pytest.mark.long
def test_ingest_then_decide_then_all_gives_the_build(small_build: Path, project: Project, tmp_path: Path) -> None:
    out = tmp_path / "out"
    project.run(out, "--until", "ingest")
    assert {path.name for path in out.iterdir()} >= {"fetched", "media"}
    assert not (out / "samples").exists()
    events = [json.loads(line) for line in project.run(out, "--until", "decide", "--json").stdout.splitlines()]
    [funnel] = [event for event in events if event["event"] == "funnel"]
    ended = {event["stage"]: event for event in events if event["event"] == "stage_end"}
    samples = [row for row in funnel["rows"] if row["level"] == "sample"]
    assert sum(row["count"] for row in samples) == ended["decide"]["total"]
    assert {row["cause"] for row in samples if row["outcome"] == "dropped"} <= {
        "duration >= 1",
        "sharpness >= 40",
        "brightness >= 20",
    }
    assert not (out / "manifest.json").exists()
    project.run(out)
    assert digests(out) == digests(small_build)


def test_what_follows_from_what_is_there_needs_no_ray(
    small_build: Path, project: Project, copy_of: Callable[[Path], Path]
) -> None:
    out = copy_of(small_build)
    project.recipe.write_text(RECIPE)
    made, started = rerun(project, out)
    assert made.manifest == read_manifest(out)
    assert not started, "all is there"
    (out / "card/index.html").unlink()
    made, started = rerun(project, out)
    assert digests(out) == digests(small_build), "what was missing is made again"
    assert not started, "no sample is decoded for it"
    project.recipe.write_text(RECIPE.replace("min: 20,", "min: 90,"))
    made, started = rerun(project, out, until="decide")
    assert any(one.cause == "brightness >= 90" for one in made.outcomes)
    assert not started, "verdicts follow from columns"
    assert (out / "manifest.json").exists(), "what was made stays until the build is made again"
    made, started = rerun(project, out)
    assert made.manifest is not None
    assert made.manifest.counts.samples["kept"] < read_manifest(small_build).counts.samples["kept"]
    assert not started, "what is still kept has its tokens"


def rerun(project: Project, out: Path, until: str | None = None) -> tuple[Result, bool]:
    """The same command in this process, and True if it started Ray."""
    file = RecipeFile.load(str(project.recipe))
    with connect(None, 2) as cluster:
        sources = open_sources(file, {})
        made = run(make_plan(file), sources, Folder(out), cluster, console(quiet=True), write_card, until=until)
        return made, ray.is_initialized()
