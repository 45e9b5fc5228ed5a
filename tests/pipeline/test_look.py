"""The second look: a dear signal sees what rules and duplicates left, and nothing else ever."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from PIL import Image
from small import Project, shown

from curate.card import write_card
from curate.card.explain import explain
from curate.cli.summary import summarise
from curate.pipeline.cluster import Cluster, connect
from curate.pipeline.plan import make_plan, open_sources
from curate.pipeline.progress import console
from curate.pipeline.run import Result, run
from curate.schema.errors import CurateError
from curate.schema.manifest import Manifest
from curate.schema.recipe_file import RecipeFile
from curate.shards.verify import verify
from curate.storage import Folder

RECIPE = """\
name: look
partition: 4
sources:
  - {kind: folder, name: here, path: media, licence: test}
annotate:
  - name: brightness
  - name: tiny_image
  - {name: "dear_signal:Dear", for: kept, log: LOG, breaks: BREAKS}
decide:
  rules:
    - {field: brightness, min: 60}
    - {field: redness, max: 220}
  near_duplicates:
    - {embedding: tiny_image, threshold: 0.99, keep: [pixels]}
tokenize:
  streams:
    - {name: caption, tokenizer: text-bpe-8k}
"""

DARK, SANE, RED, HEAP = 6, 8, 2, 7
"""Images: below 60 of brightness (of these half above 30); above it; above 220 of red, each with a smaller and less red
copy; and, still redder, look-alikes of one another."""


def make_images(folder: Path) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)

    def image(name: str, colour: tuple[int, int, int], size: int = 96) -> None:
        coarse = rng.integers(-28, 28, (6, 6, 1)) + np.array(colour)
        Image.fromarray(np.uint8(np.clip(coarse, 0, 255))).resize((size, size)).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"an image called {name}")

    for i in range(DARK):
        image(f"dark{i}", (20, 20, 20) if i % 2 else (45, 45, 45))
    for i in range(SANE):
        image(f"sane{i}", (90 + 8 * i, 120, 200 - 9 * i))
    image("heap0", (240, 60, 200))
    for i in range(1, HEAP):
        with Image.open(folder / "heap0.png") as first:
            Image.fromarray(np.asarray(first) - np.uint8([0, i, 0])).save(folder / f"heap{i}.png")
        (folder / f"heap{i}.txt").write_text("one of a heap")
    for i in range(RED):
        image(f"red{i}", (230, 120 + 40 * i, 120))
        with Image.open(folder / f"red{i}.png") as whole:
            smaller = np.asarray(whole.resize((80, 80))).astype(int) - (18, 0, 0)
        Image.fromarray(np.uint8(np.clip(smaller, 0, 255))).save(folder / f"red{i}_copy.png")
        (folder / f"red{i}_copy.txt").write_text("a copy")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with pytest.MonkeyPatch.context() as patch:
        # workers, and a run of the command line, find the signal
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
        with connect(None, 2) as cluster:
            ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
            yield cluster
            ray.shutdown()


class Place:
    """A folder with images, and runs of the recipe over them."""

    def __init__(self, root: Path, cluster: Cluster) -> None:
        self.root, self._cluster = root, cluster
        self.log, self.breaks, self.recipe = root / "log", root / "breaks", root / "r.yaml"
        make_images(root / "media")

    def run(self, out: str, *changes: tuple[str, str], until: str | None = None, retry: bool = False) -> Result:
        self.write(*changes)
        file = RecipeFile.load(str(self.recipe))
        return run(
            make_plan(file),
            open_sources(file, {}),
            Folder(self.root / out),
            self._cluster,
            console(quiet=True),
            write_card,
            until=until,
            retry_failed=retry,
        )

    def write(self, *changes: tuple[str, str]) -> None:
        """Write the recipe with changes of its text, and forget what was asked."""
        text = RECIPE.replace("LOG", str(self.log)).replace("BREAKS", str(self.breaks))
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.recipe.write_text(text)
        self.log.write_text("")

    @property
    def calls(self) -> list[str]:
        """Samples that the dear signal was asked of in the last run, sorted."""
        return sorted(self.log.read_text().split())

    def ledger(self, out: str) -> list[dict[str, Any]]:
        tables = [pq.read_table(path) for path in sorted((self.root / out / "verdicts").glob("*.parquet"))]
        return [row for row in pa.concat_tables(tables).to_pylist() if row["level"] == "sample"]


@dataclass(frozen=True)
class Built:
    """A build in steps: samples kept after the run until `decide` and until `look`, and what was asked in each run."""

    place: Place
    kept: tuple[int, int]
    calls: tuple[list[str], list[str], list[str]]
    manifest: Manifest


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Built:
    place = Place(tmp_path_factory.mktemp("look"), cluster)
    kept, calls = [], []
    for until in ("decide", "look", None):
        made = place.run("build", until=until)
        kept.append(sum(one.count for one in made.outcomes if (one.level, one.outcome) == ("sample", "kept")))
        calls.append(place.calls)
    assert made.manifest is not None
    return Built(place, (kept[0], kept[1]), (calls[0], calls[1], calls[2]), made.manifest)


def name_of(row: dict[str, Any]) -> str:
    return Path(row["uri"]).stem


def test_a_run_may_end_before_the_second_look_and_after_it(built: Built) -> None:
    assert built.kept == (SANE + RED + 1, SANE + RED), "afterwards it is the copies in place of the red ones"
    assert [len(calls) for calls in built.calls] == [0, SANE + 2 * RED + HEAP, 0]


def test_only_what_is_kept_is_looked_at_and_the_ledger_says_so(built: Built) -> None:
    rows = built.place.ledger("build")
    by_name = {name_of(row): row for row in rows}
    assert built.calls[1] == sorted(row["id"] for row in rows if row["not_evaluated"] is None), "each once"
    dark = {name for name in by_name if name.startswith("dark")}
    assert {name for name, row in by_name.items() if row["not_evaluated"] == ["dear"]} == dark
    assert {by_name[name]["rule"] for name in dark} == {"brightness >= 60"}


def test_where_a_keeper_is_dropped_its_duplicate_is_looked_at_next(built: Built) -> None:
    by_name = {name_of(row): row for row in built.place.ledger("build")}
    for i in range(RED):
        assert by_name[f"red{i}"]["rule"] == "redness <= 220"
        assert by_name[f"red{i}_copy"]["outcome"] == "kept"


def test_the_build_is_whole_and_says_what_was_saved(built: Built) -> None:
    place = built.place
    made = place.run("build")
    assert place.calls == [], "nothing changed"
    build = Folder(place.root / "build")
    assert verify(build).problems == []
    second = built.manifest.second_look
    assert second is not None
    assert (second.signals, second.models, second.samples) == (["dear"], ["dear"], SANE + 2 * RED + HEAP)
    assert summarise(build, built.manifest, 0.5, made.decodes).calls_saved == {"dear": DARK}
    [dark] = [row["id"] for row in place.ledger("build") if name_of(row) == "dark0"]
    assert "signal redness = not evaluated" in explain(build, dark).text()
    assert f"<b>{DARK}</b> not evaluated" in (place.root / "build/card/index.html").read_text()


LOWER = ("min: 60", "min: 30")


def test_a_lowered_threshold_looks_at_the_newcomers_alone(built: Built) -> None:
    place = built.place
    shutil.copytree(place.root / "build", place.root / "lowered")
    place.run("lowered", LOWER, until="look")
    after = {row["id"] for row in place.ledger("lowered") if row["not_evaluated"] is None}
    assert len(after) == SANE + 2 * RED + HEAP + DARK // 2
    assert place.calls == sorted(after - set(built.calls[1]))


@pytest.mark.long
def test_a_threshold_that_was_moved_and_back_gives_the_bytes_of_fresh_builds(built: Built) -> None:
    place = built.place
    shutil.copytree(place.root / "build", place.root / "moved")
    place.run("moved", LOWER)
    place.run("fresh", LOWER)
    assert shown(place.root / "moved") == shown(place.root / "fresh")
    place.run("moved")
    assert place.calls == [], "what was looked at is known"
    assert shown(place.root / "moved") == shown(place.root / "build")
    place.run("moved", LOWER, until="look")
    assert place.calls == [], "also where it was of no use in between"


@pytest.mark.long
def test_what_fails_at_the_second_look_is_failed_and_can_be_tried_again(built: Built) -> None:
    place = built.place
    place.breaks.touch()
    place.run("broken")
    failed = [row for row in place.ledger("broken") if row["outcome"] == "failed"]
    red = {f"red{i}{copy}" for i in range(RED) for copy in ("", "_copy")}
    assert {name_of(row) for row in failed} == red | {f"heap{i}" for i in range(HEAP)}
    assert {(row["stage"], row["error"], row["not_evaluated"]) for row in failed} == {
        ("annotate:dear", "RuntimeError", None)
    }
    place.breaks.unlink()
    place.run("broken", retry=True)
    assert place.calls == sorted(row["id"] for row in failed), "good ones are not asked again"
    assert shown(place.root / "broken") == shown(place.root / "build")


def test_near_duplicates_cannot_wait_for_what_is_looked_at_after_them(built: Built) -> None:
    with pytest.raises(CurateError, match=r"redness is known only of samples that near duplicates left: dear"):
        built.place.run("never", ("keep: [pixels]", "keep: [redness]"))


@pytest.mark.long
def test_a_run_says_its_second_looks_and_what_they_saved(built: Built) -> None:
    place = built.place
    place.write()
    ended = Project(place.root).curate("run", place.recipe, "--out", place.root / "shell", "--workers", 1, "--json")
    events = [json.loads(line) for line in ended.stdout.splitlines()]
    looks = [e for e in events if e["event"] == "stage_end" and e["stage"] == "look"]
    # of a heap that falls whole one, then the next and as many as have fallen, and so on: not one by one
    assert [look["passed"] for look in looks] == [SANE + RED + 1, RED + 2, HEAP - 3]
    assert all(look["total"] == look["passed"] + look["reused"] for look in looks)
    assert events[-1]["calls_saved"] == {"dear": DARK}
    assert shown(place.root / "shell") == shown(place.root / "build")
